import {
  fundingAmount,
  fundingKey,
  fundingTimeFault,
  isFromCredit,
  type LeaseFunding,
} from "@gpux/protocol/funding";
import type { IntentDone, IntentRefusalCode, IntentResult } from "@gpux/protocol/intent";
import type { FundingPlan } from "@gpux/protocol/order";
import type { Draft } from "./draft.ts";
import { end } from "./ending.ts";
import { isTerminal } from "./job-state.ts";
import { type Refusal, refuse } from "./jobs.ts";
import { finish } from "./outcome.ts";
import { refilled } from "./service.ts";
import { pledged, type State } from "./state.ts";

/**
 * LSE-14: while a lease is used and its funding can still be taken back, the relayer is asked so often whether it stands;
 * for so long it may then take to land again. What was begun may end meanwhile: its execution time-out bounds it.
 */
export const WATCH_MS = 30_000;
export const SUSPENDED_MS = 30 * 60_000;

/** Top-ups that are under way at once, and refused ones that are still shown. */
const MAX_TOP_UPS = 8;

/** What the chain would refuse, or hold the node's GPUs for too long. */
export function fundingFault(funding: LeaseFunding, nowMs: number): Refusal | null {
  if (fundingAmount(funding) === 0n) return refuse("funding_invalid", "the amount is zero");
  const fault = fundingTimeFault(funding.valid_before, nowMs);
  return fault === null ? null : refuse("funding_invalid", fault);
}

/** As {@link fundingFault}, of more for an open lease. What is signed to be spent when it is needed may stand for long. */
export function topUpFault(funding: LeaseFunding, nowMs: number): Refusal | null {
  if (!isFromCredit(funding)) return fundingFault(funding, nowMs);
  if (funding.funded_to === 0n) return refuse("funding_invalid", "the amount is zero");
  return funding.valid_before < nowMs / 1_000 + 60
    ? refuse("funding_invalid", "valid_before must be 60 s ahead at least")
    : null;
}

/** ORD-3: while the other leases of its order are asked too, a quote stands until `until` at least. */
export function reserve(draft: Draft, until: number): Refusal | null {
  const { lease, now } = draft;
  if (lease.status === "funding") return null;
  if (lease.status !== "quoted") return refuse("lease_closed");
  if (now >= lease.quoteUntil) return refuse("quote_expired");
  draft.lease = { ...lease, quoteUntil: Math.max(lease.quoteUntil, until), reservedUntil: until };
  return null;
}

/**
 * LSE-2: the payer's authorization arrives while the quote holds. The same one again changes nothing. With a `plan` it
 * is decided already that all of the order are funded (ORD-4): one that lapsed before it heard of it is taken up again.
 */
export function fund(draft: Draft, funding: LeaseFunding, plan: FundingPlan | null = null): Refusal | null {
  const { lease, now } = draft;
  if (lease.funding !== null)
    return fundingKey(lease.funding) === fundingKey(funding)
      ? null
      : refuse("lease_closed", "it is funded by another authorization");
  const lapsed = plan !== null && lease.end?.reason === "quote_lapsed";
  if (lease.status !== "quoted" && !lapsed) return refuse("lease_closed");
  if (now >= lease.quoteUntil && plan === null) return refuse("quote_expired");
  draft.lease = {
    ...lease,
    status: "funding",
    funding,
    plan,
    end: null,
    overAt: null,
    errands: { ...lease.errands, released: false },
  };
  return null;
}

/**
 * LSE-8: more money from the payer. The same authorization again changes nothing, or tries a refused one again. From
 * credit it is a target, and one that is reached is no more to do (CRD-3).
 */
export function topUp(draft: Draft, funding: LeaseFunding): Refusal | null {
  const { lease } = draft;
  if (lease.status === "quoted") return refuse("payment_required", "the lease is not funded yet");
  if (lease.status !== "funding" && lease.status !== "active" && lease.status !== "suspended")
    return refuse("lease_closed");
  if (isFromCredit(funding) && funding.funded_to <= pledged(lease)) return null;
  const key = fundingKey(funding);
  if (lease.funding !== null && fundingKey(lease.funding) === key)
    return refuse("funding_invalid", "it opened the lease");
  const others = lease.topUps.filter((each) => fundingKey(each.funding) !== key);
  const known = lease.topUps.find((each) => fundingKey(each.funding) === key);
  if (known !== undefined && known.refused === null) return null;
  const pending = others.filter((each) => each.refused === null);
  if (pending.length >= MAX_TOP_UPS) return refuse("funding_invalid", "eight top-ups are under way");
  // What was refused before makes room for what is new.
  const kept = others.length < MAX_TOP_UPS ? others : pending;
  draft.lease = { ...lease, topUps: [...kept, { funding, refused: null }] };
  return null;
}

/** LSE-3, LSE-8: the chain has the money of the authorization with this key; `enough`: as hard as its amount asks. */
export function funded(
  draft: Draft,
  key: string,
  result: Extract<IntentResult, { kind: "fund" | "allocate" }>,
  { enough, confirmation }: Pick<IntentDone, "enough" | "confirmation">,
): void {
  const { lease } = draft;
  const mine = result.leases.find((each) => each.leaseId === lease.hash);
  if (mine === undefined) return;
  const all = BigInt(mine.funded);
  if (lease.topUps.some((each) => fundingKey(each.funding) === key)) {
    if (!enough) return;
    const topUps = lease.topUps.filter((each) => fundingKey(each.funding) !== key);
    // Answers may come in another order than the money came.
    draft.lease = { ...lease, topUps, funded: all > lease.funded ? all : lease.funded };
    refilled(draft);
    return;
  }
  if (lease.funding === null || fundingKey(lease.funding) !== key) return;
  const isHard = confirmation === "safe" || confirmation === "finalized";
  const watch = { at: draft.now, isHard };
  const opened = { watch, openedAt: mine.openedAt * 1_000 };
  if (lease.status === "active") draft.lease = { ...lease, ...opened };
  if (lease.status !== "funding" && lease.status !== "suspended") return;
  const landed = { ...lease, ...opened, funded: all > lease.funded ? all : lease.funded };
  // No work is begun for money that a reorganisation could still take back; how hard it must be hangs on how much.
  draft.lease = enough
    ? {
        ...landed,
        status: "active",
        suspendedAt: null,
        // Its absence counts from here; an agent that dialled before the funding landed is no absent one.
        awayAt: lease.awayAt === null ? null : draft.now,
      }
    : landed;
}

/** LSE-14: the relayer says that the funding is not on chain (any more): nothing is begun until it is again. */
export function unfunded(draft: Draft): void {
  const { lease, now } = draft;
  if (lease.status === "active") draft.lease = { ...lease, status: "suspended", suspendedAt: now };
}

/**
 * From when on the relayer must be asked whether the funding stands; infinity while nobody uses it, or it is hard. What
 * came from credit was in the escrow before, and an allocation that has expired could not be asked for any more.
 */
export function watchAt({ lease, jobs }: State): number {
  const { status, watch, service, funding } = lease;
  if (status !== "active" || watch.isHard || funding === null || isFromCredit(funding))
    return Number.POSITIVE_INFINITY;
  const isUsed = service.since !== null || [...jobs.values()].some((job) => !isTerminal(job));
  return isUsed ? watch.at + WATCH_MS : Number.POSITIVE_INFINITY;
}

/** LSE-4, LSE-8: it cannot land. That our own gas money is short is no such reason. */
export function fundingRefused(draft: Draft, key: string, code: IntentRefusalCode, detail: string): void {
  const { lease } = draft;
  if (code === "relayer_low_balance") return;
  const reason = reasonOf(code);
  if (lease.topUps.some((each) => fundingKey(each.funding) === key)) {
    const refused = { reason, detail };
    const topUps = lease.topUps.map((each) =>
      fundingKey(each.funding) === key ? { ...each, refused } : each,
    );
    draft.lease = { ...lease, topUps };
    return;
  }
  // Time ends it then (timers.ts): what was used may still be paid, should it be there again after all.
  if (lease.status === "suspended" && lease.funding !== null && fundingKey(lease.funding) === key)
    draft.lease = { ...lease, suspendedAt: 0, end: { reason: "funding_failed", fault: "chain", detail } };
  if (!isOpening(lease, key)) return;
  for (const job of draft.jobs.values())
    if (!isTerminal(job))
      finish(draft, job, {
        status: "aborted",
        failure: { code: "funding_failed", detail },
        charged: false,
      });
  draft.lease = { ...draft.lease, end: { reason, fault: "tenant", detail } };
  end(draft, "expired");
}

/** Whether it waits for this funding to be opened by. */
function isOpening({ status, funding }: Draft["lease"], key: string): boolean {
  return status === "funding" && funding !== null && fundingKey(funding) === key;
}

function reasonOf(code: IntentRefusalCode): "insufficient_funds" | "insufficient_credit" | "funding_failed" {
  if (code === "insufficient_balance") return "insufficient_funds";
  return code === "insufficient_credit" ? code : "funding_failed";
}
