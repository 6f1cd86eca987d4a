import { canonicalJson } from "@gpux/protocol/canonical";
import { verifiedGpus } from "@gpux/protocol/challenge/verdict";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { Address, Bytes32, LeaseId } from "@gpux/protocol/ids";
import { base32, leaseIdOf } from "@gpux/protocol/ids";
import type { IndicativeQuote, LeaseMode, Quote, QuoteRequest, QuoteText } from "@gpux/protocol/lease";
import { affordedMs, MAX_AMOUNT } from "@gpux/protocol/money";
import { type Demand, type Gpu, type Offer, pricesIn, ratePerHour } from "@gpux/protocol/resources";
import { upfrontOf } from "@gpux/protocol/tariff";
import { hexToBytes, keccak256, stringToBytes } from "viem/utils";
import type { EdgeConfig } from "../config.ts";
import type { BookEntry, HoldRequest } from "../interfaces.ts";

/** What a lease is to be, whether it is asked for alone or in an order. */
export type Wanted = Omit<QuoteRequest, "firm">;

/** How long the agent's hold stands. */
export const QUOTE_MS = 30_000;
/** What a tick of a dedicated lease is worth, in base units: as much as either side may have at stake (MTR-10). */
const TICK_VALUE = 50_000n;
/** Seconds; the bounds of a tick that is worth so much, and of a serverless lease, which has none. */
const TICK_S = { least: 15, most: 300, serverless: 60 };
const DEFAULT_MINUTES = 15n;

export interface Draft {
  readonly hold: HoldRequest;
  readonly leaseHash: Bytes32;
  /** A challenge vouches for all of its GPUs. */
  readonly verified: boolean;
}

/**
 * The terms that would buy `entry`'s offer for this request, their text and their id; nothing is held yet. `salt` is
 * random, so that two drafts never share an id. `now` in milliseconds. `cards`: those that nobody has; `null` when too
 * few of them meet every condition at once (a Book looks at the conditions one by one).
 */
export function draftQuote(
  config: Pick<EdgeConfig, "hasher" | "meter" | "feeRecipient" | "feeBps">,
  by: Address,
  request: Wanted,
  { entry, cards }: { readonly entry: BookEntry; readonly cards: readonly Gpu[] },
  salt: Bytes32,
  now: number,
): Draft | null {
  const { offer } = entry;
  const { resources, tier } = request.demand;
  const gpus = gpusFor(cards, request.demand);
  const prices = pricesIn(offer, tier);
  if (prices === null || gpus.length < resources.gpus) return null;
  const rate = ratePerHour(prices, resources);
  const text: QuoteText = {
    node: entry.node,
    gpus,
    resources,
    prices: {
      gpu_hour: prices.gpu_hour.toString(),
      core_hour: prices.core_hour.toString(),
      gb_hour: prices.gb_hour.toString(),
    },
    ...(offer.start_price === 0n ? {} : { start_price: offer.start_price.toString() }),
    tier,
    mode: request.mode,
    region: offer.region,
    isolation: offer.isolation,
    ...(request.demand.features === undefined ? {} : { features: request.demand.features }),
    ...(request.demand.model === undefined ? {} : { models: [request.demand.model] }),
    ...(request.demand.verified === true ? { verified: true } : {}),
    tick_s: tickOf(request.mode, rate),
    keep_warm_s: request.keep_warm_s,
    ...(request.mode === "dedicated" ? { concurrency: sideBySide(offer, resources.gpus) } : {}),
    ...(request.extendable_s === 0 ? {} : { extendable_s: request.extendable_s }),
    salt,
  };
  const terms: LeaseTerms = {
    payer: request.payer ?? by,
    consumerSigner: request.consumer_signer ?? by,
    provider: entry.provider,
    providerSigner: entry.node,
    meter: config.meter,
    feeRecipient: config.feeRecipient,
    feeBps: config.feeBps,
    upfront: upfrontOf(rate, offer.start_price),
    // Serverless: every unit of spending needs the consumer's allowance. Dedicated: the clock alone makes it owed.
    unattended: request.mode === "dedicated" ? MAX_AMOUNT : 0n,
    ratePerHour: rate,
    expiry: Math.floor(now / 1000) + request.duration_s + request.extendable_s,
    quote: keccak256(stringToBytes(canonicalJson(text))),
  };
  const leaseHash = config.hasher.leaseTerms(terms);
  const lease: LeaseId = leaseIdOf(leaseHash);
  const verified = verifiedGpus(entry.challenge, now) >= resources.gpus;
  return { hold: { lease, terms, text, expiresAt: now + QUOTE_MS }, leaseHash, verified };
}

/** The dearer the lease, the more often its time is counted. */
function tickOf(mode: LeaseMode, ratePerHour: bigint): number {
  if (mode === "serverless") return TICK_S.serverless;
  const seconds = affordedMs(ratePerHour, TICK_VALUE) / 1_000;
  return Math.ceil(Math.min(TICK_S.most, Math.max(TICK_S.least, seconds)));
}

/**
 * LSE-16: of the jobs that the machine runs at once, the share of a lease that has so many of its GPUs. Only where jobs
 * are free: of a serverless lease each pays its GPU's share of the rate, so that is how many there are.
 */
function sideBySide({ concurrency, gpus: all }: Offer, gpus: number): number {
  return Math.max(gpus, Math.floor((concurrency * gpus) / all.length));
}

/** Those of the cards that the demand asks for, as many as it needs. */
function gpusFor(cards: readonly Gpu[], demand: Demand): Gpu[] {
  return cards
    .filter(
      (gpu) =>
        (demand.gpu_model === undefined || gpu.model === demand.gpu_model) &&
        gpu.vram_mb >= (demand.min_vram_mb ?? 0),
    )
    .slice(0, demand.resources.gpus);
}

/** What to put in: what the caller said, else start and 15 minutes, or all of a dedicated lease. Never nothing. */
export function amountOf(
  request: { readonly amount?: bigint | undefined; readonly mode: LeaseMode; readonly duration_s: number },
  { ratePerHour, startPrice }: { readonly ratePerHour: bigint; readonly startPrice: bigint },
): bigint {
  const whole = (ratePerHour * BigInt(request.duration_s) + 3_599n) / 3_600n;
  const usual = request.mode === "dedicated" ? whole : (ratePerHour * DEFAULT_MINUTES) / 60n;
  const amount = request.amount ?? startPrice + usual;
  return amount > 0n ? amount : 1n;
}

/** QTE-2: what the entry's offer would cost as it is listed. `null` as for {@link draftQuote}. */
export function indicativeQuote(
  request: Wanted,
  { node, offer, challenge }: BookEntry,
  now: number,
): IndicativeQuote | null {
  const { resources, tier } = request.demand;
  const gpus = gpusFor(offer.gpus, request.demand);
  const prices = pricesIn(offer, tier);
  if (prices === null || gpus.length < resources.gpus) return null;
  const rate = ratePerHour(prices, resources);
  return {
    object: "indicative_quote",
    firm: false,
    node,
    gpus,
    resources,
    region: offer.region,
    verified: verifiedGpus(challenge, now) >= resources.gpus,
    mode: request.mode,
    rate_per_hour: rate,
    start_price: offer.start_price,
    amount: amountOf(request, { ratePerHour: rate, startPrice: offer.start_price }),
  };
}

export function quoteOf(config: Pick<EdgeConfig, "settlement">, draft: Draft, amount: bigint): Quote {
  const { lease, terms, text, expiresAt } = draft.hold;
  return {
    id: `qte_${base32(hexToBytes(terms.quote).subarray(0, 20))}`,
    object: "quote",
    firm: true,
    lease_id: lease,
    lease_hash: draft.leaseHash,
    terms,
    text,
    verified: draft.verified,
    amount,
    expires_at: new Date(expiresAt).toISOString(),
    settlement: config.settlement,
  };
}
