import { Bytes32, HexBytes } from "@gpux/protocol/ids";
import { z } from "zod";
import { backoff } from "./machine.ts";

/**
 * One nonce on its way onto the chain. Every transaction ever signed for it is kept: any of them may be the one that
 * lands, also long after it was replaced. Pure.
 */

/** Signed and stored before it is ever sent. `cancel`: a 0-value transfer to ourselves that only uses up the nonce. */
export const Attempt = z.strictObject({
  hash: Bytes32,
  raw: HexBytes,
  purpose: z.enum(["call", "cancel"]),
  /** Wei per gas. */
  maxFeePerGas: z.string(),
  maxPriorityFeePerGas: z.string(),
  /** The most it can take from the key's balance, in wei, the L1 fee included. */
  maxCost: z.string(),
  calldataBytes: z.int(),
});
export type Attempt = z.infer<typeof Attempt>;

export interface FlightState {
  readonly nonce: number;
  /** Oldest first; the last one is what is sent. */
  readonly attempts: readonly [Attempt, ...Attempt[]];
  /** When a node last took the newest attempt, and the height of the chain then; null: none did yet. */
  readonly sent: { readonly at: number; readonly block: number } | null;
  /** The node wants a higher fee than the newest attempt pays. */
  readonly underpriced: boolean;
  /** Since when the chain has counted past this nonce with none of ours to be found there (ms). */
  readonly goneSince: number | null;
  readonly failures: number;
  /** `landed` may fly again after a reorganisation, and `displaced` too. */
  readonly outcome: "open" | "landed" | "displaced";
  readonly dueAt: number | null;
}

export const newest = (state: FlightState): Attempt => state.attempts.at(-1) ?? state.attempts[0];

export type FlightEvent =
  /** A node has the newest attempt, or says that it had it before. */
  | { readonly t: "accepted"; readonly block: number }
  | { readonly t: "underpriced" }
  /** The node queues nothing, and lacks a nonce below: this one is not lost, its turn has not come. */
  | { readonly t: "early" }
  /** A node that lacks it refused a later nonce for that. */
  | { readonly t: "forgotten" }
  /** Not on chain, and its nonce is free. */
  | { readonly t: "unseen" }
  /** Not on chain, but its nonce is used there. */
  | { readonly t: "gone" }
  | { readonly t: "landed" }
  | { readonly t: "replaced"; readonly attempt: Attempt }
  /** A reorganisation took its block away. */
  | { readonly t: "dislodged" }
  | { readonly t: "failed" };

export type FlightDuty = "send" | "watch";

export interface StallPolicy {
  /** An attempt that is not included after so long (ms) and so many blocks is outbid. */
  readonly replaceAfterMs: number;
  readonly replaceAfterBlocks: number;
}

/** An OP block takes two seconds, a local one none. */
const WATCH_MS = 250;
/** Whoever lands below wakes it before. */
const EARLY_MS = 2_000;
/** So long a node may take to count what it took. */
const FORGOTTEN_MS = 1_000;
/** A node behind its peers knows a count before it knows the receipt. */
export const GONE_MS = 4_000;

/** What is due for it; a `watch` that finds nothing decides by {@link stalled} whether to outbid or to send again. */
export function flightDuty(state: FlightState): FlightDuty | null {
  if (state.outcome !== "open") return null;
  return state.sent === null ? "send" : "watch";
}

/**
 * `outbid`: blocks went by without it. `resend`: time did, but no blocks, or a lower nonce has yet to land (`count` is
 * the next that can); then nobody's fee is too low.
 */
export function stalled(
  state: FlightState,
  chain: { readonly head: number; readonly count: number },
  now: number,
  policy: StallPolicy,
): "outbid" | "resend" | null {
  if (state.outcome !== "open" || state.sent === null) return null;
  if (state.underpriced) return "outbid";
  if (now - state.sent.at < policy.replaceAfterMs) return null;
  const passedOver = chain.head - state.sent.block >= policy.replaceAfterBlocks;
  return passedOver && chain.count >= state.nonce ? "outbid" : "resend";
}

/** Null: the event does not belong to the state. */
export function flightStep(state: FlightState, event: FlightEvent, now: number): FlightState | null {
  const open = state.outcome === "open";
  switch (event.t) {
    case "accepted":
      if (!open) return null;
      return { ...state, sent: { at: now, block: event.block }, goneSince: null, failures: 0, dueAt: now };
    case "early":
      if (!open) return null;
      return { ...state, sent: null, goneSince: null, failures: 0, dueAt: now + EARLY_MS };
    case "forgotten":
      if (!open || state.sent === null || now - state.sent.at < FORGOTTEN_MS) return null;
      return { ...state, sent: null, dueAt: now };
    case "underpriced":
      if (!open) return null;
      return {
        ...state,
        sent: state.sent ?? { at: now, block: 0 },
        underpriced: true,
        dueAt: now + WATCH_MS,
      };
    case "unseen": {
      if (!open || state.sent === null) return null;
      const waited = Math.max(0, now - state.sent.at);
      const pause = Math.max(WATCH_MS, Math.min(2_000, Math.floor(waited / 4)));
      return { ...state, goneSince: null, failures: 0, dueAt: now + pause };
    }
    case "gone": {
      if (!open) return null;
      const goneSince = state.goneSince ?? now;
      if (now - goneSince < GONE_MS) return { ...state, goneSince, failures: 0, dueAt: now + WATCH_MS };
      return { ...state, goneSince, failures: 0, outcome: "displaced", dueAt: null };
    }
    case "landed":
      return { ...state, goneSince: null, failures: 0, outcome: "landed", dueAt: null };
    case "replaced":
      if (!open) return null;
      return {
        ...state,
        attempts: [...state.attempts, event.attempt],
        sent: null,
        underpriced: false,
        goneSince: null,
        failures: 0,
        dueAt: now,
      };
    case "dislodged":
      if (state.outcome === "open") return null;
      return { ...state, outcome: "open", sent: null, goneSince: null, dueAt: now };
    case "failed": {
      if (!open) return null;
      const failures = state.failures + 1;
      return { ...state, failures, dueAt: now + backoff(failures) };
    }
  }
}

export interface Fees {
  readonly maxFeePerGas: bigint;
  readonly maxPriorityFeePerGas: bigint;
}

/** Clients take a replacement at +10 %, so an eighth more, rounded up. */
const raised = (fee: bigint) => fee + fee / 8n + 1n;

/**
 * What outbids `last`, at least at `market`. `cancel`: the next step would pass the cap, so the nonce is given up by the
 * cheapest transaction there is. Null: the cancelling itself has reached four times the cap; only patience is left.
 */
export function outbid(
  last: Attempt,
  market: Fees,
  cap: bigint,
): { readonly purpose: Attempt["purpose"]; readonly fees: Fees } | null {
  const larger = (a: bigint, b: bigint) => (a > b ? a : b);
  const fees = {
    maxFeePerGas: raised(BigInt(last.maxFeePerGas)),
    maxPriorityFeePerGas: raised(BigInt(last.maxPriorityFeePerGas)),
  };
  const atMarket = {
    maxFeePerGas: larger(fees.maxFeePerGas, market.maxFeePerGas),
    maxPriorityFeePerGas: larger(fees.maxPriorityFeePerGas, market.maxPriorityFeePerGas),
  };
  if (last.purpose === "call" && fees.maxFeePerGas <= cap)
    return { purpose: "call", fees: atMarket.maxFeePerGas <= cap ? atMarket : fees };
  if (last.purpose === "cancel" && fees.maxFeePerGas > 4n * cap) return null;
  return { purpose: "cancel", fees };
}
