import { escrowDomain, fundingNonce, tokenTypes, types } from "@gpux/protocol/eip712";
import type { Bytes32 } from "@gpux/protocol/ids";
import type { Settlement } from "@gpux/protocol/lease";
import type { Account } from "./account.ts";

/** Wire form of `FundingAuthorization` (protocol/lease.ts). */
export interface SignedFunding {
  readonly amount: string;
  readonly salt: Bytes32;
  readonly valid_after: number;
  readonly valid_before: number;
  readonly signature: `0x${string}`;
}

/**
 * The payer's authorization to fund one lease: EIP-3009 in the token's domain, its nonce the hash of the funding
 * plan, so that it can open this lease with this amount and nothing else. Check the quote first (quote-check.ts).
 * `validBefore` in seconds.
 */
export async function signFunding(
  payer: Account,
  settlement: Settlement,
  funding: { leaseHash: Bytes32; amount: bigint; validBefore: number },
): Promise<SignedFunding> {
  const { leaseHash, amount, validBefore } = funding;
  const plan = { leaseHashes: [leaseHash], amounts: [amount], validBefore };
  const { amounts: _, ...signed } = await signFundings(payer, settlement, plan);
  return { amount: amount.toString(), ...signed };
}

/** Wire form of `OrderAuthorization` (protocol/order.ts). */
export interface SignedFundings extends Omit<SignedFunding, "amount"> {
  readonly amounts: readonly string[];
}

/** As {@link signFunding}, for several leases by one signature over their sum: each gets its amount, or none does. */
export async function signFundings(
  payer: Account,
  settlement: Settlement,
  funding: { leaseHashes: readonly Bytes32[]; amounts: readonly bigint[]; validBefore: number },
): Promise<SignedFundings> {
  const { leaseHashes, amounts, validBefore } = funding;
  const salt = randomBytes32();
  const signature = await payer.signTypedData({
    domain: {
      name: settlement.token_name,
      version: settlement.token_version,
      chainId: settlement.chain_id,
      verifyingContract: settlement.token,
    },
    types: tokenTypes,
    primaryType: "ReceiveWithAuthorization",
    message: {
      from: payer.address,
      to: settlement.escrow,
      value: amounts.reduce((sum, amount) => sum + amount, 0n),
      validAfter: 0n,
      validBefore: BigInt(validBefore),
      nonce: fundingNonce({ leaseIds: [...leaseHashes], amounts: [...amounts], salt }),
    },
  });
  const texts = amounts.map((amount) => amount.toString());
  return { amounts: texts, salt, valid_after: 0, valid_before: validBefore, signature };
}

/** The consumer's ceiling on a lease's cumulative usage, in wire form; by an account (consumer.ts for a key). */
export async function signAllowance(
  consumer: Account,
  settlement: Settlement,
  allowance: { leaseHash: Bytes32; cumulative: bigint },
): Promise<{ cumulative: string; signature: `0x${string}` }> {
  const signature = await consumer.signTypedData({
    domain: escrowDomain({ chainId: settlement.chain_id, escrow: settlement.escrow }),
    types: { Allowance: types.Allowance },
    primaryType: "Allowance",
    message: { leaseId: allowance.leaseHash, cumulative: allowance.cumulative },
  });
  return { cumulative: allowance.cumulative.toString(), signature };
}

function randomBytes32(): Bytes32 {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  return `0x${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
