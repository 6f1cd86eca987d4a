import { consumerOf } from "@gpux/protocol/consumer-signature";
import { isFromCredit, type LeaseFunding } from "@gpux/protocol/funding";
import type { Refused } from "../interfaces.ts";
import { hasherOf } from "./billing.ts";
import type { Lease } from "./state.ts";

/**
 * CRD-1: a funding from credit is refused at once unless the lease's consumer signed it for this lease alone. Of a
 * wallet's, and of an order's that many leases share, others are the judges: the token, and the meter.
 */
export async function allocationFault(lease: Lease, funding: LeaseFunding): Promise<Refused | null> {
  if (!isFromCredit(funding)) return null;
  const { funded_to, valid_before: validBefore, signature } = funding;
  const digest = hasherOf(lease.place).allocate({
    leaseIds: [lease.hash],
    fundedTo: [funded_to],
    validBefore,
  });
  if ((await consumerOf(digest, signature)) === lease.terms.consumerSigner) return null;
  const detail = `${lease.terms.consumerSigner} has not signed Allocate over this lease and target`;
  return { ok: false, code: "funding_invalid", detail };
}
