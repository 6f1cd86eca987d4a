import { Bytes32, HexBytes } from "@gpux/protocol/ids";
import { IntentRefusalCode, IntentResult, TransactionCost } from "@gpux/protocol/intent";
import { z } from "zod";

/**
 * The life of one intent: `received -> verified -> simulated -> signed -> broadcast -> included`, side ends
 * `superseded` (somebody else landed it: success) and `rejected`. Pure: what to do next is a function of the state
 * ({@link duty}), so that after a crash the state alone says where to go on.
 */

/** Signed and stored before it is ever sent: whatever happens later, this and no other transaction is sent again. */
export const SignedTransaction = z.strictObject({
  hash: Bytes32,
  raw: HexBytes,
  nonce: z.int(),
  calldataBytes: z.int(),
  /** The most it can take from the key's balance, in wei. */
  maxCost: z.string(),
});
export type SignedTransaction = z.infer<typeof SignedTransaction>;

/** Where on chain an intent's meaning was found (block, its time in seconds), and what came of it. */
export const Fulfilment = z.strictObject({
  blockNumber: z.int(),
  blockTimestamp: z.int(),
  result: IntentResult,
});
export type Fulfilment = z.infer<typeof Fulfilment>;

export const Life = z.discriminatedUnion("state", [
  z.strictObject({ state: z.literal("received") }),
  z.strictObject({ state: z.literal("verified") }),
  z.strictObject({ state: z.literal("simulated"), at: z.number() }),
  z.strictObject({ state: z.literal("signed"), transaction: SignedTransaction }),
  z.strictObject({ state: z.literal("broadcast"), transaction: SignedTransaction, sentAt: z.number() }),
  z.strictObject({
    state: z.literal("included"),
    hash: Bytes32,
    fulfilment: Fulfilment,
    cost: TransactionCost,
  }),
  z.strictObject({ state: z.literal("superseded"), fulfilment: Fulfilment }),
  z.strictObject({ state: z.literal("rejected"), code: IntentRefusalCode, detail: z.string() }),
]);
export type Life = z.infer<typeof Life>;

export interface IntentState {
  readonly life: Life;
  /** Transactions of this intent that landed without doing their work. */
  readonly misses: number;
  /** Consecutive times that the present duty could not be done because the node or network failed. */
  readonly failures: number;
  /** When the duty is due (ms); null when there is none left. */
  readonly dueAt: number | null;
}

export type IntentEvent =
  /** Submitted, also again: a rejected intent gets another try, any other goes on as it was. */
  | { readonly t: "submitted" }
  | { readonly t: "verified" }
  | { readonly t: "refused"; readonly code: IntentRefusalCode; readonly detail: string }
  | { readonly t: "simulated" }
  | { readonly t: "signed"; readonly transaction: SignedTransaction }
  /** The node has it, or says that it had it before. */
  | { readonly t: "sent" }
  /** Not on chain yet. */
  | { readonly t: "unseen" }
  | { readonly t: "included"; readonly fulfilment: Fulfilment; readonly cost: TransactionCost }
  /** It landed and reverted: the chain moved between simulation and inclusion. */
  | { readonly t: "reverted" }
  /** Another transaction took its nonce; it can never land. */
  | { readonly t: "displaced" }
  /** Chain state says that the meaning holds already. */
  | { readonly t: "fulfilled"; readonly fulfilment: Fulfilment }
  /** The node did not answer, or not sensibly. Never a verdict on the intent. */
  | { readonly t: "failed" };

export type IntentStep =
  | { readonly ok: true; readonly next: IntentState }
  | { readonly ok: false; readonly code: "out_of_order" };

export type Duty = "verify" | "simulate" | "sign" | "send" | "watch";

/** A simulation says little about the chain much later; then it is made again before anything is signed. */
export const SIMULATION_FRESH_MS = 10_000;
/** Unseen for this long after sending, the same raw transaction is sent again: nodes drop transactions. */
export const RESEND_MS = 6_000;
/** An OP block takes two seconds, a local one none. */
const WATCH_MS = 250;
const BACKOFF_MAX_MS = 30_000;
/** Each miss cost gas; the caller shall look at it. */
const MISSES_MAX = 3;

/** What is to be done for an intent now; null when it has ended. */
export function duty(state: IntentState, now: number): Duty | null {
  const life = state.life;
  switch (life.state) {
    case "received":
      return "verify";
    case "verified":
      return "simulate";
    case "simulated":
      return now - life.at > SIMULATION_FRESH_MS ? "simulate" : "sign";
    case "signed":
      return "send";
    case "broadcast":
      return now - life.sentAt > RESEND_MS ? "send" : "watch";
    case "included":
    case "superseded":
    case "rejected":
      return null;
  }
}

function at(life: Life, dueAt: number | null, misses: number): IntentStep {
  return { ok: true, next: { life, misses, failures: 0, dueAt } };
}

/** `out_of_order`: the event does not belong to the state (a late answer to an older duty); drop it. */
export function step(state: IntentState | null, event: IntentEvent, now: number): IntentStep {
  if (event.t === "submitted") {
    if (state !== null && state.life.state !== "rejected") return { ok: true, next: state };
    return at({ state: "received" }, now, 0);
  }
  if (state === null) return { ok: false, code: "out_of_order" };
  const { life, misses } = state;
  const ended = life.state === "included" || life.state === "superseded" || life.state === "rejected";
  if (ended) return { ok: false, code: "out_of_order" };
  const onItsWay = life.state === "signed" || life.state === "broadcast";

  switch (event.t) {
    case "failed": {
      const failures = state.failures + 1;
      const pause = Math.min(BACKOFF_MAX_MS, WATCH_MS * 2 ** Math.min(failures, 10));
      return { ok: true, next: { ...state, failures, dueAt: now + pause } };
    }
    case "refused":
      // A transaction that was signed may still land, whatever a later look at the chain says.
      if (onItsWay) return { ok: false, code: "out_of_order" };
      return at({ state: "rejected", code: event.code, detail: event.detail }, null, misses);
    case "fulfilled":
      // Its own transaction keeps its nonce and has to be followed to its end, or the next ones would wait for ever.
      if (onItsWay) return { ok: false, code: "out_of_order" };
      return at({ state: "superseded", fulfilment: event.fulfilment }, null, misses);
    case "verified":
      if (life.state !== "received") return { ok: false, code: "out_of_order" };
      return at({ state: "verified" }, now, misses);
    case "simulated":
      if (life.state !== "verified" && life.state !== "simulated") return { ok: false, code: "out_of_order" };
      return at({ state: "simulated", at: now }, now, misses);
    case "signed":
      if (life.state !== "simulated") return { ok: false, code: "out_of_order" };
      return at({ state: "signed", transaction: event.transaction }, now, misses);
    case "sent":
      if (!onItsWay) return { ok: false, code: "out_of_order" };
      return at({ state: "broadcast", transaction: life.transaction, sentAt: now }, now, misses);
    case "unseen": {
      if (life.state !== "broadcast") return { ok: false, code: "out_of_order" };
      const waited = Math.max(0, now - life.sentAt);
      return at(life, now + Math.max(WATCH_MS, Math.min(2_000, Math.floor(waited / 4))), misses);
    }
    case "included":
      if (!onItsWay) return { ok: false, code: "out_of_order" };
      return at(
        {
          state: "included",
          hash: life.transaction.hash,
          fulfilment: event.fulfilment,
          cost: event.cost,
        },
        null,
        misses,
      );
    case "reverted":
    case "displaced":
      if (!onItsWay) return { ok: false, code: "out_of_order" };
      if (misses + 1 >= MISSES_MAX) {
        const detail = `${misses + 1} transactions were ${event.t}; the last was ${life.transaction.hash}`;
        return at({ state: "rejected", code: "reverted", detail }, null, misses + 1);
      }
      // Back to the simulation: it finds out whether somebody else did the work, or why it cannot be done.
      return at({ state: "verified" }, now, misses + 1);
  }
}
