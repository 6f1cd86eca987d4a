import { z } from "zod";
import { LeaseTerms } from "./eip712.ts";
import { AutoTopUp, LeaseFunding } from "./funding.ts";
import { Address, Bytes32, HexBytes, LeaseId, OrderId } from "./ids.ts";
import { SignedReceipt } from "./job.ts";
import { Amount } from "./money.ts";
import { Demand, Feature, Gpu, Isolation, ModelName, Resources, Tier } from "./resources.ts";

export { FundingAuthorization, fundingTimeFault } from "./funding.ts";

/**
 * `suspended`: a reorganisation took its funding back, which is being landed again. `lost`: the node stayed away beyond
 * its grace; `expired`: the terms ran out or the funding never landed.
 */
export const LeaseStatus = z.enum([
  "quoted",
  "funding",
  "active",
  "suspended",
  "draining",
  "closing",
  "closed",
  "expired",
  "lost",
]);
export type LeaseStatus = z.infer<typeof LeaseStatus>;

/** Every end has a reason; `fault` of an end says whose doing it was. */
export const LeaseEnd = z.strictObject({
  reason: z.enum([
    "closed_by_consumer",
    "quote_lapsed",
    "insufficient_funds",
    "insufficient_credit",
    "funding_failed",
    "terms_expired",
    "node_lost",
    "node_refused",
    "node_drained",
    "funds_spent",
    "yielded",
  ]),
  fault: z.enum(["tenant", "provider", "platform", "chain"]),
  detail: z.string().optional(),
});
export type LeaseEnd = z.infer<typeof LeaseEnd>;

export const LeaseMode = z.enum(["serverless", "dedicated"]);
export type LeaseMode = z.infer<typeof LeaseMode>;

/** How long a serverless lease keeps its GPUs after its last job, unless its quote says otherwise; seconds. */
export const KEEP_WARM_S = 300;

const KeepWarm = z.int().min(0).max(3_600);

/** Seconds. */
const Duration = z.int().min(300).max(86_400);

/** A lease winds up so long before its end, that its close can land; seconds. */
export const WIND_UP_S = 120;

/** What a quote and each part of an order say of the lease that is wanted. */
export const WantedLease = {
  demand: Demand.prefault({}),
  /** Whose money; the principal when left out. */
  payer: Address.optional(),
  /** The key that signs allowances; the principal when left out. It must be an externally owned account. */
  consumer_signer: Address.optional(),
  /** How long the lease may last. */
  duration_s: Duration.default(3_600),
  /** By how much its end may be moved later (`POST /v1/leases/{id}/extend`): the terms run so much longer. */
  extendable_s: z.int().min(0).max(86_400).default(0),
  /** `dedicated`: reserved, billed by the wall clock; `serverless`: billed while a job runs. */
  mode: LeaseMode.default("serverless"),
  /** What the caller means to put in; the quote suggests an amount when it is left out. */
  amount: Amount.optional(),
  /**
   * After its last job a serverless lease keeps the node's GPUs so long, unbilled; then others may have them, and its
   * next job waits until the node has them free again.
   */
  keep_warm_s: KeepWarm.default(KEEP_WARM_S),
};

/** The body of `POST /v1/quotes`. */
export const QuoteRequest = z.strictObject({
  ...WantedLease,
  /** `false`: the price alone, free; nothing is held. */
  firm: z.boolean().default(true),
});
export type QuoteRequest = z.output<typeof QuoteRequest>;

/** What exactly was offered: the preimage of `terms.quote` (keccak256 of its canonical JSON). */
export const QuoteText = z.strictObject({
  node: Address,
  gpus: z.array(Gpu),
  resources: Resources,
  prices: z.strictObject({ gpu_hour: z.string(), core_hour: z.string(), gb_hour: z.string() }),
  /** Base units that are charged once, with the first time that is billed (protocol/tariff.ts); left out: none. */
  start_price: z
    .string()
    .regex(/^[1-9][0-9]{0,26}$/, "a decimal string of token base units above zero")
    .optional(),
  /** `yieldable`: cheaper, and the owner or a firm demand may take the GPU back. */
  tier: Tier,
  /** `dedicated`: resources reserved, billed by the wall clock; `serverless`: billed while a job runs. */
  mode: LeaseMode,
  region: z.string(),
  /** What is promised beside the sizes: of features, models and whether it is verified what was asked for. */
  isolation: Isolation.optional(),
  features: z.array(Feature).max(16).optional(),
  models: z.array(ModelName).max(16).optional(),
  verified: z.literal(true).optional(),
  /** Of a dedicated lease: its time is counted and co-signed so often, in seconds. */
  tick_s: z.int(),
  /** As asked; {@link KEEP_WARM_S} in a text of before it could be. No default: the text's hash stands in the terms. */
  keep_warm_s: KeepWarm.optional(),
  /** The end that was agreed lies so long before the terms' expiry, and may be moved that far; seconds, none: 0. */
  extendable_s: z.int().min(0).max(86_400).optional(),
  /** Jobs side by side; as many as it has GPUs where the text does not say. */
  concurrency: z.int().min(1).max(4_096).optional(),
  salt: Bytes32,
});
export type QuoteText = z.infer<typeof QuoteText>;

/** Chain facts that a signer needs, as in /.well-known/gpux. */
export const Settlement = z.object({
  chain_id: z.int(),
  escrow: Address,
  token: Address,
  token_name: z.string(),
  token_version: z.string(),
});
export type Settlement = z.infer<typeof Settlement>;

/** A firm quote: the agent confirmed the hold. Sign its terms by funding them (`POST /v1/leases`) before `expires_at`. */
export const Quote = z.object({
  id: z.string().regex(/^qte_[a-z2-7]{32}$/),
  object: z.literal("quote"),
  firm: z.literal(true).default(true),
  lease_id: LeaseId,
  /** The on-chain lease id: the EIP-712 digest of `terms`. */
  lease_hash: Bytes32,
  terms: LeaseTerms,
  text: QuoteText,
  /** A challenge has shown that the node has these GPUs; the edge's word of this moment, which nobody signs. */
  verified: z.boolean().default(false),
  amount: Amount,
  expires_at: z.iso.datetime(),
  settlement: Settlement,
});
export type Quote = z.output<typeof Quote>;

/** What it would cost now, by what the market lists: nobody was asked, nothing is held, nothing can be signed. */
export const IndicativeQuote = z.object({
  object: z.literal("indicative_quote"),
  firm: z.literal(false),
  node: Address,
  gpus: z.array(Gpu),
  resources: Resources,
  region: z.string(),
  verified: z.boolean().default(false),
  mode: LeaseMode,
  rate_per_hour: Amount,
  /** What the start of the lease would cost beside it, once. */
  start_price: Amount.prefault("0"),
  /** What a firm quote would suggest to put in. */
  amount: Amount,
});
export type IndicativeQuote = z.output<typeof IndicativeQuote>;

/** The body of `POST /v1/leases`. */
export const LeaseRequest = z.strictObject({ lease: LeaseId, funding: LeaseFunding });
export type LeaseRequest = z.output<typeof LeaseRequest>;

/** The body of `POST /v1/leases/{id}/topup`. */
export const TopUpRequest = z.union([
  z.strictObject({ funding: LeaseFunding }),
  /** Instead of what was left with the lease before; null: nothing any more. */
  z.strictObject({ auto_top_up: AutoTopUp.nullable() }),
]);
export type TopUpRequest = z.output<typeof TopUpRequest>;

/**
 * The body of `POST /v1/leases/{id}/extend`: by so much the end lies behind the one of the quote, in all; what is less
 * than before changes nothing, so that a repeated request does not extend twice. With a funding as of a top-up.
 */
export const ExtendRequest = z.strictObject({
  extended_s: z.int().min(1).max(86_400),
  funding: LeaseFunding.optional(),
});
export type ExtendRequest = z.output<typeof ExtendRequest>;

/** One transaction that touched a lease, for timelines and reports. */
export const LeaseTransaction = z.object({
  kind: z.enum(["fund", "allocate", "settle", "close", "withdraw"]),
  hash: Bytes32,
  gas: z.string(),
  calldata_bytes: z.int(),
  l1_fee: z.string(),
});

/** Billed time of a dedicated lease, with the receipt that it is in the evidence by. */
export const TickView = z.object({
  /** The receipt's sequence. */
  id: z.string(),
  object: z.literal("tick"),
  from: z.iso.datetime(),
  to: z.iso.datetime(),
  /** What the node was away for is not billed; of two clocks the slower counts, and makes up for it in the next. */
  served_ms: z.int(),
  price: Amount,
  /** Signatures and proof are null until a voucher covers it. */
  receipt: SignedReceipt,
});
export type TickView = z.output<typeof TickView>;

/** A lease as the API shows it. */
export const LeaseView = z.object({
  id: LeaseId,
  object: z.literal("lease"),
  lease_hash: Bytes32,
  status: LeaseStatus,
  terms: LeaseTerms,
  text: QuoteText,
  node: Address,
  node_connected: z.boolean(),
  /** The node keeps the lease's GPUs for it. If not, the next job waits in `queued` until the node has them free. */
  warm: z.boolean(),
  funded: Amount,
  /** Whose rest returns to the credit that opened it, and not to its payer. */
  from_credit: z.boolean().optional(),
  /** What was used so far. */
  spent: Amount,
  /** `spent` plus the max_price of jobs that have not ended. */
  committed: Amount,
  /** The consumer's ceiling so far. */
  allowance: Amount,
  billed_ms: z.int(),
  jobs_ended: z.int(),
  jobs_open: z.int(),
  voucher: z
    .strictObject({
      cumulative: Amount,
      evidence: Bytes32,
      provider_signature: HexBytes,
      meter_signature: HexBytes.nullable(),
    })
    .optional(),
  /** Money on its way to it, and what could not land; a top-up that has landed is in `funded`. */
  top_ups: z
    .array(
      z.object({
        /** What it adds; of one from credit, to what the lease has now. */
        amount: Amount,
        /** From a wallet: its authorization's. */
        salt: Bytes32.optional(),
        /** From credit: what the lease has once it has landed. */
        funded_to: Amount.optional(),
        status: z.enum(["landing", "refused"]),
        reason: z.enum(["insufficient_funds", "insufficient_credit", "funding_failed"]).optional(),
        detail: z.string().optional(),
      }),
    )
    .optional(),
  /** Signed raises that it lands by itself when less than `below` is left. */
  auto_top_up: z.object({ below: Amount, targets: z.array(Amount) }).optional(),
  transactions: z.array(LeaseTransaction),
  end: LeaseEnd.optional(),
  /** Of one that was opened with others by one signature. */
  order_id: OrderId.optional(),
  opened_at: z.iso.datetime().optional(),
  /** Its end; it takes no more work two minutes before. */
  ends_at: z.iso.datetime().optional(),
  /** How far the end can still be moved, in seconds. */
  extendable_s: z.int().optional(),
  created_at: z.iso.datetime(),
});
export type LeaseView = z.output<typeof LeaseView>;

/** A node as `GET /v1/nodes` shows it; prices as an offer. */
export const NodeView = z.object({
  id: Address,
  object: z.literal("node"),
  status: z.enum(["offline", "online", "draining", "quarantined"]),
  provider: Address,
  gpus: z.array(Gpu),
  gpus_free: z.int(),
  cpu: z.int(),
  memory_gb: z.int(),
  region: z.string(),
  prices: z.object({ gpu_hour: Amount, core_hour: Amount, gb_hour: Amount }),
  /** In the yieldable tier; null: not sold there. */
  yieldable: z.object({ gpu_hour: Amount, core_hour: Amount, gb_hour: Amount }).nullable().optional(),
  /** What the start of a lease costs there, once. */
  start_price: Amount.optional(),
  gpus_per_lease: z.int().optional(),
  duration_s: z.object({ min: z.int(), max: z.int() }).optional(),
  features: z.array(z.string()).optional(),
  isolation: z.string().optional(),
  models: z.array(z.string()).optional(),
  /** Share of the observed time of the last seven days that it was there, 0 to 1; null before anything was observed. */
  reliability: z.number().nullable().optional(),
  /** Seconds that `reliability` is a share of. */
  observed_s: z.int().optional(),
  /** What prices are weighed by, 0 to 1 (docs/matching.md). */
  score: z.number().optional(),
  /** A challenge of the last seven days has shown that it has the GPUs that it says. */
  verified: z.boolean().optional(),
  /** What the last challenge has shown (docs/matching.md); null before there was one. */
  challenge: z.object({ result: z.string(), gops: z.number(), at: z.iso.datetime() }).nullable().optional(),
  /** Of one node: demands of the last hour that nothing met, by the conditions that this node failed. */
  skipped: z.record(z.string(), z.int()).optional(),
  agent_version: z.string(),
  last_seen: z.iso.datetime(),
});
export type NodeView = z.output<typeof NodeView>;
