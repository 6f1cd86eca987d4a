import { fundingKey } from "@gpux/protocol/funding";
import type { Address } from "@gpux/protocol/ids";
import type { LeaseView } from "@gpux/protocol/lease";
import type { Outcome, PaymentNeeded, Refused } from "../interfaces.ts";
import type { Refusal } from "./jobs.ts";
import type { State } from "./state.ts";
import { leaseView } from "./view.ts";

/** A lease is its payer's and its consumer signer's; others learn nothing of it. */
export function mayNot(state: State | null, as: Address): Refused | null {
  if (state === null) return { ok: false, code: "lease_unknown" };
  const { payer, consumerSigner } = state.lease.terms;
  return as === payer || as === consumerSigner ? null : { ok: false, code: "forbidden" };
}

/** A refusal of the machine as callers see it. */
export function refusalOf({ code, detail }: { code: Refusal["code"]; detail?: string | undefined }): Refused {
  return { ok: false, code, ...(detail === undefined ? {} : { detail }) };
}

/** As {@link refusalOf}; one for want of an allowance says what to sign. */
export function paymentNeeded(state: State, refusal: Refusal): PaymentNeeded {
  if (!("cumulative" in refusal)) return refusalOf(refusal);
  const { id, hash } = state.lease;
  const allowance = { lease_id: id, lease_hash: hash, cumulative: refusal.cumulative.toString() };
  return { ok: false, code: "allowance_required", allowance };
}

/** How a funding stands: what the chain refused is the caller's answer, not a later surprise. */
export function fundingAnswer(state: State): Outcome<{ lease: LeaseView }> {
  const { end } = state.lease;
  return refusedFunding(end ?? null) ?? { ok: true, lease: leaseView(state) };
}

/** Whether the top-up with this key is still on its way to the chain. */
export function isLanding(state: State, key: string): boolean {
  return state.lease.topUps.some((each) => fundingKey(each.funding) === key && each.refused === null);
}

/** As {@link fundingAnswer}, of a top-up; one that has landed is not kept any more. */
export function topUpAnswer(state: State, key: string): Outcome<{ lease: LeaseView }> {
  const known = state.lease.topUps.find((each) => fundingKey(each.funding) === key);
  return refusedFunding(known?.refused ?? null) ?? { ok: true, lease: leaseView(state) };
}

function refusedFunding(end: { reason: string; detail?: string | undefined } | null): Refused | null {
  if (end?.reason === "insufficient_funds") return refusalOf({ ...end, code: "insufficient_funds" });
  if (end?.reason === "insufficient_credit") return refusalOf({ ...end, code: "insufficient_credit" });
  if (end?.reason === "funding_failed") return refusalOf({ ...end, code: "funding_invalid" });
  return null;
}
