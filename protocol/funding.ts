import { z } from "zod";
import { ConsumerSignature } from "./consumer-signature.ts";
import { Seconds } from "./eip712.ts";
import { Bytes32, HexBytes } from "./ids.ts";
import { Amount } from "./money.ts";

/** From the payer's wallet: its EIP-3009 ReceiveWithAuthorization, whose nonce is the hash of the funding plan. */
export const FundingAuthorization = z.strictObject({
  amount: Amount,
  salt: Bytes32,
  valid_after: z.int().min(0).default(0),
  /** Seconds; at least 60 s ahead so that it can land, at most one hour so that the hold ends. */
  valid_before: z.int().min(0),
  signature: HexBytes,
});
export type FundingAuthorization = z.output<typeof FundingAuthorization>;

/**
 * From the payer's credit (SPEC CRD-*): the consumer signer's signature over `Allocate([lease_hash], [funded_to],
 * valid_before)`, which the meter signs as well. A target, not an increment: what the lease has once it has landed, so
 * that the same again moves nothing.
 */
export const CreditAuthorization = z.strictObject({
  kind: z.literal("credit"),
  funded_to: Amount,
  /** Seconds; of an opening as {@link FundingAuthorization}'s. */
  valid_before: Seconds,
  signature: ConsumerSignature,
});
export type CreditAuthorization = z.output<typeof CreditAuthorization>;

/** Allocations that one lease may be left with. */
export const MOST_AUTO_TOP_UPS = 16;

/**
 * Raises that the consumer has signed in advance (SPEC CRD-6): the lease lands the next of them when what is neither
 * spent nor promised to open jobs falls below `below`. The last target is all that it can ever come to by itself.
 */
export const AutoTopUp = z.strictObject({
  below: Amount,
  allocations: z
    .array(CreditAuthorization)
    .min(1)
    .max(MOST_AUTO_TOP_UPS)
    .refine(
      (all) => all.every(({ funded_to }, n) => n === 0 || funded_to > (all[n - 1]?.funded_to ?? 0n)),
      "each target is above the one before",
    ),
});
export type AutoTopUp = z.output<typeof AutoTopUp>;

/** What opens a lease or adds to it. */
export const LeaseFunding = z.union([CreditAuthorization, FundingAuthorization]);
export type LeaseFunding = z.output<typeof LeaseFunding>;

/** Whether it is spent from credit, and not from a wallet. */
export function isFromCredit<Credit extends { readonly kind: "credit" }>(
  funding: Credit | { readonly salt: string },
): funding is Credit {
  return "kind" in funding;
}

/** What a lease that it opens has; none: nothing. Base units. */
export function fundingAmount(funding: LeaseFunding | null): bigint {
  if (funding === null) return 0n;
  return isFromCredit(funding) ? funding.funded_to : funding.amount;
}

/** Which of a lease's fundings it is: one with the same key is the same wish, by whatever signature. */
export function fundingKey(funding: LeaseFunding): string {
  return isFromCredit(funding) ? `credit:${funding.funded_to}` : funding.salt;
}

/** Why the market does not take a funding that may land until `validBefore` (seconds); null when it does. */
export function fundingTimeFault(validBefore: number, nowMs: number): string | null {
  const now = nowMs / 1_000;
  return validBefore < now + 60 || validBefore > now + 3_660
    ? "valid_before must be 60 s to one hour ahead"
    : null;
}
