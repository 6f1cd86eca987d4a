import type { Intent, IntentKey } from "@gpux/protocol/intent";
import { type Desk, log, warn } from "./desk.ts";
import { NodeFault } from "./json-rpc.ts";
import { simulate } from "./judge.ts";
import { step } from "./machine.ts";
import type { Known } from "./store.ts";

/**
 * A voucher above the funding or a cap pays what it can; the contract pays the rest when it comes again after a top-up
 * or later. It is the one intent that can be done and not be over.
 */
export function isPartlyPaid(known: Known | null): boolean {
  if (known?.intent.kind !== "settle") return false;
  const { life } = known.state;
  if (life.state !== "included" && life.state !== "superseded") return false;
  const { result } = life.fulfilment;
  return result.kind === "settle" && BigInt(result.paid) < known.intent.cumulative;
}

/** Begins a partly paid voucher anew, if the chain would pay more for it now or has; else all stays as it was. */
export async function renew(desk: Desk, key: IntentKey, intent: Intent): Promise<void> {
  if (!isPartlyPaid(desk.store.read(key))) return;
  const verdict = await simulate(desk.escrow, desk.policy, intent, []).catch((error: unknown) => {
    if (!(error instanceof NodeFault)) throw error;
    warn("relay_node_fault", { lane: key, error: error.message });
    return null;
  });
  const begun = step(null, { t: "submitted" }, Date.now());
  // Meanwhile another may have begun it.
  const isMore = verdict?.t === "simulated" || verdict?.t === "fulfilled";
  if (!isMore || !begun.ok || !isPartlyPaid(desk.store.read(key))) return;
  desk.store.write({ key, intent, state: begun.next });
  log(desk, "voucher_renewed", { key });
}
