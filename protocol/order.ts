import { z } from "zod";
import { LeaseTerms, MAX_ORDER_LEASES } from "./eip712.ts";
import { CreditAuthorization, FundingAuthorization, isFromCredit } from "./funding.ts";
import { Address, Bytes32, LeaseId, OrderId } from "./ids.ts";
import { LeaseRequest, LeaseStatus, Quote, WantedLease } from "./lease.ts";
import { Amount } from "./money.ts";
import { Resources } from "./resources.ts";

/** `distinct-provider`: each node belongs to (is paid out to) somebody else. Nodes are always different machines. */
export const Spread = z.enum(["distinct-provider", "any"]);
export type Spread = z.infer<typeof Spread>;

/** Several leases at once, all or none (SPEC ORD-*): the body of `POST /v1/leases` without a signature. */
export const OrderRequest = z
  .strictObject({
    nodes: z.int().min(1).max(MAX_ORDER_LEASES),
    spread: Spread.default("distinct-provider"),
    /** Of each node; stands for `demand.resources`. */
    resources: Resources.optional(),
    ...WantedLease,
  })
  .refine(
    ({ resources, demand }) => resources === undefined || isLeast(demand.resources),
    "resources stand once: at the top, or in the demand",
  )
  .refine(
    ({ nodes, demand }) => nodes === 1 || demand.node === undefined,
    "an order of several names no node",
  );
export type OrderRequest = z.output<typeof OrderRequest>;

function isLeast(resources: Resources): boolean {
  const least = Resources.parse({});
  return (Object.keys(least) as (keyof Resources)[]).every((kind) => resources[kind] === least[kind]);
}

const amounts = z.array(Amount).min(1).max(MAX_ORDER_LEASES);

/**
 * One signature for all leases of an order, in the order's order. From the payer's wallet: EIP-3009 over the sum, whose
 * nonce is the hash of `Funding(lease hashes, amounts, salt)`.
 */
export const WalletOrderAuthorization = z.strictObject({
  ...FundingAuthorization.omit({ amount: true }).shape,
  amounts,
});

/** From the payer's credit: the consumer signer's over `Allocate(lease hashes, funded_to, valid_before)`. */
export const CreditOrderAuthorization = z.strictObject({
  ...CreditAuthorization.omit({ funded_to: true }).shape,
  funded_to: amounts,
});
export type CreditOrderAuthorization = z.output<typeof CreditOrderAuthorization>;

export const OrderAuthorization = z.union([CreditOrderAuthorization, WalletOrderAuthorization]);
export type OrderAuthorization = z.output<typeof OrderAuthorization>;

/** What each lease of the order has by it, in the order's order. */
export function orderAmounts(funding: OrderAuthorization): readonly bigint[] {
  return isFromCredit(funding) ? funding.funded_to : funding.amounts;
}

/** Which funding of the order it is: one with the same key is the same wish, by whatever signature. */
export function orderFundingKey(funding: OrderAuthorization): string {
  return isFromCredit(funding) ? `credit:${funding.funded_to.join()}` : funding.salt;
}

/** The body of `POST /v1/leases` that funds an order. */
export const OrderFunding = z.strictObject({ order: OrderId, funding: OrderAuthorization });
export type OrderFunding = z.output<typeof OrderFunding>;

/** What `POST /v1/leases` takes: a quoted lease or a quoted order to fund, or an order to quote. */
export const LeaseOpening = z.union([LeaseRequest, OrderFunding, OrderRequest]);

/** What a lease keeps of the order that it is funded with: everything that one needs to land the funding of all. */
export const FundingPlan = z.strictObject({
  order: OrderId,
  /** Which of them this lease is. */
  index: z.int().min(0),
  terms: z.array(LeaseTerms).min(1).max(MAX_ORDER_LEASES),
  amounts: z.array(Amount).min(1).max(MAX_ORDER_LEASES),
});
export type FundingPlan = z.output<typeof FundingPlan>;

/** `quoted`: every node holds; `funding`: signed; `open`: every lease has its money under way or more; `released`: over. */
export const OrderStatus = z.enum(["quoted", "funding", "open", "released"]);
export type OrderStatus = z.infer<typeof OrderStatus>;

/** An order as the API shows it. */
export const Order = z.object({
  id: OrderId,
  object: z.literal("order"),
  status: OrderStatus,
  spread: Spread,
  /** One a lease. Check each before you sign. */
  quotes: z.array(Quote),
  /** What the one signature is over, but for its salt. */
  funding: z.object({ lease_hashes: z.array(Bytes32), amounts: z.array(Amount), total: Amount }),
  /** As the quotes, in their order. */
  leases: z.array(z.object({ id: LeaseId, node: Address, status: LeaseStatus, funded: Amount })),
  /** Until when it may be funded: the first of the holds to end. */
  expires_at: z.iso.datetime(),
  /** Why it is `released`. */
  end: z.object({ code: z.string(), detail: z.string().optional() }).optional(),
  created_at: z.iso.datetime(),
});
export type Order = z.output<typeof Order>;
