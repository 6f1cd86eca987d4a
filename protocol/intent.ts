import { z } from "zod";
import { LeaseTerms, MAX_ORDER_LEASES, Seconds } from "./eip712.ts";
import { Address, Bytes32, HexBytes } from "./ids.ts";
import { SignedAllowance } from "./job.ts";
import { Amount } from "./money.ts";
import type { TypedDataHasher } from "./typed-data-encoder.ts";

/**
 * What the relayer (workers/relayer) is to land on chain, known by its meaning and not by a transaction hash: asking
 * again for the same thing answers how it stands (DESIGN section 4, research/settlement.md section 4). Wire form:
 * amounts as decimal strings, signatures as hex (a payer's may be any length, for
 * smart wallets).
 */

/** Of a secp256k1 key: 65 bytes `r s v`, or 64 in the compact form of EIP-2098. */
export const KeySignature = HexBytes.refine(
  (hex) => hex.length === 132 || hex.length === 130,
  "a signature of 65 or 64 bytes",
);

/** The two that sign a voucher; the contract takes exactly one pair of the three. */
export const VoucherSignatures = z
  .strictObject({
    consumer: KeySignature.optional(),
    provider: KeySignature.optional(),
    meter: KeySignature.optional(),
  })
  .refine(
    (by) => Object.values(by).filter((signature) => signature !== undefined).length === 2,
    "exactly two signatures",
  );
export type VoucherSignatures = z.infer<typeof VoucherSignatures>;

const terms = LeaseTerms;

/** Opens or tops up leases from one EIP-3009 authorization of `from` over the sum of `amounts`. */
export const FundIntent = z
  .strictObject({
    kind: z.literal("fund"),
    from: Address,
    terms: z.array(terms).min(1).max(MAX_ORDER_LEASES),
    amounts: z.array(Amount).min(1).max(MAX_ORDER_LEASES),
    salt: Bytes32,
    validAfter: Seconds,
    validBefore: Seconds,
    signature: HexBytes,
  })
  .refine((intent) => intent.terms.length === intent.amounts.length, "one amount for each lease");

/** Pays what a newer voucher adds. `allowance` where the consumer did not sign the usage itself. */
export const SettleIntent = z.strictObject({
  kind: z.literal("settle"),
  terms,
  cumulative: Amount,
  evidence: Bytes32,
  signatures: VoucherSignatures,
  allowance: SignedAllowance.optional(),
});

/** Ends the lease at its final usage; the provider is one of the two that signed. */
export const CloseIntent = z.strictObject({
  kind: z.literal("close"),
  terms,
  cumulative: Amount,
  evidence: Bytes32,
  validBefore: Seconds,
  signatures: VoucherSignatures.refine(
    (by) => by.provider !== undefined,
    "a close needs the provider's signature",
  ),
  allowance: SignedAllowance.optional(),
});

/** The payer's or the consumer signer's way out; with the meter's signature the shorter delay holds. */
export const ExitIntent = z.strictObject({
  kind: z.literal("exit"),
  terms,
  signature: HexBytes,
  meterSignature: KeySignature.optional(),
});

/** After the exit's or expiry's delay: the rest goes back to the payer. Needs no signature. */
export const ReclaimIntent = z.strictObject({ kind: z.literal("reclaim"), terms });

/** Pays an account all that it is owed. `occasion` names why (a lease id, a day), so that each pays once. */
export const WithdrawIntent = z.strictObject({
  kind: z.literal("withdraw"),
  account: Address,
  occasion: z.string().regex(/^[A-Za-z0-9_-]{1,80}$/),
});

export const Intent = z.discriminatedUnion("kind", [
  FundIntent,
  SettleIntent,
  CloseIntent,
  ExitIntent,
  ReclaimIntent,
  WithdrawIntent,
]);
export type Intent = z.output<typeof Intent>;
export type IntentKind = Intent["kind"];

/** The name of an intent's meaning: two submissions with one key are one intent. */
export const IntentKey = z
  .string()
  .regex(/^(?:fund|settle|close|exit|reclaim|withdraw):[A-Za-z0-9:_-]{1,160}$/);
export type IntentKey = z.infer<typeof IntentKey>;

/** The lease ids that an intent is about, in its order; none for a withdrawal. */
export function intentLeases(hasher: TypedDataHasher, intent: Intent): Bytes32[] {
  if (intent.kind === "withdraw") return [];
  const all = intent.kind === "fund" ? intent.terms : [intent.terms];
  return all.map((each) => hasher.leaseTerms(each));
}

/** The EIP-3009 nonce that a funding consumes: the hash of its plan. */
export function intentNonce(hasher: TypedDataHasher, intent: z.output<typeof FundIntent>): Bytes32 {
  return hasher.fundingNonce({
    leaseIds: intentLeases(hasher, intent),
    amounts: intent.amounts,
    salt: intent.salt,
  });
}

/**
 * The key of an intent's meaning. An exit that the meter co-signed means more than one without; everything else of a
 * lease means the same whoever signed it.
 */
export function intentKey(hasher: TypedDataHasher, intent: Intent): IntentKey {
  if (intent.kind === "fund") return `fund:${intent.from}:${intentNonce(hasher, intent)}`;
  if (intent.kind === "withdraw") return `withdraw:${intent.account}:${intent.occasion}`;
  const lease = hasher.leaseTerms(intent.terms);
  if (intent.kind === "settle") return `settle:${lease}:${intent.cumulative}`;
  if (intent.kind === "exit" && intent.meterSignature !== undefined) return `exit:${lease}:cosigned`;
  return `${intent.kind}:${lease}`;
}

/** What the chain says came of an intent, by kind. Amounts in base units; times in seconds. */
export const IntentResult = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("fund"),
    leases: z.array(
      z.strictObject({
        leaseId: Bytes32,
        /** All fundings of the lease so far. */
        funded: z.string(),
        openedAt: z.int(),
      }),
    ),
  }),
  z.strictObject({
    kind: z.literal("settle"),
    leaseId: Bytes32,
    /** The settled cumulative after it, fee included. */
    paid: z.string(),
    /** The fee of this settlement alone; null where another's transaction did it. */
    fee: z.string().nullable(),
  }),
  z.strictObject({
    kind: z.literal("close"),
    leaseId: Bytes32,
    paid: z.string(),
    refunded: z.string(),
    fee: z.string().nullable(),
  }),
  z.strictObject({ kind: z.literal("exit"), leaseId: Bytes32, exitAt: z.int() }),
  z.strictObject({ kind: z.literal("reclaim"), leaseId: Bytes32, paid: z.string(), refunded: z.string() }),
  z.strictObject({ kind: z.literal("withdraw"), account: Address, amount: z.string() }),
]);
export type IntentResult = z.infer<typeof IntentResult>;

/** What a transaction cost the relayer, in wei as decimal strings; `l1Fee` as the receipt says, "0" off Optimism. */
export const TransactionCost = z.strictObject({
  gasUsed: z.string(),
  effectiveGasPrice: z.string(),
  l1Fee: z.string(),
  calldataBytes: z.int(),
});
export type TransactionCost = z.infer<typeof TransactionCost>;

/**
 * Why the relayer does not land an intent. Nothing of it is left on chain, and submitting it again (with what was wrong
 * mended) tries again. `intent_invalid`: does not fit the schema; `expired`: its time to land is over;
 * `bad_signature`; `insufficient_balance`: the payer's; `authorization_used`: used or cancelled without this
 * funding; `token_refused`: paused, blacklisted or another reason of the token's; `lease_not_open`, `lease_closed`;
 * `above_due`: a close above funding or caps; `stale`: below what is paid; `too_early`; `nothing_due`: no rise to
 * pay yet; `escrow_refused`: any other rule of the contract, named in `detail`; `relayer_low_balance`: ours, retry
 * later; `reverted`: simulated well but reverted when it landed, repeatedly.
 */
export const IntentRefusalCode = z.enum([
  "intent_invalid",
  "expired",
  "bad_signature",
  "insufficient_balance",
  "authorization_used",
  "token_refused",
  "lease_not_open",
  "lease_closed",
  "above_due",
  "nothing_due",
  "stale",
  "too_early",
  "escrow_refused",
  "relayer_low_balance",
  "reverted",
]);
export type IntentRefusalCode = z.infer<typeof IntentRefusalCode>;

/** It is on chain. `txHash` and `cost` are null where somebody else's transaction did it (`superseded`). */
export const IntentDone = z.strictObject({
  status: z.literal("done"),
  key: IntentKey,
  superseded: z.boolean(),
  txHash: Bytes32.nullable(),
  blockNumber: z.int(),
  /** Seconds. */
  blockTimestamp: z.int(),
  result: IntentResult,
  cost: TransactionCost.nullable(),
});
export type IntentDone = z.infer<typeof IntentDone>;

/** A time-out is `pending`, never a failure: ask again with the same intent or its key. */
export const IntentAnswer = z.discriminatedUnion("status", [
  IntentDone,
  z.strictObject({
    status: z.literal("rejected"),
    key: IntentKey.nullable(),
    code: IntentRefusalCode,
    detail: z.string(),
  }),
  z.strictObject({ status: z.literal("pending"), key: IntentKey, txHash: Bytes32.nullable() }),
]);
export type IntentAnswer = z.infer<typeof IntentAnswer>;

/** A transaction that the relayer paid for, also one that reverted. */
export const RelayedTransaction = z.strictObject({
  hash: Bytes32,
  key: IntentKey,
  kind: z.enum(["fund", "settle", "close", "exit", "reclaim", "withdraw"]),
  from: Address,
  succeeded: z.boolean(),
  blockNumber: z.int(),
  blockTimestamp: z.int(),
  cost: TransactionCost,
});
export type RelayedTransaction = z.infer<typeof RelayedTransaction>;

export const RelayerInfo = z.strictObject({
  /** The gas-paying addresses. */
  addresses: z.array(Address),
  chainId: z.int(),
  escrow: Address,
});
export type RelayerInfo = z.infer<typeof RelayerInfo>;

/** The RPC of `workers/relayer`'s entrypoint `Relayer`. */
export interface RelayerRpc {
  info(): Promise<RelayerInfo>;
  /** Idempotent by meaning; waits up to about two seconds for inclusion, then answers `pending`. */
  submit(intent: z.input<typeof Intent>): Promise<IntentAnswer>;
  /** `null` when no such intent was submitted. */
  status(key: IntentKey): Promise<IntentAnswer | null>;
  /** Transactions included since block `since`, oldest first; at most 1,000. */
  transactions(since?: number): Promise<RelayedTransaction[]>;
}
