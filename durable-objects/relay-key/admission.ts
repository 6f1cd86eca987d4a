import { calldataOf } from "@gpux/protocol/calldata";
import { type Intent, type IntentAnswer, type IntentKey, intentKey } from "@gpux/protocol/intent";
import { answerOf } from "./answer.ts";
import { type Desk, warn } from "./desk.ts";
import { NodeFault } from "./json-rpc.ts";
import { simulate, verify } from "./judge.ts";
import type { IntentEvent } from "./machine.ts";
import { accountOf, admit } from "./rate.ts";
import type { Refusal } from "./refusal.ts";
import { isPartlyPaid } from "./renewal.ts";

/** RLY-11: what stands between strangers and a key's gas, storage and nodes. */

/** How many strangers' intents this life of the object has looked at in the running minute. */
export interface Looks {
  minute: number;
  count: number;
}
/** A payout that a stranger made under a lease's name would pass for the lease's own. */
const OWN_OCCASION = "lse_";

export const newLooks = (): Looks => ({ minute: 0, count: 0 });

/**
 * The answer to what a stranger brings, where it is not to be taken; null: it is, and counts against its account. What
 * is under way already is, whatever came with it this time.
 */
export async function answerStranger(desk: Desk, intent: Intent, looks: Looks): Promise<IntentAnswer | null> {
  const key = intentKey(desk.escrow.hasher, intent);
  // A rejected one is tried anew, a held one would land sooner, a voucher may pay more: all for the chain to judge.
  const isUnderWay = () => {
    const known = desk.store.read(key);
    const state = known?.state.life.state ?? "rejected";
    return state !== "rejected" && state !== "held" && !isPartlyPaid(known);
  };
  if (isUnderWay()) return null;
  const verdict = await judgeStranger(desk, key, intent, looks);
  const known = desk.store.read(key);
  if (verdict?.status === "rejected" && known !== null && isPartlyPaid(known))
    return answerOf(known, desk.flights, desk.policy);
  // Meanwhile the same may have come by another way.
  if (verdict !== null || isUnderWay()) return verdict;
  const refusal = admitStranger(desk, intent);
  return refusal === null ? null : { status: "rejected", key, ...refusal };
}

/**
 * What the chain says before anything is stored; null: it may go on. Without it, anybody could use up another's rate by
 * intents that nobody signed, fill the storage with them, or take the place of a voucher that is held.
 */
async function judgeStranger(
  desk: Desk,
  key: IntentKey,
  intent: Intent,
  looks: Looks,
): Promise<IntentAnswer | null> {
  const refused = (refusal: Refusal): IntentAnswer => ({ status: "rejected", key, ...refusal });
  if (intent.kind === "withdraw" && intent.occasion.startsWith(OWN_OCCASION))
    return refused({ code: "intent_invalid", detail: `occasions that begin with ${OWN_OCCASION} are taken` });
  const minute = Math.floor(Date.now() / 60_000);
  looks.count = looks.minute === minute ? looks.count + 1 : 1;
  looks.minute = minute;
  const { looksPerMinute } = desk.policy;
  if (looks.count > looksPerMinute) {
    const detail = `${looksPerMinute} a minute of all accounts together`;
    return refused(turnedAway(desk, { code: "rate_limited", detail }));
  }
  const verdict = await judge(desk, intent).catch((error: unknown) => {
    if (!(error instanceof NodeFault)) throw error;
    warn("relay_node_fault", { lane: key, error: error.message });
    return { t: "refused", code: "chain_unavailable", detail: "no node gave a sensible answer" } as const;
  });
  if (verdict.t === "refused") return refused({ code: verdict.code, detail: verdict.detail });
  if (verdict.t !== "fulfilled") return null;
  const life = { state: "superseded", fulfilment: verdict.fulfilment, confirmation: "included" } as const;
  const state = { life, misses: 0, alone: false, dislodged: false, failures: 0, dueAt: null };
  return answerOf({ key, intent, state }, desk.flights, desk.policy);
}

async function judge(desk: Desk, intent: Intent): Promise<IntentEvent> {
  const verified = await verify(desk.escrow, intent);
  if (verified.t !== "verified") return verified;
  return await simulate(desk.escrow, desk.policy, intent, desk.store.restsOn(intent));
}

/** Counts it against its account, or says why not. */
function admitStranger(desk: Desk, intent: Intent): Refusal | null {
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
