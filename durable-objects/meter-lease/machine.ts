import type { AllocationRefusal, AttestRefusalCode } from "@gpux/protocol/attestation";
import type { LeaseTerms, Receipt } from "@gpux/protocol/eip712";
import { append, emptyFrontier, type Frontier, root } from "@gpux/protocol/merkle";
import { accrued, MAX_AMOUNT } from "@gpux/protocol/money";
import { mostUpfront } from "@gpux/protocol/tariff";

/**
 * What the meter signs for one lease. It trusts nobody's word about the past: it keeps the highest cumulative, the
 * evidence tree's frontier and the clock itself, and signs nothing that goes back or beyond the terms. The shell
 * stores `next` before it signs.
 */

type Hex = `0x${string}`;

export interface MeterState {
  /** When this meter first heard of the lease (ms). */
  readonly firstSeen: number;
  /** Timestamp of the opening block (s), as the relayer read it; null until told. */
  readonly openedAt: number | null;
  readonly cumulative: bigint;
  readonly evidence: Hex;
  /** Its size is the sequence of the last attested receipt. */
  readonly frontier: Frontier;
  /** The cumulative at which a `Close` was signed: nothing above it is signed any more. */
  readonly closedAt: bigint | null;
}

export interface NumberedDigest {
  readonly sequence: number;
  readonly digest: Hex;
}

export type MeterEvent =
  | { readonly t: "open"; readonly openedAt: number }
  | {
      readonly t: "attest";
      readonly leaseId: Hex;
      readonly terms: LeaseTerms;
      /** The highest cumulative that the consumer's signature was found under; null without one. */
      readonly allowance: bigint | null;
      readonly usage: { readonly cumulative: bigint; readonly evidence: Hex };
      readonly receipts: readonly { readonly receipt: Receipt; readonly digest: Hex }[];
      /** Digests stored for those of `receipts` that were attested before. */
      readonly attested: ReadonlyMap<number, Hex>;
      readonly close: boolean;
    };

export type MeterStep =
  | { readonly ok: true; readonly next: MeterState; readonly added: readonly NumberedDigest[] }
  | { readonly ok: false; readonly code: AttestRefusalCode; readonly detail: string };

/** The funding's inclusion is heard of some seconds late; a claimed opening further back is not believed. */
export const LATE_OPENING_MS = 120_000;

function born(now: number): MeterState {
  const frontier = emptyFrontier();
  return {
    firstSeen: now,
    openedAt: null,
    cumulative: 0n,
    evidence: root(frontier),
    frontier,
    closedAt: null,
  };
}

/** The most that time and terms let a lease have used by `now`; the contract computes the same from its own clock. */
export function ceiling(state: MeterState, terms: LeaseTerms, now: number): bigint {
  if (terms.upfront === MAX_AMOUNT) return MAX_AMOUNT;
  const claimed = state.openedAt === null ? state.firstSeen : state.openedAt * 1000;
  const start = Math.max(claimed, state.firstSeen - LATE_OPENING_MS);
  const elapsed = Math.max(0, Math.min(now, terms.expiry * 1000) - start);
  return terms.upfront + accrued(terms.ratePerHour, elapsed);
}

function refuse(code: AttestRefusalCode, detail: string): MeterStep {
  return { ok: false, code, detail };
}

/** `now` in ms. A repeated event changes nothing and is answered alike. */
export function step(before: MeterState | null, event: MeterEvent, now: number): MeterStep {
  const state = before ?? born(now);
  if (event.t === "open") {
    return { ok: true, next: { ...state, openedAt: state.openedAt ?? event.openedAt }, added: [] };
  }
  const { terms, usage } = event;

  let { frontier } = state;
  let cumulative = state.cumulative;
  const added: NumberedDigest[] = [];
  for (const { receipt, digest } of event.receipts) {
    const at = `receipt ${receipt.sequence}`;
    if (receipt.sequence <= state.frontier.size) {
      if (event.attested.get(receipt.sequence) !== digest) {
        return refuse("receipt_mismatch", `${at} is not the one attested before`);
      }
      continue;
    }
    if (receipt.sequence !== frontier.size + 1) {
      return refuse("receipts_gap", `${at} came where ${frontier.size + 1} was due`);
    }
    if (receipt.leaseId !== event.leaseId) return refuse("receipt_mismatch", `${at} is of another lease`);
    if (receipt.node !== terms.providerSigner) return refuse("receipt_mismatch", `${at} is of another node`);
    cumulative += receipt.price;
    if (receipt.cumulative !== cumulative) {
      return refuse(
        "receipt_mismatch",
        `${at} says ${receipt.cumulative}, its prices add up to ${cumulative}`,
      );
    }
    frontier = append(frontier, digest);
    added.push({ sequence: receipt.sequence, digest });
  }

  if (usage.cumulative < state.cumulative) {
    return refuse("usage_decreased", `${state.cumulative} was signed before`);
  }
  if (usage.cumulative !== cumulative) {
    return refuse("receipt_mismatch", `the receipts' prices add up to ${cumulative}`);
  }
  const evidence = root(frontier);
  if (usage.evidence !== evidence) return refuse("evidence_mismatch", `the receipts' root is ${evidence}`);

  // What was signed once may be signed again whatever the clock says now; only a rise is held to the limits.
  if (cumulative > state.cumulative) {
    if (state.closedAt !== null) return refuse("lease_closed", `closed at ${state.closedAt}`);
    const limit = ceiling(state, terms, now);
    if (cumulative > limit) return refuse("above_terms", `terms and time allow ${limit} by now`);
    const unsigned = event.allowance ?? 0n;
    const allowed = unsigned > terms.unattended ? unsigned : terms.unattended;
    if (cumulative > allowed) return refuse("above_allowance", `the consumer allows ${allowed}`);
  }
  const closedAt = event.close ? cumulative : state.closedAt;
  return { ok: true, next: { ...state, cumulative, evidence, frontier, closedAt }, added };
}

/** A quote's terms run for a day at most; what comes from another clock, or took its time, a little longer. */
const LONGEST_TERM_S = 86_400 + 600;

/**
 * CRD-2: terms that a quote of this market has, and no others are paid from anybody's credit: no more than a minute is
 * due at once, and the consumer signs either all of the spending or, where the clock alone bills, none of it. Otherwise
 * who has stolen a consumer's key could pay itself whatever the credit holds. `now` in ms; null: they pass.
 */
export function termsFault(terms: LeaseTerms, now: number): string | null {
  if (terms.upfront > mostUpfront(terms.ratePerHour))
    return `${terms.upfront} would be due at once, more than a start and a minute may cost`;
  if (terms.unattended !== 0n && terms.unattended !== MAX_AMOUNT)
    return "unattended is neither nothing nor everything";
  if (terms.expiry > now / 1_000 + LONGEST_TERM_S) return "they run for longer than a day";
  return null;
}

/**
 * CRD-2: the target that the meter stands by for a lease after this one. What it has promised it promises again; nothing
 * more once it has signed the lease's close, for that would only be frozen there.
 */
export function promise(
  state: MeterState | null,
  promised: bigint,
  target: bigint,
): { readonly ok: true; readonly promised: bigint } | AllocationRefusal {
  if (target === 0n) return { ok: false, code: "intent_invalid", detail: "a target is zero" };
  if (target <= promised) return { ok: true, promised };
  const closedAt = state?.closedAt ?? null;
  if (closedAt !== null) return { ok: false, code: "lease_closed", detail: `closed at ${closedAt}` };
  return { ok: true, promised: target };
}
