import type { LeaseTerms } from "@gpux/protocol/eip712";
import { type Address, type LeaseId, leaseIdOf } from "@gpux/protocol/ids";
import { formatAmount } from "@gpux/protocol/money";
import { type Offer, type Resources, ratePerHour, type Tier } from "@gpux/protocol/resources";
import type { TypedDataHasher } from "@gpux/protocol/typed-data-encoder";
import type { AgentConfig } from "../config.ts";

/** A lease must have at least this left, or no job could end in it. */
const MIN_TERM_S = 60;

export type DeclineCode =
  | "lease_mismatch"
  | "provider_mismatch"
  | "signer_mismatch"
  | "shared_key"
  | "tier_not_sold"
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

/** Resources that other holds and leases have. */
export interface Taken {
  readonly gpus: number;
  readonly cpu: number;
  readonly memory_gb: number;
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
  if (prices === undefined) return decline("tier_not_sold", "This node sells nothing in the yieldable tier.");
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

/** Whether the machine has room for it beside what is taken. */
export function admitResources(offer: Offer, resources: Resources, taken: Taken): Admission {
  if (resources.gpus > offer.gpus_per_lease)
    return {
      ok: false,
      code: "resources_short",
      detail: `A lease may have ${offer.gpus_per_lease} GPUs here, not ${resources.gpus}.`,
    };
  const machine = { gpus: offer.gpus.length, cpu: offer.cpu, memory_gb: offer.memory_gb };
  for (const kind of ["gpus", "cpu", "memory_gb"] as const) {
    if (resources[kind] > machine[kind])
      return {
        ok: false,
        code: "resources_short",
        detail: `The node has ${machine[kind]} ${kind}, not ${resources[kind]}.`,
      };
    if (resources[kind] + taken[kind] > machine[kind])
      return {
        ok: false,
        code: "no_capacity",
        detail: `Of ${machine[kind]} ${kind}, ${taken[kind]} are held or leased.`,
      };
  }
  return { ok: true };
}
