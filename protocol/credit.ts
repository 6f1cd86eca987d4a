import { z } from "zod";
import { EscrowDomain, escrowDomain, Seconds, types } from "./eip712.ts";
import { Address, Bytes32 } from "./ids.ts";
import type { Settlement } from "./lease.ts";
import { Amount } from "./money.ts";

/** A payer's money for one spender (the consumer signer of the leases that it opens) and one meter, as on chain now. */
export const CreditView = z.object({
  object: z.literal("credit"),
  payer: Address,
  spender: Address,
  meter: Address,
  balance: Amount,
  /** From when on it may be taken back by `reclaim_credit`, where its release was asked for. */
  release_at: z.iso.datetime().optional(),
});
export type CreditView = z.output<typeof CreditView>;

/** The typed data of an allocation as `eth_signTypedData_v4` takes it: targets in base units. */
export const AllocateTypedData = z.object({
  domain: EscrowDomain,
  types: z.object({ Allocate: z.array(z.object({ name: z.string(), type: z.string() })) }),
  primaryType: z.literal("Allocate"),
  message: z.object({ leaseIds: z.array(Bytes32), fundedTo: z.array(Amount), validBefore: Seconds }),
});
export type AllocateTypedData = z.output<typeof AllocateTypedData>;

/** What `payment_required` brings beside the quote where the credit of who asks suffices: signed, it pays (SPEC CRD-5). */
export const CreditOffer = z.object({ balance: Amount, allocate: AllocateTypedData });
export type CreditOffer = z.output<typeof CreditOffer>;

/** What the consumer signer signs to open leases from credit, or to raise them. `validBefore` in seconds. */
export function allocateTypedData(
  { chain_id: chainId, escrow }: Pick<Settlement, "chain_id" | "escrow">,
  message: AllocateTypedData["message"],
): AllocateTypedData {
  return {
    domain: escrowDomain({ chainId, escrow }),
    types: { Allocate: types.Allocate.map((field) => ({ ...field })) },
    primaryType: "Allocate",
    message,
  };
}
