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
 * How far an outcome is from being taken back: `included` in a block; `confirmed` under as many blocks as the relayer's
 * policy asks; `safe` (its data is on L1); `finalized` (L1 is). Before `finalized` a reorganisation can undo it; then
 * the intent is `pending` again until it has landed anew.
 */
export const Confirmation = z.enum(["included", "confirmed", "safe", "finalized"]);
export type Confirmation = z.infer<typeof Confirmation>;

/**
 * Why the relayer does not land an intent. Nothing of it is left on chain, and submitting it again (with what was wrong
 * mended) tries again. `intent_invalid`: does not fit the schema; `expired`: its time to land is over;
 * `bad_signature`; `insufficient_balance`: the payer's; `authorization_used`: used or cancelled without this
 * funding; `token_refused`: paused, blacklisted or another reason of the token's; `lease_not_open`, `lease_closed`;
 * `above_due`: a close above funding or caps; `stale`: below what is paid; `too_early`; `nothing_due`: no rise to
 * pay yet; `escrow_refused`: any other rule of the contract, named in `detail`; `relayer_low_balance`: ours, retry
 * later; `reverted`: simulated well but reverted when it landed, repeatedly; `over_budget`: costs more than the policy
 * pays for what it moves; `rate_limited`, `daily_cap`: the account's, for intents brought by anybody;
 * `wallet_not_deployed`: a signature of a smart wallet that has no code yet (ERC-6492).
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
  "over_budget",
  "rate_limited",
  "daily_cap",
  "wallet_not_deployed",
]);
export type IntentRefusalCode = z.infer<typeof IntentRefusalCode>;

/** What the caller can do about a refusal. */
export const intentHints: Readonly<Record<IntentRefusalCode, string>> = {
  intent_invalid: "Compare the body with the schema of the intent; amounts are decimal strings.",
  expired: "Sign it again with a later validBefore, or open a lease that has not expired.",
  bad_signature: "Sign the typed data of this chain and escrow with the key that the terms name.",
  insufficient_balance: "The payer needs as much USDC (not USDC.e) as it signed for.",
  authorization_used: "This authorization is used or cancelled; sign another with a fresh salt.",
  token_refused:
    "USDC itself refused, as when it is paused or an account is blocked; it can only be tried later.",
  lease_not_open: "Fund the lease first.",
  lease_closed: "The lease has ended; withdraw what is owed.",
  above_due: "A close may not exceed the funding and caps; sign a lower amount or top up first.",
  nothing_due: "Nothing more is due now; try again when more has been used.",
  stale: "A newer voucher is settled already; sign at least what is paid.",
  too_early: "Its time has not come; the detail says from when on.",
  escrow_refused: "The escrow's rule is in the detail.",
  relayer_low_balance:
    "The relayer is short of gas money; try later, or land it by yourself with gpux rescue.",
  reverted: "The chain kept changing under it; look at the detail and submit it again.",
  over_budget:
    "Gas is dear for what this moves; wait, move more at once, or land it by yourself with gpux rescue.",
  rate_limited: "Wait a minute.",
  daily_cap:
    "The account's gas of today is used up; go on tomorrow, or land it by yourself with gpux rescue.",
  wallet_not_deployed: "Deploy the smart wallet first, then submit its inner signature.",
};

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

/** A transaction that the relayer paid for, also one that reverted or only filled or freed a nonce. */
export const RelayedTransaction = z.strictObject({
  hash: Bytes32,
  nonce: z.int(),
  /** What it was sent for, in the order of its calls; none when it filled a gap. */
  intents: z.array(IntentKey),
  purpose: z.enum(["call", "cancel"]),
  from: Address,
  succeeded: z.boolean(),
  blockNumber: z.int(),
  blockTimestamp: z.int(),
  confirmation: Confirmation,
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

/** `degraded` still lands intents, `down` does not. Reasons are codes with an address or endpoint number behind them. */
export const RelayerHealth = z.strictObject({
  status: z.enum(["ok", "degraded", "down"]),
  reasons: z.array(z.string()),
});
export type RelayerHealth = z.infer<typeof RelayerHealth>;

/** The RPC of `workers/relayer`'s entrypoint `Relayer`. */
export interface RelayerRpc {
  info(): Promise<RelayerInfo>;
  /** Idempotent by meaning; waits up to about two seconds for inclusion, then answers `pending`. */
  submit(intent: z.input<typeof Intent>): Promise<IntentAnswer>;
  /**
   * As `submit`, for an intent that anybody brings: the account (the payer, or whom a withdrawal pays) has a rate and a
   * daily amount of gas.
   */
  relay(intent: unknown): Promise<IntentAnswer>;
  /**
   * Keeps a voucher and lands it once enough is unsettled, the payer asks to exit, or expiry is near; `pending` until
   * then. A higher voucher of the lease takes its place. `submit` of the same voucher lands it at once.
   */
  hold(voucher: z.input<typeof SettleIntent>): Promise<IntentAnswer>;
  /** `null` when no such intent was submitted. */
  status(key: IntentKey): Promise<IntentAnswer | null>;
  /** Transactions included since block `since`, oldest first; at most 1,000. */
  transactions(since?: number): Promise<RelayedTransaction[]>;
  health(): Promise<RelayerHealth>;
  /** Prometheus text. */
  metrics(): Promise<string>;
}
