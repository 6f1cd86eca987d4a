import { type AutoTopUp, fundingKey } from "@gpux/protocol/funding";
import { committed } from "./billing.ts";
import type { Draft } from "./draft.ts";
import { topUp } from "./funding.ts";
import { type Refusal, refuse } from "./jobs.ts";
import { pledged } from "./state.ts";

/** A raise that has less time left would only be refused by the chain; seconds. */
const LANDING_S = 60;

/** CRD-6: the raises that the consumer signed in advance, instead of any before; the shell has checked each. */
export function leave(draft: Draft, auto: AutoTopUp | null): Refusal | null {
  const { lease } = draft;
  if (lease.status === "quoted") return refuse("payment_required", "the lease is not funded yet");
  if (lease.status !== "funding" && lease.status !== "active") return refuse("lease_closed");
  draft.lease = { ...lease, autoTopUp: auto };
  return null;
}

/**
 * CRD-6: when too little is left and nothing is on its way, the next raise that still says more than there is. Runs
 * after every event: harmless when there is enough.
 */
export function refill(draft: Draft): void {
  const { lease, now } = draft;
  const { autoTopUp, topUps } = lease;
  if (lease.status !== "active" || autoTopUp === null) return;
  const has = pledged(lease);
  const useful = autoTopUp.allocations.filter(
    ({ funded_to, valid_before }) => funded_to > has && valid_before >= now / 1_000 + LANDING_S,
  );
  const isLow = has - committed(draft) < autoTopUp.below;
  const [next, ...later] = useful;
  if (next === undefined) draft.lease = { ...lease, autoTopUp: null };
  else if (isLow && topUps.every(({ refused }) => refused !== null)) {
    draft.lease = {
      ...lease,
      autoTopUp: later.length === 0 ? null : { ...autoTopUp, allocations: later },
    };
    topUp(draft, next);
  }
}

/** A raise that could not land is not followed by higher ones. */
export function giveUpRaises(draft: Draft, key: string): void {
  const { lease } = draft;
  const isRaise = lease.topUps.some(({ funding }) => "kind" in funding && fundingKey(funding) === key);
  if (isRaise) draft.lease = { ...lease, autoTopUp: null };
}
