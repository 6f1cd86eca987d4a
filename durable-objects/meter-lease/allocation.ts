import type { AllocationRefusal, AttestRefusal } from "@gpux/protocol/attestation";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { Address, Bytes32 } from "@gpux/protocol/ids";
import { termsFault } from "./machine.ts";

/** Why no lease with such terms has anything to ask of the meter with this address; null: it may ask. */
export function foreignTerms(terms: LeaseTerms, meter: Address): AttestRefusal | null {
  if (terms.meter !== meter) return { ok: false, code: "meter_mismatch", detail: `this is ${meter}` };
  // The contract opens no such lease: one party would have two of the three votes.
  const keys = new Set([terms.consumerSigner, terms.providerSigner, terms.meter]);
  if (keys.size < 3) return { ok: false, code: "terms_invalid", detail: "two roles share a key" };
  return null;
}

/**
 * CRD-2: why the meter gives its half for no allocation to these leases, whoever signed it; null: for one that their
 * consumer signed it may. `leaseIds` are theirs, in their order. `now` in ms.
 */
export function allocationFault(
  terms: readonly LeaseTerms[],
  leaseIds: readonly Bytes32[],
  meter: Address,
  now: number,
): AllocationRefusal | null {
  const [first] = terms;
  if (first === undefined) return { ok: false, code: "intent_invalid", detail: "no lease" };
  for (const each of terms) {
    const fault = foreignTerms(each, meter)?.detail ?? termsFault(each, now);
    if (fault !== null) return { ok: false, code: "terms_refused", detail: fault };
    if (each.payer !== first.payer || each.consumerSigner !== first.consumerSigner) {
      const detail = "the leases are not of one payer and consumer";
      return { ok: false, code: "other_credit", detail };
    }
  }
  if (new Set(leaseIds).size < leaseIds.length)
    return { ok: false, code: "intent_invalid", detail: "a lease stands twice" };
  return null;
}
