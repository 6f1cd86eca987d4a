import { z } from "zod";
import { Amount } from "./money.ts";

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

/** `yieldable`: cheaper, and the owner or a firm demand may take the GPU back. */
export const TIERS = ["firm", "yieldable"] as const;
export const Tier = z.enum(TIERS);
export type Tier = z.infer<typeof Tier>;

/** What a node has and asks: sent in its hello, kept by its Node object, copied to the Book. */
export const Offer = z.strictObject({
  gpus: z.array(Gpu).min(1).max(64),
  cpu: z.int().min(0).max(1024),
  memory_gb: z.int().min(0).max(65_536),
  region: Region,
  prices: Prices,
  /** Jobs that may run at once in one lease; more wait in the lease's queue. */
  concurrency: z.int().min(1).max(64),
});
export type Offer = z.output<typeof Offer>;

/** What a developer asks for. Everything that is left out fits everything. */
export const Demand = z.strictObject({
  resources: Resources.prefault({}),
  tier: Tier.default("firm"),
  gpu_model: GpuModel.optional(),
  min_vram_mb: z.int().min(0).optional(),
  region: Region.optional(),
  node: z
    .string()
    .regex(/^0x[0-9a-f]{40}$/)
    .optional(),
  max_rate_per_hour: Amount.optional(),
});
export type Demand = z.output<typeof Demand>;

/** Why an offer does not fit; the market's answer to "why am I waiting" counts offers by these. */
export type Blocker = "gpus" | "gpu_model" | "vram" | "cpu" | "memory" | "region" | "node" | "price";

/** `free`: GPUs that the node has not held or leased. Returns each condition that the offer fails. */
export function blockersOf(offer: Offer, node: string, free: number, demand: Demand): Blocker[] {
  const { resources } = demand;
  const blockers: Blocker[] = [];
  if (free < resources.gpus) blockers.push("gpus");
  if (demand.gpu_model !== undefined && offer.gpus.every((gpu) => gpu.model !== demand.gpu_model))
    blockers.push("gpu_model");
  if (
    demand.min_vram_mb !== undefined &&
    Math.max(...offer.gpus.map((gpu) => gpu.vram_mb)) < demand.min_vram_mb
  )
    blockers.push("vram");
  if (offer.cpu < resources.cpu) blockers.push("cpu");
  if (offer.memory_gb < resources.memory_gb) blockers.push("memory");
  if (demand.region !== undefined && offer.region !== demand.region) blockers.push("region");
  if (demand.node !== undefined && node !== demand.node) blockers.push("node");
  if (
    demand.max_rate_per_hour !== undefined &&
    ratePerHour(offer.prices, resources) > demand.max_rate_per_hour
  )
    blockers.push("price");
  return blockers;
}
