import { Bytes32 } from "@gpux/protocol/ids";
import { Confirmation, IntentRefusalCode, IntentResult, TransactionCost } from "@gpux/protocol/intent";
import { z } from "zod";

/**
 * The life of one intent: `received -> verified -> simulated -> signed -> included`, where `included` hardens to
 * `safe` and `finalized`; side ends `superseded` (somebody else landed it: success) and `rejected`. A voucher that is
 * not worth a transaction yet waits in `held`. What happens between signing and inclusion is told by the flight of its
 * nonce (flight.ts). Pure: what to do next is a function of the state ({@link duty}), so that after a crash the state
 * alone says where to go on.
 */

/** Where on chain an intent's meaning was found (block, its time in seconds), and what came of it. */
export const Fulfilment = z.strictObject({
  blockNumber: z.int(),
  blockHash: Bytes32,
  blockTimestamp: z.int(),
  result: IntentResult,
});
export type Fulfilment = z.infer<typeof Fulfilment>;

export const Life = z.discriminatedUnion("state", [
  z.strictObject({ state: z.literal("held") }),
  z.strictObject({ state: z.literal("received") }),
  z.strictObject({ state: z.literal("verified") }),
  z.strictObject({
    state: z.literal("simulated"),
    /** When it last went well (ms), and when it first did: from then on its window runs. */
    at: z.number(),
    since: z.number(),
    /** Token base units that it moves; null where nobody asked. */
    value: z.string().nullable(),
  }),
  z.strictObject({ state: z.literal("signed"), nonce: z.int() }),
  z.strictObject({
    state: z.literal("included"),
    nonce: z.int(),
    hash: Bytes32,
    fulfilment: Fulfilment,
    cost: TransactionCost,
    confirmation: Confirmation,
  }),
  z.strictObject({
    state: z.literal("superseded"),
    fulfilment: Fulfilment,
    confirmation: Confirmation,
  }),
  z.strictObject({ state: z.literal("rejected"), code: IntentRefusalCode, detail: z.string() }),
]);
export type Life = z.infer<typeof Life>;

export interface IntentState {
  readonly life: Life;
  /** Transactions of its own that landed without doing its work. */
  readonly misses: number;
  /** It may not share a transaction: its check calls a stranger's code (ERC-1271), or it failed in company before. */
  readonly alone: boolean;
  /**
   * It was done once and a reorganisation took it back. What it rests on may come back later than itself, so for a
   * while a refusal is no verdict.
   */
  readonly dislodged: boolean;
  /** Consecutive times that the present duty could not be done because the node or network failed. */
  readonly failures: number;
  /** When the duty is due (ms); null when there is none left here. */
  readonly dueAt: number | null;
}

export type IntentEvent =
  /** Submitted, also again: a rejected or held intent gets its try, any other goes on as it was. */
  | { readonly t: "submitted" }
  /** To be kept until it is worth a transaction, at the latest until `until` (ms). */
  | { readonly t: "held"; readonly until: number }
  | { readonly t: "verified"; readonly alone: boolean }
  | { readonly t: "refused"; readonly code: IntentRefusalCode; readonly detail: string }
  | { readonly t: "simulated"; readonly value: bigint | null }
  /** It went well by itself, and not among the others of a batch. */
  | { readonly t: "unfit" }
  | { readonly t: "signed"; readonly nonce: number }
  | {
      readonly t: "included";
      readonly nonce: number;
      readonly hash: Bytes32;
      readonly fulfilment: Fulfilment;
      readonly cost: TransactionCost;
    }
  /** Its batch landed and did not do this entry's work. */
  | { readonly t: "missed"; readonly nonce: number }
  /** Its own transaction landed and reverted: the chain moved between simulation and inclusion. */
  | { readonly t: "reverted"; readonly nonce: number; readonly hash: Bytes32 }
  /** Something else took the nonce (another's use of the key, or our own cancelling): it can never land by it. */
  | { readonly t: "displaced"; readonly nonce: number }
  /** Chain state says that the meaning holds already. */
  | { readonly t: "fulfilled"; readonly fulfilment: Fulfilment }
  | { readonly t: "hardened"; readonly confirmation: Confirmation }
  /** A reorganisation took its block away. */
  | { readonly t: "dislodged" }
  /**
   * Nothing can be said now: the node did not answer, or not sensibly, or what the intent rests on has yet to land.
   * Never a verdict on the intent.
   */
  | { readonly t: "failed" };

export type IntentStep =
  | { readonly ok: true; readonly next: IntentState }
  | { readonly ok: false; readonly code: "out_of_order" };

export type Duty = "release" | "verify" | "simulate";

/** A simulation says little about the chain much later; then it is made again before anything is signed. */
export const SIMULATION_FRESH_MS = 10_000;
const RETRY_MS = 250;
const BACKOFF_MAX_MS = 30_000;
/** Each miss cost gas; the caller shall look at it. */
const MISSES_MAX = 3;
/** After a reorganisation: three blocks for what was taken back to land again, and about two minutes of patience. */
const SETTLE_DOWN_MS = 6_000;
const DISLODGED_TRIES = 10;

/** Grows by doubling from a quarter second to half a minute. */
export function backoff(failures: number): number {
  return Math.min(BACKOFF_MAX_MS, RETRY_MS * 2 ** Math.min(failures, 10));
}

/**
 * What is to be done for an intent by itself; null when it waits for a batch (`simulated`), for its flight (`signed`),
 * or has ended.
 */
export function duty(state: IntentState): Duty | null {
  switch (state.life.state) {
    case "held":
      return "release";
    case "received":
      return "verify";
    case "verified":
      return "simulate";
    case "simulated":
    case "signed":
    case "included":
    case "superseded":
    case "rejected":
      return null;
  }
}

const outOfOrder = { ok: false, code: "out_of_order" } as const;

/** `out_of_order`: the event does not belong to the state (a late answer to an older duty); drop it. */
export function step(state: IntentState | null, event: IntentEvent, now: number): IntentStep {
  const fresh: IntentState = {
    life: { state: "received" },
    misses: 0,
    alone: false,
    dislodged: false,
    failures: 0,
    dueAt: now,
  };
  if (event.t === "submitted") {
    const anew = state === null || state.life.state === "rejected" || state.life.state === "held";
    return { ok: true, next: anew ? fresh : state };
  }
  if (event.t === "held") {
    if (state !== null && state.life.state !== "rejected") return { ok: true, next: state };
    return { ok: true, next: { ...fresh, life: { state: "held" }, dueAt: event.until } };
  }
  if (state === null) return outOfOrder;
  const { life } = state;
  const to = (next: Life, dueAt: number | null, change: Partial<IntentState> = {}): IntentStep => ({
    ok: true,
    next: { ...state, failures: 0, ...change, life: next, dueAt },
  });
  const underJudgement = life.state === "received" || life.state === "verified" || life.state === "simulated";

  switch (event.t) {
    case "failed": {
      const failures = state.failures + 1;
      const dueAt = now + backoff(failures);
      // Judged anew because its simulation was old.
      if (life.state === "simulated") return to({ state: "verified" }, dueAt, { failures });
      if (state.dueAt === null) return outOfOrder;
      return { ok: true, next: { ...state, failures, dueAt } };
    }
    case "refused":
      // A transaction that was signed may still land, whatever a later look at the chain says.
      if (!underJudgement && life.state !== "held") return outOfOrder;
      if (state.dislodged && state.failures < DISLODGED_TRIES) {
        const failures = state.failures + 1;
        return to({ state: "verified" }, now + backoff(failures), { failures });
      }
      return to({ state: "rejected", code: event.code, detail: event.detail }, null);
    case "fulfilled":
      // Its own transaction keeps its nonce and has to be followed to its end, or the next ones would wait for ever.
      if (!underJudgement) return outOfOrder;
      return to({ state: "superseded", fulfilment: event.fulfilment, confirmation: "included" }, null);
    case "verified":
      if (life.state !== "received") return outOfOrder;
      return to({ state: "verified" }, now, { alone: event.alone });
    case "simulated": {
      if (life.state !== "verified" && life.state !== "simulated") return outOfOrder;
      const since = life.state === "simulated" ? life.since : now;
      return to({ state: "simulated", at: now, since, value: event.value?.toString() ?? null }, null);
    }
    case "unfit":
      if (life.state !== "simulated") return outOfOrder;
      return to({ state: "verified" }, now, { alone: true });
    case "signed":
      if (life.state !== "simulated") return outOfOrder;
      return to({ state: "signed", nonce: event.nonce }, null);
    case "included":
      if (life.state !== "signed" || life.nonce !== event.nonce) return outOfOrder;
      return to(
        {
          state: "included",
          nonce: event.nonce,
          hash: event.hash,
          fulfilment: event.fulfilment,
          cost: event.cost,
          confirmation: "included",
        },
        null,
      );
    case "missed":
      if (life.state !== "signed" || life.nonce !== event.nonce) return outOfOrder;
      // Not counted: a neighbour may have burnt the gas. By itself it can only fail through its own fault.
      return to({ state: "verified" }, now, { alone: true });
    case "displaced":
      if (life.state !== "signed" || life.nonce !== event.nonce) return outOfOrder;
      return to({ state: "verified" }, now);
    case "reverted": {
      if (life.state !== "signed" || life.nonce !== event.nonce) return outOfOrder;
      const misses = state.dislodged ? state.misses : state.misses + 1;
      if (misses >= MISSES_MAX) {
        const detail = `${misses} transactions reverted; the last was ${event.hash}`;
        return to({ state: "rejected", code: "reverted", detail }, null, { misses });
      }
      // Back to the simulation: it finds out whether somebody else did the work, or why it cannot be done.
      return to({ state: "verified" }, now, { misses, alone: true });
    }
    case "hardened":
      if (life.state !== "included" && life.state !== "superseded") return outOfOrder;
      return to({ ...life, confirmation: event.confirmation }, null);
    case "dislodged":
      // Final is final: a node that says otherwise lies.
      if (life.state === "included" && life.confirmation !== "finalized")
        return to({ state: "signed", nonce: life.nonce }, null, { dislodged: true });
      if (life.state === "superseded" && life.confirmation !== "finalized")
        return to({ state: "verified" }, now + SETTLE_DOWN_MS, { dislodged: true });
      return outOfOrder;
  }
}
