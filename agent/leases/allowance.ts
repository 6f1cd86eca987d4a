import { consumerOf } from "@gpux/protocol/consumer-signature";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { Bytes32 } from "@gpux/protocol/ids";
import type { SignedAllowance } from "@gpux/protocol/job";
import { formatAmount } from "@gpux/protocol/money";
import type { TypedDataHasher } from "@gpux/protocol/typed-data-encoder";

/** Whether the lease's consumer signed it. */
export async function isConsumersAllowance(
  terms: LeaseTerms,
  leaseId: Bytes32,
  allowance: SignedAllowance,
  hasher: TypedDataHasher,
): Promise<boolean> {
  const digest = hasher.allowance({ leaseId, cumulative: allowance.cumulative });
  return (await consumerOf(digest, allowance.signature)) === terms.consumerSigner;
}

/**
 * Whether a job that brings the lease's usage to `committed` can be paid: the consumer allowed it or the terms let it
 * go unattended, and the escrow holds it. Null when so, else why not.
 */
export function uncovered(
  terms: LeaseTerms,
  allowed: bigint,
  funded: bigint,
  committed: bigint,
): string | null {
  const ceiling = allowed > terms.unattended ? allowed : terms.unattended;
  if (committed > ceiling)
    return `the consumer allows ${formatAmount(ceiling)} USDC, the job may bring the usage to ${formatAmount(committed)}`;
  if (committed > funded)
    return `the escrow holds ${formatAmount(funded)} USDC, the job may bring the usage to ${formatAmount(committed)}`;
  return null;
}
