import type { IntentKey, IntentKind } from "@gpux/protocol/intent";
import { type Policy, windowOf } from "./policy.ts";

/** Which simulated intents go into the next transaction, and when. Pure. */

export interface Waiting {
  readonly key: IntentKey;
  readonly kind: IntentKind;
  /** When its window began (ms). */
  readonly since: number;
  readonly alone: boolean;
  /** Token base units that it moves; null where nobody asked. */
  readonly value: bigint | null;
  /** Static bound of its call. */
  readonly gas: bigint;
  /** Two intents with a claim in common do not share a transaction: their events could not be told apart. */
  readonly claims: readonly string[];
}

export interface Plan {
  /** In the order in which they are to run; one alone is called directly. Null: nothing is to be sent yet. */
  readonly batch: readonly IntentKey[] | null;
  /** When to plan again if nothing else happens (ms); null when nothing waits for a time. */
  readonly wakeAt: number | null;
}

/**
 * Money first goes in, then is earned, then is ended, then is paid out: an entry may rest on those before it. A meter
 * resigns after what it co-signed.
 */
const order: Readonly<Record<IntentKind, number>> = {
  deposit: 0,
  fund: 1,
  allocate: 2,
  settle: 3,
  close: 4,
  exit: 5,
  reclaim: 6,
  release: 7,
  reclaim_credit: 8,
  revoke_meter: 9,
  withdraw: 10,
};
/** Somebody waits to be safe. */
const URGENT: ReadonlySet<IntentKind> = new Set(["exit", "revoke_meter"]);

/** What Multicall3 adds to the gas of each call. */
export const ENTRY_GAS = 8_000n;

/**
 * `arriving`: intents that are being judged and may join soon. Only what has no window of its own waits for them, and
 * no longer than `fundWindowMs`.
 */
export function planBatch(
  queue: readonly Waiting[],
  world: { readonly now: number; readonly arriving: number; readonly room: boolean },
  policy: Policy,
): Plan {
  if (queue.length === 0 || !world.room) return { batch: null, wakeAt: null };
  const goesAt = (each: Waiting) => dueAt(each, world.arriving, policy);
  const byUrgency = queue.toSorted((a, b) => goesAt(a) - goesAt(b) || a.since - b.since);
  const [first] = byUrgency;
  if (first === undefined) return { batch: null, wakeAt: null };
  if (goesAt(first) > world.now) return { batch: null, wakeAt: goesAt(first) };
  if (first.alone) return { batch: [first.key], wakeAt: null };

  // A ride in a transaction that goes anyway is cheaper than any window, so everybody may come along.
  const aboard: Waiting[] = [];
  const claimed = new Set<string>();
  let gas = 0n;
  for (const each of byUrgency) {
    if (aboard.length >= policy.batchEntries) break;
    if (each.alone || each.claims.some((claim) => claimed.has(claim))) continue;
    if (aboard.length > 0 && gas + each.gas + ENTRY_GAS > BigInt(policy.batchGas)) continue;
    aboard.push(each);
    gas += each.gas + ENTRY_GAS;
    for (const claim of each.claims) claimed.add(claim);
  }
  const rank = (each: Waiting) => order[each.kind];
  return { batch: aboard.toSorted((a, b) => rank(a) - rank(b)).map((each) => each.key), wakeAt: null };
}

function dueAt(each: Waiting, arriving: number, policy: Policy): number {
  if (each.alone || URGENT.has(each.kind)) return each.since;
  if (each.value !== null && each.value >= policy.urgentValue) return each.since;
  const window = windowOf(policy, each.kind);
  return each.since + (window === 0 && arriving > 0 ? policy.fundWindowMs : window);
}
