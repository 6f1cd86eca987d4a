import { z } from "zod";
import { Address, Bytes32 } from "./ids.ts";
import { IntentRefusalCode } from "./intent-refusals.ts";

/** How an intent stands, as the relayer says it. Amounts in base units as decimal strings, times in seconds. */

export const INTENT_KINDS = [
  "fund",
  "deposit",
  "allocate",
  "settle",
  "close",
  "exit",
  "reclaim",
  "release",
  "reclaim_credit",
  "revoke_meter",
  "withdraw",
] as const;

/** The name of an intent's meaning: two submissions with one key are one intent. */
export const IntentKey = z
  .string()
  .regex(new RegExp(`^(?:${INTENT_KINDS.join("|")}):[A-Za-z0-9:_-]{1,200}$`), "an intent's key");
export type IntentKey = z.infer<typeof IntentKey>;

const fundedLeases = z.array(
  z.strictObject({
    leaseId: Bytes32,
    /** All fundings of the lease so far. */
    funded: z.string(),
    openedAt: z.int(),
  }),
);
/** A payer's money for one spender and one meter. */
const credit = { payer: Address, spender: Address, meter: Address };

/** What the chain says came of an intent, by kind. */
export const IntentResult = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("fund"), leases: fundedLeases }),
  z.strictObject({ kind: z.literal("deposit"), ...credit, amount: z.string() }),
  z.strictObject({
    kind: z.literal("allocate"),
    leases: fundedLeases,
    /** What left the credit for it; null where another's transaction did it. */
    amount: z.string().nullable(),
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
  z.strictObject({
    kind: z.literal("release"),
    ...credit,
    /** From when on `reclaim_credit` completes it; null: it was complete at once. */
    releaseAt: z.int().nullable(),
    /** What went back; null while the delay runs, or where another's transaction did it. */
    amount: z.string().nullable(),
  }),
  z.strictObject({
    kind: z.literal("reclaim_credit"),
    ...credit,
    /** What went back; null where another's transaction did it. */
    amount: z.string().nullable(),
  }),
  z.strictObject({ kind: z.literal("revoke_meter"), meter: Address, revokedAt: z.int() }),
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
 * How far an outcome is from being taken back: `included` in a block; `confirmed` under as many blocks as the relayer's
 * policy asks; `safe` (its data is on L1); `finalized` (L1 is). Before `finalized` a reorganisation can undo it; then
 * the intent is `pending` again until it has landed anew.
 */
export const Confirmation = z.enum(["included", "confirmed", "safe", "finalized"]);
export type Confirmation = z.infer<typeof Confirmation>;

/** It is on chain. `txHash` and `cost` are null where somebody else's transaction did it (`superseded`). */
export const IntentDone = z.strictObject({
  status: z.literal("done"),
  key: IntentKey,
  superseded: z.boolean(),
  txHash: Bytes32.nullable(),
  blockNumber: z.int(),
  blockHash: Bytes32,
  /** Seconds. */
  blockTimestamp: z.int(),
  result: IntentResult,
  /** Its share of the transaction, which may have carried others as well; the shares add up to the wei. */
  cost: TransactionCost.nullable(),
  confirmation: Confirmation,
  /** Whether that is as hard as the relayer's policy asks for the amount. */
  enough: z.boolean(),
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
