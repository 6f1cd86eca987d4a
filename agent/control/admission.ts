import { canonicalJson } from "@gpux/protocol/canonical";
import { freeOf, type Share, shortOf } from "@gpux/protocol/capacity";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import { type Address, type LeaseId, leaseIdOf } from "@gpux/protocol/ids";
import type { QuoteText } from "@gpux/protocol/lease";
import { formatAmount, MAX_AMOUNT } from "@gpux/protocol/money";
import { type Offer, type Resources, ratePerHour, type Tier } from "@gpux/protocol/resources";
import { startPriceOf } from "@gpux/protocol/tariff";
import type { TypedDataHasher } from "@gpux/protocol/typed-data-encoder";
import { keccak256, stringToBytes } from "viem/utils";
import type { AgentConfig } from "../config.ts";

/** A lease must have at least this left, or no job could end in it. */
const MIN_TERM_S = 60;

export type DeclineCode =
  | "lease_mismatch"
  | "provider_mismatch"
  | "signer_mismatch"
  | "shared_key"
  | "text_mismatch"
  | "mode_mismatch"
  | "tier_unoffered"
  | "price_too_low"
  | "fee_too_high"
  | "meter_unknown"
  | "expiry_too_soon"
  | "expiry_too_late"
  | "resources_short"
  | "no_capacity"
  | "draining";

export type Admission = { ok: true } | { ok: false; code: DeclineCode; detail: string };

/** What the agent would work under: its own settings and key, never what the edge says of them. */
export interface House {
  readonly config: AgentConfig;
  readonly offer: Offer;
  readonly address: Address;
  readonly hasher: TypedDataHasher;
}

export interface Proposal {
  readonly lease: LeaseId;
  readonly terms: LeaseTerms;
  readonly resources: Resources;
  /** Firm when left out. */
  readonly tier?: Tier;
}

/** Whether terms are what this provider agreed to sell. `nowS` in seconds. The first wrong field is the answer. */
export function admitTerms(
  house: House,
  { lease, terms, resources, tier = "firm" }: Proposal,
  nowS: number,
): Admission {
  const { config } = house;
  const decline = (code: DeclineCode, detail: string): Admission => ({ ok: false, code, detail });
  if (leaseIdOf(house.hasher.leaseTerms(terms)) !== lease)
    return decline("lease_mismatch", "The lease's id is not the hash of its terms.");
  if (terms.provider !== config.payout)
    return decline("provider_mismatch", `The terms pay ${terms.provider}, not ${config.payout}.`);
  if (terms.providerSigner !== house.address)
    return decline(
      "signer_mismatch",
      `The terms name the key ${terms.providerSigner}, not ${house.address}.`,
    );
  // The contract refuses these too; a pair that one key can sign is no pair.
  if (
    terms.meter === house.address ||
    terms.consumerSigner === house.address ||
    terms.meter === terms.consumerSigner
  )
    return decline("shared_key", "Consumer, provider and meter must have three keys.");
  const prices = tier === "firm" ? config.prices : config.yieldable_prices;
  if (prices === undefined)
    return decline("tier_unoffered", "This node sells nothing in the yieldable tier.");
  const least = ratePerHour(prices, resources);
  if (terms.ratePerHour < least)
    return decline(
      "price_too_low",
      `The terms pay ${formatAmount(terms.ratePerHour)} USDC per hour, the price is ${formatAmount(least)}.`,
    );
  if (terms.feeBps > config.max_fee_bps)
    return decline(
      "fee_too_high",
      `The fee is ${terms.feeBps} bps, at most ${config.max_fee_bps} are accepted.`,
    );
  if (config.meters !== undefined && !config.meters.includes(terms.meter))
    return decline("meter_unknown", `The meter ${terms.meter} is not one that this provider trusts.`);
  if (terms.expiry < nowS + MIN_TERM_S)
    return decline("expiry_too_soon", "The lease is over or about to be.");
  if (terms.expiry > nowS + config.max_lease_hours * 3_600)
    return decline("expiry_too_late", `The lease would last longer than ${config.max_lease_hours} hours.`);
  return { ok: true };
}

/**
 * Whether what was sold is what the terms' `quote` commits to, of this very node, and paid as its mode needs: a
 * dedicated lease is owed by the clock alone, so nothing may wait for the consumer's word.
 */
export function admitText(house: House, { terms, resources }: Proposal, text: QuoteText): Admission {
  const decline = (code: DeclineCode, detail: string): Admission => ({ ok: false, code, detail });
  if (keccak256(stringToBytes(canonicalJson(text))) !== terms.quote)
    return decline("text_mismatch", "The terms commit to another text.");
  if (text.node !== house.address)
    return decline("text_mismatch", `The text sells the node ${text.node}, not ${house.address}.`);
  const { gpus, cpu, memory_gb } = text.resources;
  if (gpus !== resources.gpus || cpu !== resources.cpu || memory_gb !== resources.memory_gb)
    return decline("text_mismatch", "The text sells other resources than are to be held.");
  if (text.gpus.length !== gpus)
    return decline("text_mismatch", `The text names ${text.gpus.length} cards for ${gpus} GPUs.`);
  if ((text.concurrency ?? gpus) > Math.max(gpus, house.config.concurrency))
    return decline(
      "text_mismatch",
      `The text sells ${text.concurrency} jobs at once, ${house.config.concurrency} run here.`,
    );
  const start = startPriceOf(text);
  if (start < house.config.start_price)
    return decline(
      "price_too_low",
      `The text pays ${formatAmount(start)} USDC for the start, the price is ${formatAmount(house.config.start_price)}.`,
    );
  // Or the escrow would not let the start be charged before its price's worth of time has passed.
  if (terms.upfront < start)
    return decline("price_too_low", "The terms do not let the start be charged when it is.");
  if (text.tier === "yieldable" && house.config.yieldable_prices === undefined)
    return decline("tier_unoffered", "This node sells nothing in the yieldable tier.");
  if (text.mode === "dedicated" && terms.unattended !== MAX_AMOUNT)
    return decline("mode_mismatch", "A dedicated lease must be owed without the consumer's allowance.");
  return { ok: true };
}

/** Whether the machine has room for it beside the shares that others have. */
export function admitResources(offer: Offer, share: Share, taken: readonly Share[]): Admission {
  if (share.resources.gpus > offer.gpus_per_lease)
    return {
      ok: false,
      code: "resources_short",
      detail: `A lease may have ${offer.gpus_per_lease} GPUs here, not ${share.resources.gpus}.`,
    };
  const never = shortOf(freeOf(offer, []), share);
  if (never !== null)
    return {
      ok: false,
      code: "resources_short",
      detail: `The node has not the ${never} for it, even when all of it is free.`,
    };
  const now = shortOf(freeOf(offer, taken), share);
  if (now === null) return { ok: true };
  return { ok: false, code: "no_capacity", detail: `Of the node's ${now}, too few are free.` };
}
