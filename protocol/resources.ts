import { z } from "zod";
import { Amount } from "./money.ts";
import { mostStart } from "./tariff.ts";

/** `RTX_4090`, `H200_SXM`, `SWIFTSHADER`: upper case with underscores, as people in this market write them. */
export const GpuModel = z.string().regex(/^[A-Z0-9][A-Z0-9_]{1,47}$/, "a GPU model such as RTX_4090");

/** From what a driver reports (`NVIDIA GeForce RTX 4090`) to the model's market name. */
export function gpuModelOf(reported: string): string {
  const name = reported
    .replace(/\(.*?\)/g, " ")
    .replace(/\b(NVIDIA|GeForce|AMD|Radeon|Intel|Apple|Graphics|Corporation|Google)\b/gi, " ")
    .replace(/[^A-Za-z0-9]+/g, "_")
    .replace(/^_+|_+$/g, "")
    .toUpperCase()
    .slice(0, 48);
  return GpuModel.safeParse(name).success ? name : "UNKNOWN_GPU";
}

export const Region = z.string().regex(/^[a-z]{2,8}(-[a-z0-9]{1,12})?$/, "a region such as eu-west or local");

/** What one node must give. Memory in GB (10^9 bytes), CPU in cores. */
export const Resources = z.strictObject({
  gpus: z.int().min(1).max(64).default(1),
  cpu: z.int().min(0).max(1024).default(0),
  memory_gb: z.int().min(0).max(65_536).default(0),
});
export type Resources = z.infer<typeof Resources>;

/** One GPU as the agent's own probe saw it. `software`: a CPU renders (SwiftShader); it is sold as what it is. */
export const Gpu = z.strictObject({
  model: GpuModel,
  reported: z.string().max(120),
  vram_mb: z.int().min(0).max(4_194_304),
  driver: z.string().max(80),
  backend: z.string().max(40),
  software: z.boolean(),
});
export type Gpu = z.infer<typeof Gpu>;

/** Prices per hour in token base units; a lease's rate is their sum over its resources. */
export const Prices = z.strictObject({ gpu_hour: Amount, core_hour: Amount, gb_hour: Amount });
export type Prices = z.output<typeof Prices>;

export function ratePerHour(prices: Prices, resources: Resources): bigint {
  return (
    prices.gpu_hour * BigInt(resources.gpus) +
    prices.core_hour * BigInt(resources.cpu) +
    prices.gb_hour * BigInt(resources.memory_gb)
  );
}

/** What a machine can do beside its sizes: `webgpu`, `shader-f16`, `cuda-12`. */
export const Feature = z
  .string()
  .regex(/^[a-z0-9][a-z0-9.-]{0,47}$/, "a feature such as webgpu or shader-f16");

/** A model that a node keeps loaded: `llama-3.1-8b`, `stabilityai/sdxl-turbo`. */
export const ModelName = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._:-]*(\/[A-Za-z0-9][A-Za-z0-9._:-]*)*$/, "a model such as llama-3.1-8b")
  .max(96);

/** What stands between a tenant's code and the machine, weakest first. */
export const ISOLATIONS = ["process", "container", "vm", "tee"] as const;
export const Isolation = z.enum(ISOLATIONS);
export type Isolation = z.infer<typeof Isolation>;

/** As a number that grows with the strength: `process` is 0. */
export function isolationRank(isolation: Isolation): number {
  return ISOLATIONS.indexOf(isolation);
}

/** `yieldable`: cheaper, and the owner or a firm demand may take the GPU back. */
export const TIERS = ["firm", "yieldable"] as const;
export const Tier = z.enum(TIERS);
export type Tier = z.infer<typeof Tier>;

/** The escrow's longest term, 90 days, in seconds. */
export const MAX_DURATION_S = 7_776_000;

/**
 * What a node has and asks: sent in its hello, kept by its Node object, copied to the Book. Everything after
 * `concurrency` has a default, so that hellos and rows from before it are read.
 */
const Offered = z.strictObject({
  gpus: z.array(Gpu).min(1).max(64),
  cpu: z.int().min(0).max(1024),
  memory_gb: z.int().min(0).max(65_536),
  region: Region,
  /** In the firm tier. */
  prices: Prices,
  /** Jobs that run at once on the machine; more wait in their leases' queues. */
  concurrency: z.int().min(1).max(64),
  /** In the yieldable tier; null: not sold there. */
  yieldable: Prices.nullable().default(null),
  /** The most GPUs that one lease may have. */
  gpus_per_lease: z.int().min(1).max(64).default(64),
  /** How long a lease may be asked for, seconds. */
  duration_s: z
    .strictObject({ min: z.int().min(0).max(MAX_DURATION_S), max: z.int().min(0).max(MAX_DURATION_S) })
    .refine(({ min, max }) => min <= max, "min is above max")
    .default({ min: 0, max: MAX_DURATION_S }),
  features: z.array(Feature).max(64).default([]),
  isolation: Isolation.default("process"),
  /** Loaded and waiting: no start-up for a job that uses one. */
  models: z.array(ModelName).max(64).default([]),
  /** What the start of a lease costs, once, in either tier (protocol/tariff.ts). */
  start_price: Amount.prefault("0"),
});
export const Offer = Offered.refine(
  ({ prices, yieldable, start_price }) =>
    [prices, yieldable].every((each) => each === null || start_price <= mostStart(each)),
  { path: ["start_price"], message: "a start costs more than ten minutes of a GPU" },
);
export type Offer = z.output<typeof Offer>;

/** The tier's prices; null where the offer is not sold in it. */
export function pricesIn(offer: Pick<Offer, "prices" | "yieldable">, tier: Tier): Prices | null {
  return tier === "firm" ? offer.prices : offer.yieldable;
}

/** As our answers write addresses; plain text in code too, so that callers need no cast. */
const AddressText = z.string().regex(/^0x[0-9a-f]{40}$/, "an address in lower case");

/** What of a demand may be given up when nothing fits all of it. */
export const Spill = z.enum(["region", "gpu_model"]);
export type Spill = z.infer<typeof Spill>;

/** What a developer asks for. Everything that is left out fits everything. */
export const Demand = z.strictObject({
  resources: Resources.prefault({}),
  tier: Tier.default("firm"),
  gpu_model: GpuModel.optional(),
  min_vram_mb: z.int().min(0).optional(),
  region: Region.optional(),
  node: AddressText.optional(),
  /** All of them. */
  features: z.array(Feature).max(16).optional(),
  /** At least this. */
  isolation: Isolation.optional(),
  /** Loaded and waiting. */
  model: ModelName.optional(),
  /** Share of the time that the node was there, 0 to 1 (docs/matching.md). */
  min_reliability: z.number().min(0).max(1).optional(),
  /** A challenge has shown that the node has such GPUs (docs/matching.md). */
  verified: z.boolean().optional(),
  /** The offer takes leases of so many seconds. */
  duration_s: z.int().min(0).max(MAX_DURATION_S).optional(),
  /** Not these nodes, and none of these payout addresses. */
  exclude: z
    .strictObject({
      nodes: z.array(AddressText).max(64).default([]),
      providers: z.array(AddressText).max(64).default([]),
    })
    .optional(),
  max_rate_per_hour: Amount.optional(),
  /** Preferences rather than conditions: searched for first, given up when nothing has them. */
  spill: z.array(Spill).max(2).optional(),
});
export type Demand = z.output<typeof Demand>;

/** Why an offer does not fit; the market's answer to "why am I waiting" counts offers by these (SPEC MKT-3). */
export const BLOCKERS = [
  "gpus",
  "gpu_model",
  "vram",
  "cpu",
  "memory",
  "region",
  "tier",
  "isolation",
  "features",
  "model",
  "duration",
  "node",
  "excluded",
  "reliability",
  "verified",
  "price",
] as const;
export const Blocker = z.enum(BLOCKERS);
export type Blocker = z.infer<typeof Blocker>;

/** What is known of who sells; conditions on what is left out are not judged. */
export interface Seller {
  readonly provider?: string;
  /** Hundredths of a percent. */
  readonly reliability?: number;
  /** GPUs of a lease that a challenge vouches for. */
  readonly verified?: number;
}

/** `free`: GPUs that the node has not held or leased. Returns each condition that the offer fails. */
export function blockersOf(
  offer: Offer,
  node: string,
  free: number,
  demand: Demand,
  seller: Seller = {},
): Blocker[] {
  const { resources } = demand;
  const soft = (part: Spill) => demand.spill?.includes(part) === true;
  const failed: Record<Blocker, boolean> = {
    ...gpusFailed(offer, free, demand, soft("gpu_model")),
    cpu: offer.cpu < resources.cpu,
    memory: offer.memory_gb < resources.memory_gb,
    region: demand.region !== undefined && !soft("region") && offer.region !== demand.region,
    tier: pricesIn(offer, demand.tier) === null,
    isolation:
      demand.isolation !== undefined && isolationRank(offer.isolation) < isolationRank(demand.isolation),
    features: demand.features?.some((feature) => !offer.features.includes(feature)) === true,
    model: demand.model !== undefined && !offer.models.includes(demand.model),
    duration:
      demand.duration_s !== undefined &&
      (demand.duration_s < offer.duration_s.min || demand.duration_s > offer.duration_s.max),
    node: demand.node !== undefined && node !== demand.node,
    excluded: isExcluded(node, seller.provider, demand),
    reliability:
      demand.min_reliability !== undefined &&
      seller.reliability !== undefined &&
      seller.reliability < basisPointsOf(demand.min_reliability),
    verified:
      demand.verified === true && seller.verified !== undefined && seller.verified < demand.resources.gpus,
    price: isAbove(offer, demand),
  };
  return BLOCKERS.filter((blocker) => failed[blocker]);
}

function gpusFailed(offer: Offer, free: number, demand: Demand, anyModel: boolean) {
  const wanted = anyModel ? undefined : demand.gpu_model;
  const usable = offer.gpus.filter((gpu) => wanted === undefined || gpu.model === wanted);
  const most = Math.min(free, offer.gpus_per_lease, usable.length || offer.gpus.length);
  return {
    gpu_model: usable.length === 0,
    gpus: most < demand.resources.gpus,
    vram:
      demand.min_vram_mb !== undefined &&
      usable.length > 0 &&
      Math.max(...usable.map((gpu) => gpu.vram_mb)) < demand.min_vram_mb,
  };
}

export function isExcluded(node: string, provider: string | undefined, { exclude }: Demand): boolean {
  if (exclude === undefined) return false;
  return exclude.nodes.some((each) => each === node) || exclude.providers.some((each) => each === provider);
}

function isAbove(offer: Offer, { max_rate_per_hour: most, tier, resources }: Demand): boolean {
  const prices = pricesIn(offer, tier);
  return most !== undefined && prices !== null && ratePerHour(prices, resources) > most;
}

/** A share of 0 to 1 in hundredths of a percent, rounded up: what `min_reliability` asks for at least. */
export function basisPointsOf(share: number): number {
  // 0.98 * 10,000 is 9,800.000000000002 on some shares; a millionth is no claim about anybody's presence.
  return Math.ceil(share * 10_000 - 1e-6);
}
