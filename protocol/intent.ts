import { z } from "zod";
import { ConsumerSignature } from "./consumer-signature.ts";
import { LeaseTerms, MAX_ORDER_LEASES, Seconds } from "./eip712.ts";
import { Address, Bytes32, HexBytes } from "./ids.ts";
import { Confirmation, type IntentAnswer, IntentKey, TransactionCost } from "./intent-answer.ts";
import { SignedAllowance } from "./job.ts";
import { Amount } from "./money.ts";
import type { TypedDataHasher } from "./typed-data-encoder.ts";

export {
  Confirmation,
  INTENT_KINDS,
  IntentAnswer,
  IntentDone,
  IntentKey,
  IntentResult,
  TransactionCost,
} from "./intent-answer.ts";
export { IntentRefusalCode, intentHints } from "./intent-refusals.ts";

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
    consumer: ConsumerSignature.optional(),
    provider: KeySignature.optional(),
    meter: KeySignature.optional(),
  })
  .refine(
    (by) => Object.values(by).filter((signature) => signature !== undefined).length === 2,
    "exactly two signatures",
  );
export type VoucherSignatures = z.infer<typeof VoucherSignatures>;

const terms = LeaseTerms;

const credit = { payer: Address, spender: Address, meter: Address };

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

/** Money of `from` into its credit for a spender and a meter, by one EIP-3009 authorization. */
export const DepositIntent = z.strictObject({
  kind: z.literal("deposit"),
  from: Address,
  spender: Address,
  meter: Address,
  amount: Amount,
  salt: Bytes32,
  validAfter: Seconds,
  validBefore: Seconds,
  signature: HexBytes,
});

/** Opens or tops up leases of one credit to the targets that spender (`signature`) and meter signed. */
export const AllocateIntent = z
  .strictObject({
    kind: z.literal("allocate"),
    terms: z.array(terms).min(1).max(MAX_ORDER_LEASES),
    fundedTo: z.array(Amount).min(1).max(MAX_ORDER_LEASES),
    validBefore: Seconds,
    signature: ConsumerSignature,
    meterSignature: KeySignature,
  })
  .refine((intent) => intent.terms.length === intent.fundedTo.length, "one target for each lease");

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

/**
 * A credit back to its payer, signed by payer or spender; at once with the meter's signature, else it may be reclaimed
 * after the contract's delay.
 */
export const ReleaseIntent = z.strictObject({
  kind: z.literal("release"),
  ...credit,
  validBefore: Seconds,
  signature: HexBytes,
  meterSignature: KeySignature.optional(),
});

/** Completes the release that was due at `releaseAt` (its result says when). Needs no signature. */
export const ReclaimCreditIntent = z.strictObject({
  kind: z.literal("reclaim_credit"),
  ...credit,
  releaseAt: Seconds.min(1),
});

/** The meter resigns for good, by its own signature. */
export const RevokeMeterIntent = z.strictObject({
  kind: z.literal("revoke_meter"),
  meter: Address,
  signature: KeySignature,
});

/**
 * Pays an account all that it is owed. `occasion` names why (a lease, a day), so that each pays once; those that begin
 * with `lse_` are the market's own.
 */
export const WithdrawIntent = z.strictObject({
  kind: z.literal("withdraw"),
  account: Address,
  occasion: z.string().regex(/^[A-Za-z0-9_-]{1,80}$/),
});

export const Intent = z.discriminatedUnion("kind", [
  FundIntent,
  DepositIntent,
  AllocateIntent,
  SettleIntent,
  CloseIntent,
  ExitIntent,
  ReclaimIntent,
  ReleaseIntent,
  ReclaimCreditIntent,
  RevokeMeterIntent,
  WithdrawIntent,
]);
export type Intent = z.output<typeof Intent>;
export type IntentKind = Intent["kind"];

/** The lease ids that an intent is about, in its order; none for credit, revocations and withdrawals. */
export function intentLeases(hasher: TypedDataHasher, intent: Intent): Bytes32[] {
  switch (intent.kind) {
    case "fund":
    case "allocate":
      return intent.terms.map((each) => hasher.leaseTerms(each));
    case "settle":
    case "close":
    case "exit":
    case "reclaim":
      return [hasher.leaseTerms(intent.terms)];
    case "deposit":
    case "release":
    case "reclaim_credit":
    case "revoke_meter":
    case "withdraw":
      return [];
  }
}

/** The EIP-3009 nonce that a funding or deposit consumes: the hash of its plan. */
export function intentNonce(
  hasher: TypedDataHasher,
  intent: z.output<typeof FundIntent> | z.output<typeof DepositIntent>,
): Bytes32 {
  if (intent.kind === "deposit") {
    const { from: payer, spender, meter, amount, salt } = intent;
    return hasher.depositNonce({ payer, spender, meter, amount, salt });
  }
  return hasher.fundingNonce({
    leaseIds: intentLeases(hasher, intent),
    amounts: intent.amounts,
    salt: intent.salt,
  });
}

/** The EIP-712 digest that payer or spender signed; the contract remembers it as used. */
export function releaseDigest(hasher: TypedDataHasher, intent: z.output<typeof ReleaseIntent>): Bytes32 {
  const { payer, spender, meter, validBefore } = intent;
  return hasher.release({ payer, spender, meter, validBefore });
}

/**
 * How far the consumer stands behind a voucher. One without its word pays no more than what is unattended, so it must
 * not pass for one with it: else whoever lands it first, with the allowance left out, would stop the rest.
 */
function consent({ cumulative, signatures, allowance }: z.output<typeof SettleIntent>): string {
  if (signatures.consumer !== undefined) return ":allowed";
  if (allowance === undefined) return "";
  return allowance.cumulative >= cumulative ? ":allowed" : `:allowed:${allowance.cumulative}`;
}

/**
 * The key of an intent's meaning. An exit or release that the meter co-signed means more than one without, and so does
 * usage with the consumer's word; everything else means the same whoever signed it, and until when. A release serves
 * once, so its time is part of what it means.
 */
export function intentKey(hasher: TypedDataHasher, intent: Intent): IntentKey {
  switch (intent.kind) {
    case "fund":
    case "deposit":
      return `${intent.kind}:${intent.from}:${intentNonce(hasher, intent)}`;
    case "allocate": {
      // The text without its time: the same targets signed again are the same wish.
      const leaseIds = intentLeases(hasher, intent);
      return `allocate:${hasher.allocate({ leaseIds, fundedTo: intent.fundedTo, validBefore: 0 })}`;
    }
    case "settle":
      return `settle:${hasher.leaseTerms(intent.terms)}:${intent.cumulative}${consent(intent)}`;
    case "exit":
      return `exit:${hasher.leaseTerms(intent.terms)}${intent.meterSignature === undefined ? "" : ":cosigned"}`;
    case "close":
    case "reclaim":
      return `${intent.kind}:${hasher.leaseTerms(intent.terms)}`;
    case "release":
      return `release:${releaseDigest(hasher, intent)}${intent.meterSignature === undefined ? "" : ":cosigned"}`;
    case "reclaim_credit":
      return `reclaim_credit:${intent.payer}:${intent.spender}:${intent.meter}:${intent.releaseAt}`;
    case "revoke_meter":
      return `revoke_meter:${intent.meter}`;
    case "withdraw":
      return `withdraw:${intent.account}:${intent.occasion}`;
  }
}

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
   * daily amount of gas. What is refused at once, or done already by others, is not kept: `status` does not know it.
   * `waitMs`: up to a minute for its inclusion; about two seconds when left out.
   */
  relay(intent: unknown, waitMs?: number): Promise<IntentAnswer>;
  /**
   * Keeps a voucher and lands it once enough is unsettled, the payer asks to exit, or expiry is near; `pending` until
   * then. A higher voucher of the lease takes its place. `submit` of the same voucher lands it at once.
   */
  hold(voucher: z.input<typeof SettleIntent>): Promise<IntentAnswer>;
  /** `null` when no such intent is kept; one that is pending is waited for up to `waitMs`, at most a minute. */
  status(key: IntentKey, waitMs?: number): Promise<IntentAnswer | null>;
  /** Transactions included since block `since`, oldest first; at most 1,000. */
  transactions(since?: number): Promise<RelayedTransaction[]>;
  health(): Promise<RelayerHealth>;
  /** Prometheus text. */
  metrics(): Promise<string>;
}
