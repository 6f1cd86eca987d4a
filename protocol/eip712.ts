import type { TypedData } from "viem";
import { hashStruct, hashTypedData } from "viem/utils";
import { z } from "zod";
import { Address, Bytes32 } from "./ids.ts";
import { Amount } from "./money.ts";

/**
 * The typed data that moves money (DESIGN section 8) and the receipts that explain it. Each schema's input is
 * the JSON wire form (amounts as decimal strings), its output the struct that is hashed (amounts as bigint);
 * `z.encode` goes back. The field order here is the signed order: changing it changes every signature.
 */

/** EIP-712 `types`, in the form that viem and wallets take. */
export const types = {
  LeaseTerms: [
    { name: "payer", type: "address" },
    { name: "consumerSigner", type: "address" },
    { name: "provider", type: "address" },
    { name: "providerSigner", type: "address" },
    { name: "meter", type: "address" },
    { name: "feeRecipient", type: "address" },
    { name: "feeBps", type: "uint16" },
    { name: "upfront", type: "uint88" },
    { name: "unattended", type: "uint88" },
    { name: "ratePerHour", type: "uint64" },
    { name: "expiry", type: "uint40" },
    { name: "quote", type: "bytes32" },
  ],
  Funding: [
    { name: "leaseIds", type: "bytes32[]" },
    { name: "amounts", type: "uint88[]" },
    { name: "salt", type: "bytes32" },
  ],
  Deposit: [
    { name: "payer", type: "address" },
    { name: "spender", type: "address" },
    { name: "meter", type: "address" },
    { name: "amount", type: "uint88" },
    { name: "salt", type: "bytes32" },
  ],
  Allocate: [
    { name: "leaseIds", type: "bytes32[]" },
    { name: "fundedTo", type: "uint88[]" },
    { name: "validBefore", type: "uint40" },
  ],
  Release: [
    { name: "payer", type: "address" },
    { name: "spender", type: "address" },
    { name: "meter", type: "address" },
    { name: "validBefore", type: "uint40" },
  ],
  Usage: [
    { name: "leaseId", type: "bytes32" },
    { name: "cumulative", type: "uint88" },
    { name: "evidence", type: "bytes32" },
  ],
  Allowance: [
    { name: "leaseId", type: "bytes32" },
    { name: "cumulative", type: "uint88" },
  ],
  Close: [
    { name: "leaseId", type: "bytes32" },
    { name: "cumulative", type: "uint88" },
    { name: "evidence", type: "bytes32" },
    { name: "validBefore", type: "uint40" },
  ],
  Exit: [{ name: "leaseId", type: "bytes32" }],
  RevokeMeter: [{ name: "meter", type: "address" }],
  Receipt: [
    { name: "leaseId", type: "bytes32" },
    { name: "job", type: "bytes32" },
    { name: "sequence", type: "uint32" },
    { name: "attempt", type: "uint32" },
    { name: "inputHash", type: "bytes32" },
    { name: "outputHashes", type: "bytes32[]" },
    { name: "node", type: "address" },
    { name: "gpu", type: "string" },
    { name: "billedMs", type: "uint64" },
    { name: "price", type: "uint88" },
    { name: "cumulative", type: "uint88" },
    { name: "endedAt", type: "uint40" },
  ],
} as const satisfies TypedData;

/** EIP-3009, signed in the token's own domain: the payer's one wallet prompt for funding and deposits. */
export const tokenTypes = {
  ReceiveWithAuthorization: [
    { name: "from", type: "address" },
    { name: "to", type: "address" },
    { name: "value", type: "uint256" },
    { name: "validAfter", type: "uint256" },
    { name: "validBefore", type: "uint256" },
    { name: "nonce", type: "bytes32" },
  ],
} as const satisfies TypedData;

export const MAX_UINT64 = (1n << 64n) - 1n;

/** Wire form a decimal string, decoded to a bigint of at most 2^64 - 1: rates per hour and milliseconds. */
export const Uint64 = z.codec(
  z
    .string()
    .regex(/^(?:0|[1-9][0-9]{0,19})$/, { error: "a decimal string", abort: true })
    .refine((text) => BigInt(text) <= MAX_UINT64, "at most 2^64 - 1"),
  z.bigint(),
  { decode: (text) => BigInt(text), encode: (value) => value.toString() },
);

const Uint16 = z.int().min(0).max(0xffff);
const Uint32 = z.int().min(0).max(0xffff_ffff);

/** Seconds since the epoch, as the contract's uint40. */
export const Seconds = z
  .int()
  .min(0)
  .max(2 ** 40 - 1);

/**
 * EIP-3009 times are uint256 strings on the wire. Those beyond uint40 are refused: an authorization that
 * never ends would keep its reservation for ever (DESIGN section 3, quote).
 */
const SecondsText = z.codec(
  z
    .string()
    .regex(/^(?:0|[1-9][0-9]{0,12})$/, { error: "decimal seconds", abort: true })
    .refine((text) => BigInt(text) < 1n << 40n, "at most 2^40 - 1"),
  z.bigint(),
  { decode: (text) => BigInt(text), encode: (value) => value.toString() },
);

/** One order opens at most this many leases; the bound keeps its settlement inside one block's gas. */
export const MAX_ORDER_LEASES = 64;
/** A receipt names at most this many outputs. */
export const MAX_OUTPUTS = 64;

const leaseIds = z.array(Bytes32).min(1).max(MAX_ORDER_LEASES);
const leaseAmounts = z.array(Amount).min(1).max(MAX_ORDER_LEASES);

/** What payer and provider agree on; its digest is the on-chain lease id. The contract refuses feeBps above 5,000. */
export const LeaseTerms = z.strictObject({
  payer: Address,
  consumerSigner: Address,
  provider: Address,
  providerSigner: Address,
  meter: Address,
  feeRecipient: Address,
  feeBps: Uint16.max(5_000),
  upfront: Amount,
  unattended: Amount,
  ratePerHour: Uint64,
  expiry: Seconds,
  quote: Bytes32,
});
export type LeaseTerms = z.infer<typeof LeaseTerms>;

/** Never signed itself: its struct hash is the nonce of the payer's EIP-3009 authorization. */
export const Funding = z
  .strictObject({ leaseIds, amounts: leaseAmounts, salt: Bytes32 })
  .refine((funding) => funding.leaseIds.length === funding.amounts.length, "one amount for each lease");
export type Funding = z.infer<typeof Funding>;

/** Never signed itself, as {@link Funding}: money into the credit of (payer, spender, meter). */
export const Deposit = z.strictObject({
  payer: Address,
  spender: Address,
  meter: Address,
  amount: Amount,
  salt: Bytes32,
});
export type Deposit = z.infer<typeof Deposit>;

/** Spender and meter open or top up leases from credit. Targets, not increments: a replay changes nothing. */
export const Allocate = z
  .strictObject({ leaseIds, fundedTo: leaseAmounts, validBefore: Seconds })
  .refine((allocate) => allocate.leaseIds.length === allocate.fundedTo.length, "one target for each lease");
export type Allocate = z.infer<typeof Allocate>;

/** Credit back to the payer: signed by payer or spender. */
export const Release = z.strictObject({
  payer: Address,
  spender: Address,
  meter: Address,
  validBefore: Seconds,
});
export type Release = z.infer<typeof Release>;

/** A voucher's text: what a lease has cost so far; two of consumer, provider and meter sign it. */
export const Usage = z.strictObject({ leaseId: Bytes32, cumulative: Amount, evidence: Bytes32 });
export type Usage = z.infer<typeof Usage>;

/** The consumer's ceiling on a lease's cumulative usage. */
export const Allowance = z.strictObject({ leaseId: Bytes32, cumulative: Amount });
export type Allowance = z.infer<typeof Allowance>;

/** The final usage: provider and one other. */
export const Close = z.strictObject({
  leaseId: Bytes32,
  cumulative: Amount,
  evidence: Bytes32,
  validBefore: Seconds,
});
export type Close = z.infer<typeof Close>;

/** The payer's or consumer's way out without the provider. */
export const Exit = z.strictObject({ leaseId: Bytes32 });
export type Exit = z.infer<typeof Exit>;

/** Signed by the meter itself, for good: bars new leases with it and freezes its clock in the running ones. */
export const RevokeMeter = z.strictObject({ meter: Address });
export type RevokeMeter = z.infer<typeof RevokeMeter>;

/**
 * One job, never sent to the chain: its digest is a leaf of the lease's evidence tree. `job` is keccak256 of the
 * job id's UTF-8, `inputHash` sha256 of the canonical job request, `outputHashes` sha256 of each output in manifest
 * order, `sequence` counts from 1 in the lease, `price` is a difference of two floors, `endedAt` is in seconds.
 *
 * A dedicated lease is paid for its time: a tick is a receipt of {@link NO_JOB}, whose `billedMs` were served until
 * `endedAt`; `attempt` numbers the count, `inputHash` is the terms' `quote` (what was reserved), there are no outputs.
 * Its jobs' receipts cost nothing (docs/adr/0015).
 */
export const Receipt = z.strictObject({
  leaseId: Bytes32,
  job: Bytes32,
  sequence: Uint32.min(1),
  attempt: Uint32,
  inputHash: Bytes32,
  outputHashes: z.array(Bytes32).max(MAX_OUTPUTS),
  node: Address,
  gpu: z.string().max(128),
  billedMs: Uint64,
  price: Amount,
  cumulative: Amount,
  endedAt: Seconds,
});
export type Receipt = z.infer<typeof Receipt>;

/** What stands as `job` in a receipt of time. No id hashes to it. */
export const NO_JOB: Bytes32 = `0x${"00".repeat(32)}`;

/** EIP-3009 in the token's domain; `nonce` is {@link fundingNonce} or {@link depositNonce}. */
export const ReceiveWithAuthorization = z.strictObject({
  from: Address,
  to: Address,
  value: Amount,
  validAfter: SecondsText,
  validBefore: SecondsText,
  nonce: Bytes32,
});
export type ReceiveWithAuthorization = z.infer<typeof ReceiveWithAuthorization>;

/** Every struct of the escrow's domain, by its EIP-712 name. */
export const structs = {
  LeaseTerms,
  Funding,
  Deposit,
  Allocate,
  Release,
  Usage,
  Allowance,
  Close,
  Exit,
  RevokeMeter,
  Receipt,
} as const;
export type StructName = keyof typeof structs;
export type Struct<Name extends StructName> = z.infer<(typeof structs)[Name]>;

/** The domain in which every struct but the token's own is signed. */
export const EscrowDomain = z.strictObject({
  name: z.literal("GPUX Lease Escrow"),
  version: z.literal("1"),
  chainId: z.int().min(1),
  verifyingContract: Address,
});
export type EscrowDomain = z.infer<typeof EscrowDomain>;

/** A token's EIP-712 domain; `name` and `version` are read from the token (USDC's differ between chains). */
export const TokenDomain = z.strictObject({
  name: z.string(),
  version: z.string(),
  chainId: z.int().min(1),
  verifyingContract: Address,
});
export type TokenDomain = z.infer<typeof TokenDomain>;

export function escrowDomain(place: { chainId: number; escrow: Address }): EscrowDomain {
  return {
    name: "GPUX Lease Escrow",
    version: "1",
    chainId: place.chainId,
    verifyingContract: place.escrow,
  };
}

/** The EIP-712 digest that a signer of `primaryType` signs. Hot paths use createHasher (typed-data-encoder.ts). */
export function digest<Name extends StructName>(
  domain: EscrowDomain,
  primaryType: Name,
  message: Struct<Name>,
): Bytes32 {
  // Widened, because viem's generics do not resolve over a type parameter; Struct<Name> keeps callers honest.
  const widened: { types: Record<string, unknown>; primaryType: string; message: Record<string, unknown> } = {
    types,
    primaryType,
    message,
  };
  return hashTypedData({ domain, ...widened });
}

/** The digest that the payer signs in the token's domain. */
export function authorizationDigest(domain: TokenDomain, message: ReceiveWithAuthorization): Bytes32 {
  return hashTypedData({ domain, types: tokenTypes, primaryType: "ReceiveWithAuthorization", message });
}

/** The on-chain lease id: the digest of the terms, so it binds chain and contract. */
export function leaseIdHash(domain: EscrowDomain, terms: LeaseTerms): Bytes32 {
  return digest(domain, "LeaseTerms", terms);
}

/** The EIP-3009 nonce of a wallet-funded opening or top-up. A struct hash: the authorization brings the domain. */
export function fundingNonce(funding: Funding): Bytes32 {
  return hashStruct({ data: funding, types, primaryType: "Funding" });
}

/** The EIP-3009 nonce of a deposit into credit. */
export function depositNonce(deposit: Deposit): Bytes32 {
  return hashStruct({ data: deposit, types, primaryType: "Deposit" });
}
