import {
  depositNonce,
  escrowDomain,
  fundingNonce,
  type LeaseTerms,
  tokenTypes,
  types,
} from "@gpux/protocol/eip712";
import { Address, type Bytes32 } from "@gpux/protocol/ids";
import type { Settlement } from "@gpux/protocol/lease";
import type { Account, Consumer } from "./account.ts";

/** Wire form of `FundingAuthorization` (protocol/lease.ts). */
export interface SignedFunding {
  readonly amount: string;
  readonly salt: Bytes32;
  readonly valid_after: number;
  readonly valid_before: number;
  readonly signature: `0x${string}`;
}

/** Wire form of `OrderAuthorization` (protocol/order.ts). */
export interface SignedFundings extends Omit<SignedFunding, "amount"> {
  readonly amounts: readonly string[];
}

/**
 * The payer's authorization to fund leases, by one signature over their sum: EIP-3009 in the token's domain, its nonce
 * the hash of the funding plan, so that it can open these leases with these amounts and nothing else. Each gets its
 * amount, or none does. Check the quotes first (quote-check.ts). `validBefore` in seconds.
 */
export async function signFundings(
  payer: Account,
  settlement: Settlement,
  funding: { leaseHashes: readonly Bytes32[]; amounts: readonly bigint[]; validBefore: number },
): Promise<SignedFundings> {
  const { leaseHashes, amounts, validBefore } = funding;
  const salt = randomBytes32();
  const value = amounts.reduce((sum, amount) => sum + amount, 0n);
  const nonce = fundingNonce({ leaseIds: [...leaseHashes], amounts: [...amounts], salt });
  const signature = await signTransfer(payer, settlement, { value, validBefore, nonce });
  const texts = amounts.map((amount) => amount.toString());
  return { amounts: texts, salt, valid_after: 0, valid_before: validBefore, signature };
}

/** EIP-3009 in the token's domain: `value` into the escrow, for what `nonce` is the hash of. */
function signTransfer(
  payer: Account,
  settlement: Settlement,
  { value, validBefore, nonce }: { value: bigint; validBefore: number; nonce: Bytes32 },
) {
  return payer.signTypedData({
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
      value,
      validAfter: 0n,
      validBefore: BigInt(validBefore),
      nonce,
    },
  });
}

/**
 * The payer's authorization to set `amount` aside for a spender and a meter, as the intent that lands it: what they may
 * do with it together is open leases whose rest returns to it.
 */
export async function signDeposit(
  payer: Account,
  settlement: Settlement,
  deposit: { spender: Address; meter: Address; amount: bigint; validBefore: number },
) {
  const { spender, meter, amount, validBefore } = deposit;
  const from = Address.parse(payer.address);
  const salt = randomBytes32();
  const nonce = depositNonce({ payer: from, spender, meter, amount, salt });
  const signature = await signTransfer(payer, settlement, { value: amount, validBefore, nonce });
  const plan = { from, spender, meter, amount: amount.toString(), salt, validAfter: 0, validBefore };
  return { kind: "deposit", ...plan, signature } as const;
}

/** By payer or spender: all of a credit back to its payer, after the contract's delay. */
export function signRelease(
  by: Account,
  settlement: Settlement,
  message: { payer: Address; spender: Address; meter: Address; validBefore: number },
) {
  return by.signTypedData({
    domain: escrowDomain({ chainId: settlement.chain_id, escrow: settlement.escrow }),
    types: { Release: types.Release },
    primaryType: "Release",
    message,
  });
}

/** Wire form of `CreditOrderAuthorization` (protocol/order.ts). */
export interface SignedAllocation {
  readonly kind: "credit";
  readonly funded_to: readonly string[];
  readonly valid_before: number;
  readonly signature: `0x${string}`;
}

/**
 * The consumer's word that leases are raised to these targets out of the payer's credit. No wallet is asked; it lands
 * only with the meter's signature beside it.
 */
export async function signAllocation(
  consumer: Consumer,
  settlement: Settlement,
  plan: { leaseHashes: readonly Bytes32[]; amounts: readonly bigint[]; validBefore: number },
): Promise<SignedAllocation> {
  const { leaseHashes, amounts, validBefore } = plan;
  const signature = await consumer.signTypedData({
    domain: escrowDomain({ chainId: settlement.chain_id, escrow: settlement.escrow }),
    types: { Allocate: types.Allocate },
    primaryType: "Allocate",
    message: { leaseIds: [...leaseHashes], fundedTo: [...amounts], validBefore },
  });
  const funded_to = amounts.map((amount) => amount.toString());
  return { kind: "credit", funded_to, valid_before: validBefore, signature };
}

/** Wire form of `SignedAllowance` (protocol/job.ts). */
export interface SignedAllowance {
  readonly cumulative: string;
  readonly signature: `0x${string}`;
}

/** The consumer's ceiling on a lease's cumulative usage, in wire form. */
export async function signAllowance(
  consumer: Consumer,
  settlement: Settlement,
  allowance: { leaseHash: Bytes32; cumulative: bigint },
): Promise<SignedAllowance> {
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

/** The account must be the one that the terms name, or its signature is worth nothing. */
export function isConsumer(account: Consumer, terms: LeaseTerms): boolean {
  return terms.consumerSigner === account.address.toLowerCase();
}
