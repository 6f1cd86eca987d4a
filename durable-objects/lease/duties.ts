import type { AllocationRequest, AttestRequest } from "@gpux/protocol/attestation";
import { fundingKey, isFromCredit, type LeaseFunding } from "@gpux/protocol/funding";
import type { LeaseId } from "@gpux/protocol/ids";
import type { Intent, SettleIntent } from "@gpux/protocol/intent";
import type { z } from "zod";
import { evidenceOf } from "./billing.ts";
import { blockReceipts } from "./blocks.ts";
import { watchAt } from "./funding.ts";
import type { Job } from "./job-state.ts";
import { leavers, movers } from "./moves.ts";
import { isOver, type Lease, type State } from "./state.ts";
import { closeAskedAt, heardUntil, holdAt, RECLAIM_MS } from "./timers.ts";

type Voucher = z.output<typeof SettleIntent>;

/**
 * What a lease in this state must still get done outside. Derived, never stored: after a crash, an eviction or a
 * lost answer the same state has the same duties, and every duty is idempotent by its meaning.
 */
export type Duty =
  | { readonly key: string; readonly t: "relay"; readonly intent: Intent }
  /** Whether the funding, which can still be taken back, stands. */
  | { readonly key: "watch"; readonly t: "watch"; readonly intent: Extract<Intent, { kind: "fund" }> }
  /** From credit: the meter signs its half, then the relayer lands it. */
  | {
      readonly key: string;
      readonly t: "allocate";
      readonly funding: string;
      readonly request: AllocationRequest;
    }
  | { readonly key: "hold"; readonly t: "hold"; readonly voucher: Voucher }
  | { readonly key: "meter:open"; readonly t: "meter_open"; readonly openedAt: number }
  | {
      readonly key: "meter";
      readonly t: "attest";
      readonly request: AttestRequest;
      readonly sequence: number;
    }
  | { readonly key: "node:open"; readonly t: "node_open" }
  /** Others may have the GPUs, or the lease wants them again. */
  | { readonly key: string; readonly t: "node_rest" | "node_rouse"; readonly turn: number }
  /** The close is to be signed by an agent that was not needed until now. */
  | { readonly key: "node:dial"; readonly t: "node_dial" }
  | { readonly key: "node:release"; readonly t: "node_release" }
  /** Jobs wait in vain: which other leases of the account would do? */
  | { readonly key: "places"; readonly t: "places" }
  /** These jobs are offered to that lease. */
  | { readonly key: string; readonly t: "move"; readonly to: LeaseId; readonly jobs: readonly Job[] };

export function duties(state: State, now: number): Duty[] {
  const { lease } = state;
  const list: Duty[] = [];
  const relay = (intent: Intent) => list.push({ key: `relay:${intent.kind}`, t: "relay", intent });
  const { funding, closing, errands, terms } = lease;

  if ((lease.status === "funding" || lease.status === "suspended") && funding !== null)
    list.push(fundDuty(lease, funding, "relay:fund"));
  if (now >= watchAt(state)) {
    const duty = funding === null ? null : fundDuty(lease, funding, "watch");
    if (duty?.t === "relay" && duty.intent.kind === "fund")
      list.push({ key: "watch", t: "watch", intent: duty.intent });
  }
  if (lease.status === "active")
    for (const { funding: more, refused } of lease.topUps)
      if (refused === null) list.push(fundDuty(lease, more, `relay:fund:${fundingKey(more)}`));
  // Until then a reorganisation may take the opening back and put it later; the meter counts from the one that counts.
  const isOpened = lease.status !== "funding" && lease.status !== "expired";
  if (isOpened && lease.openedAt !== null && !errands.metered)
    list.push({ key: "meter:open", t: "meter_open", openedAt: Math.floor(lease.openedAt / 1_000) });
  // Also of a lease that was closed at once: its agent has a close to sign, or the money comes back a day too late.
  const isOpen = lease.status === "active" || lease.status === "draining" || lease.status === "closing";
  if (isOpen && !errands.opened) list.push({ key: "node:open", t: "node_open" });
  list.push(...capacityDuties(lease, now));
  const attestation = attestationOf(state);
  if (attestation !== null) list.push(attestation);

  const allowance = lease.allowance === null ? {} : { allowance: lease.allowance };
  if (lease.status === "closing" && closing?.provider && closing.meter)
    relay({
      kind: "close",
      terms,
      cumulative: lease.spent,
      evidence: evidenceOf(lease),
      validBefore: closing.validBefore,
      signatures: { provider: closing.provider, meter: closing.meter },
      ...allowance,
    });
  const settle = voucherOf(lease);
  if (lease.status === "lost" && settle !== null && settle.cumulative > lease.settled) relay(settle);
  if (settle !== null && now >= holdAt(lease)) list.push({ key: "hold", t: "hold", voucher: settle });
  if (lease.status === "lost" && now >= terms.expiry * 1_000 + RECLAIM_MS) relay({ kind: "reclaim", terms });
  for (const account of errands.withdraw)
    list.push({
      key: `relay:withdraw:${account}`,
      t: "relay",
      intent: { kind: "withdraw", account, occasion: lease.id },
    });
  if (movers(state, now).length > 0) list.push({ key: "places", t: "places" });
  for (const [to, jobs] of leavers(state))
    list.push({ key: `move:${to}:${jobs[0]?.id}`, t: "move", to, jobs });
  if (isOver(lease) && !errands.released) list.push({ key: "node:release", t: "node_release" });
  return list;
}

function capacityDuties(lease: Lease, now: number): Duty[] {
  const { status, capacity, awayAt, metAt, closing } = lease;
  const { state, turn, told } = capacity;
  const isWorking = status === "active" || status === "suspended" || status === "draining";
  if (state === "asking" && isWorking) return [{ key: `node:rouse:${turn}`, t: "node_rouse", turn }];
  if (state === "resting" && isWorking && !told) return [{ key: `node:rest:${turn}`, t: "node_rest", turn }];
  // Also where a socket is older than the question: it may be dead and not known to be, and who rests does not dial again.
  const isAsked = closing === null || (metAt ?? 0) >= closeAskedAt(closing);
  const isMet = awayAt === null && isAsked && now < heardUntil(lease);
  if (state !== "held" && status === "closing" && !isMet) return [{ key: "node:dial", t: "node_dial" }];
  return [];
}

/** Leases of one order ask for one and the same intent: the relayer knows it by its meaning and lands it once. */
function fundDuty({ terms: own, plan, funding: opening }: Lease, funding: LeaseFunding, key: string): Duty {
  const isOpening = opening !== null && fundingKey(opening) === fundingKey(funding);
  const together = plan !== null && isOpening ? plan : null;
  const terms = together?.terms ?? [own];
  const { signature, valid_before: validBefore } = funding;
  if (isFromCredit(funding)) {
    const request = { terms, fundedTo: together?.amounts ?? [funding.funded_to], validBefore, signature };
    return { key, t: "allocate", funding: fundingKey(funding), request };
  }
  const { amount, salt, valid_after: validAfter } = funding;
  const amounts = together?.amounts ?? [amount];
  const plain = { from: own.payer, terms, amounts, salt, validAfter, validBefore, signature };
  return { key, t: "relay", intent: { kind: "fund", ...plain } };
}

/** The newest usage that two have signed. */
function voucherOf({ voucher, terms, allowance }: Lease): Voucher | null {
  if (voucher === null || voucher.meter === null) return null;
  return {
    kind: "settle",
    terms,
    cumulative: voucher.cumulative,
    evidence: voucher.evidence,
    signatures: { provider: voucher.provider, meter: voucher.meter },
    ...(allowance === null ? {} : { allowance }),
  };
}

/** The block that the provider signed and the meter has not; or the close, once the provider signed that. */
function attestationOf(state: State): Duty | null {
  const { lease } = state;
  const block = lease.block !== null && lease.block.provider !== null ? lease.block : null;
  const closes = lease.closing?.provider && !lease.closing.meter && lease.status === "closing";
  if (block === null && !closes) return null;
  const usage =
    block === null
      ? { cumulative: lease.spent, evidence: evidenceOf(lease) }
      : { cumulative: block.cumulative, evidence: block.evidence };
  const isFinalUsage = usage.cumulative === lease.spent && usage.evidence === evidenceOf(lease);
  return {
    key: "meter",
    t: "attest",
    sequence: block?.sequence ?? lease.frontier.size,
    request: {
      terms: lease.terms,
      ...(lease.allowance === null ? {} : { allowance: lease.allowance }),
      usage,
      receipts: block === null ? [] : blockReceipts(state).map(({ asked }) => asked.receipt),
      ...(closes && isFinalUsage && lease.closing
        ? { close: { validBefore: lease.closing.validBefore } }
        : {}),
    },
  };
}
