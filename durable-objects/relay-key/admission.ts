import type { Intent, IntentAnswer, IntentKey } from "@gpux/protocol/intent";
import { answerOf } from "./answer.ts";
import { calldataOf } from "./calldata.ts";
import { type Desk, warn } from "./desk.ts";
import { NodeFault } from "./json-rpc.ts";
import { simulate, verify } from "./judge.ts";
import type { IntentEvent } from "./machine.ts";
import { accountOf, admit } from "./rate.ts";
import type { Refusal } from "./refusal.ts";

/** RLY-11: what stands between strangers and a key's gas, storage and nodes. */

/** How many strangers' intents this life of the object has looked at in the running minute. */
export interface Looks {
  minute: number;
  count: number;
}
export const newLooks = (): Looks => ({ minute: 0, count: 0 });

/**
 * What the chain says before anything is stored; null: it may go on, or no node could be asked, which is no verdict.
 * Without it, anybody could use up another's rate by intents that nobody signed, and fill the storage with them.
 */
export async function judgeStranger(
  desk: Desk,
  key: IntentKey,
  intent: Intent,
  looks: Looks,
): Promise<IntentAnswer | null> {
  const minute = Math.floor(Date.now() / 60_000);
  looks.count = looks.minute === minute ? looks.count + 1 : 1;
  looks.minute = minute;
  const { looksPerMinute } = desk.policy;
  if (looks.count > looksPerMinute) {
    const detail = `${looksPerMinute} a minute of all accounts together`;
    return { status: "rejected", key, ...turnedAway(desk, { code: "rate_limited", detail }) };
  }
  const verdict = await judge(desk, intent).catch((error: unknown) => {
    if (!(error instanceof NodeFault)) throw error;
    warn("relay_node_fault", { lane: key, error: error.message });
    return null;
  });
  if (verdict?.t === "refused")
    return { status: "rejected", key, code: verdict.code, detail: verdict.detail };
  if (verdict?.t !== "fulfilled") return null;
  const life = { state: "superseded", fulfilment: verdict.fulfilment, confirmation: "included" } as const;
  const state = { life, misses: 0, alone: false, dislodged: false, failures: 0, dueAt: null };
  return answerOf({ key, intent, state }, desk.flights, desk.policy);
}

async function judge(desk: Desk, intent: Intent): Promise<IntentEvent> {
  const verified = await verify(desk.escrow, intent);
  return verified.t === "verified" ? await simulate(desk.escrow, desk.policy, intent) : verified;
}

/** Counts it against its account, or says why not. */
export function admitStranger(desk: Desk, intent: Intent): Refusal | null {
  const { store, policy } = desk;
  const account = accountOf(intent);
  const admission = admit(store.used(account), calldataOf(intent)?.gas ?? 0n, Date.now(), policy);
  if (!admission.ok) return turnedAway(desk, { code: admission.code, detail: admission.detail });
  store.setUsed(account, admission.used);
  return null;
}

function turnedAway(desk: Desk, refusal: Refusal): Refusal {
  desk.store.count(`gpux_relay_turned_away_total{code="${refusal.code}"}`);
  return refusal;
}
