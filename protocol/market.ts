import { z } from "zod";
import { Address } from "./ids.ts";
import { NodeView } from "./lease.ts";
import { Amount } from "./money.ts";
import { Tier } from "./resources.ts";

/**
 * An offer as `GET /v1/offers` shows it: the node, and under the names that a search asks by what of it was priced.
 */
export const OfferView = NodeView.extend({
  object: z.literal("offer"),
  /** For all of `num_gpus`. */
  verified: z.boolean().optional(),
  /** What the resources that were asked for cost per hour there, in base units. */
  rate_per_hour: Amount,
  tier: Tier,
  gpu_name: z.string(),
  num_gpus: z.int(),
  /** MB, as `cpu_ram`. */
  gpu_ram: z.int(),
  cpu_cores: z.int(),
  cpu_ram: z.int(),
  geolocation: z.string(),
  /** `rate_per_hour` in USD, as a decimal. */
  dph_total: z.string(),
  /** `start_price` in USD. */
  start_usd: z.string().optional(),
  /** The same in the yieldable tier; null: not sold there. */
  min_bid: z.string().nullable(),
  /** Seconds that a lease may last. */
  duration: z.int(),
  machine_id: Address,
  host_id: Address,
});
export type OfferView = z.output<typeof OfferView>;

const Counts = z.record(z.string(), z.int());

export const OfferList = z.object({
  object: z.literal("list"),
  data: z.array(OfferView),
  has_more: z.boolean(),
  /** By how many offers each condition fails, where nothing fits. */
  blockers: Counts,
  /** Where nothing fits: whether waiting may help, since GPUs come free again. */
  wait: z.object({ possible: z.boolean(), blockers: Counts }).optional(),
});
export type OfferList = z.output<typeof OfferList>;

/** Prices of a GPU-hour in base units. */
const Spread = z.object({ min: Amount, p25: Amount, median: Amount, p75: Amount, max: Amount });
/** Weighted by GPUs. */
const Asked = Spread.extend({ gpus: z.int() });
/** Weighted by GPU-hours, which are a decimal. */
const Paid = Spread.extend({ gpu_hours: z.string() });

/**
 * `GET /v1/gpu-prices`: a model at a time what is asked by nodes that are online, and what leases that ended in the last
 * `days` were paid on chain, at their terms' rate for GPU, cores and memory together.
 */
export const GpuPrices = z.object({
  object: z.literal("list"),
  data: z.array(
    z.object({
      gpu_name: z.string(),
      nodes: z.int(),
      gpus: z.object({ online: z.int(), free: z.int() }),
      /** Null: nobody sells it in that tier. */
      asks: z.object({ firm: Asked.nullable(), yieldable: Asked.nullable() }),
      /** Null: nothing was settled. */
      settled: z.object({ days: z.int(), firm: Paid.nullable(), yieldable: Paid.nullable() }),
    }),
  ),
  has_more: z.boolean(),
});
export type GpuPrices = z.output<typeof GpuPrices>;
