import { expect, it } from "vitest";
import { z } from "zod";
import { blockersOf, Demand, gpuModelOf, Offer, Prices, Resources, ratePerHour } from "./resources.ts";

it.each([
  ["NVIDIA GeForce RTX 4090", "RTX_4090"],
  ["NVIDIA H200 SXM", "H200_SXM"],
  ["AMD Radeon RX 7900 XTX", "RX_7900_XTX"],
  ["SwiftShader Device (Subzero)", "SWIFTSHADER_DEVICE"],
  ["Apple M3 Max", "M3_MAX"],
  ["", "UNKNOWN_GPU"],
  ["???", "UNKNOWN_GPU"],
  ["NVIDIA", "UNKNOWN_GPU"],
])("names %j on the market %s", (reported, model) => {
  expect(gpuModelOf(reported)).toBe(model);
});

it("cuts a name that is too long to one that still is a model", () => {
  expect(gpuModelOf("X".repeat(200))).toBe("X".repeat(48));
});

it("asks for one GPU and nothing else when nothing is said", () => {
  expect(Resources.parse({})).toEqual({ gpus: 1, cpu: 0, memory_gb: 0 });
  expect(Demand.parse({}).resources.gpus).toBe(1);
});

it.each([{ gpus: 0 }, { gpus: 65 }, { gpus: 1.5 }, { cpu: -1 }, { disk: 1 }])(
  "refuses %j as resources",
  (asked) => {
    expect(Resources.safeParse(asked).success).toBe(false);
  },
);

const prices = { gpu_hour: 500_000n, core_hour: 10_000n, gb_hour: 1_000n };

it("adds the rate up over all resources", () => {
  expect(ratePerHour(prices, { gpus: 4, cpu: 32, memory_gb: 128 })).toBe(2_448_000n);
});

const gpu = {
  model: "RTX_4090",
  reported: "x",
  vram_mb: 24_000,
  driver: "1",
  backend: "vulkan",
  software: false,
};
// As a version from before tiers, features and isolation said it.
const offer = Offer.parse({
  gpus: [gpu, { ...gpu, model: "RTX_3060", vram_mb: 12_000 }],
  cpu: 8,
  memory_gb: 32,
  region: "eu-west",
  prices: z.encode(Prices, prices),
  concurrency: 1,
});
it.each([
  ["as much as ten minutes of a GPU", "83333", {}, true],
  ["more", "83334", {}, false],
  [
    "more than that in the cheaper tier",
    "83333",
    { yieldable: z.encode(Prices, { ...prices, gpu_hour: 400_000n }) },
    false,
  ],
])("MTR-12 an offer may ask for a start %s: %s", (_, start_price, change, ok) => {
  const text = { ...z.encode(Offer, offer), ...change, start_price };
  expect(Offer.safeParse(text).success).toBe(ok);
  expect(offer.start_price, "an offer of before").toBe(0n);
});

const NODE = `0x${"ab".repeat(20)}`;

it.each([
  ["nothing in particular", {}, []],
  ["more GPUs than are free", { resources: { gpus: 3 } }, ["gpus"]],
  ["a model that it has", { gpu_model: "RTX_3060" }, []],
  ["a model that it lacks", { gpu_model: "H200_SXM" }, ["gpu_model"]],
  ["exactly its memory", { min_vram_mb: 24_000 }, []],
  ["more memory on a GPU", { min_vram_mb: 24_001 }, ["vram"]],
  ["more cores", { resources: { cpu: 9 } }, ["cpu"]],
  ["more memory", { resources: { memory_gb: 33 } }, ["memory"]],
  ["another region", { region: "us-east" }, ["region"]],
  ["another node", { node: `0x${"cd".repeat(20)}` }, ["node"]],
  ["this node", { node: NODE }, []],
  ["exactly its price", { max_rate_per_hour: "500000" }, []],
  ["a lower price", { max_rate_per_hour: "499999" }, ["price"]],
  ["several things at once", { region: "us-east", max_rate_per_hour: "1" }, ["region", "price"]],
])("an offer asked for %s is blocked by exactly what does not fit", (_, demand, blockers) => {
  expect(blockersOf(offer, NODE, 2, Demand.parse(demand))).toEqual(blockers);
});

const rich = Offer.parse({
  ...z.encode(Offer, offer),
  yieldable: { gpu_hour: "200000", core_hour: "0", gb_hour: "0" },
  gpus_per_lease: 1,
  duration_s: { min: 600, max: 7_200 },
  features: ["webgpu", "shader-f16"],
  isolation: "vm",
  models: ["llama-3.1-8b"],
});
const PROVIDER = `0x${"ef".repeat(20)}` as const;

it.each([
  ["everything that it has", { features: ["webgpu"], isolation: "container", model: "llama-3.1-8b" }, []],
  ["a feature that it lacks", { features: ["webgpu", "cuda"] }, ["features"]],
  ["more isolation", { isolation: "tee" }, ["isolation"]],
  ["another model", { model: "sdxl" }, ["model"]],
  ["a lease as long as it may be", { duration_s: 7_200 }, []],
  ["a longer lease", { duration_s: 7_201 }, ["duration"]],
  ["a shorter lease", { duration_s: 599 }, ["duration"]],
  ["more GPUs than one lease may have", { resources: { gpus: 2 } }, ["gpus"]],
  ["the yieldable tier's price", { tier: "yieldable", max_rate_per_hour: "200000" }, []],
  ["less than that", { tier: "yieldable", max_rate_per_hour: "199999" }, ["price"]],
  ["exactly its reliability", { min_reliability: 0.98 }, []],
  ["more reliability", { min_reliability: 0.9801 }, ["reliability"]],
  ["other nodes than it", { exclude: { nodes: [NODE] } }, ["excluded"]],
  ["other providers than its own", { exclude: { providers: [PROVIDER] } }, ["excluded"]],
  ["a region that may be given up", { region: "us-east", spill: ["region"] }, []],
  ["a model that may be given up", { gpu_model: "H200_SXM", spill: ["gpu_model"] }, []],
])("a rich offer asked for %s is blocked by exactly what does not fit", (_, demand, blockers) => {
  const seller = { provider: PROVIDER, reliability: 9_800 };
  expect(blockersOf(rich, NODE, 2, Demand.parse(demand), seller)).toEqual(blockers);
});

it("counts as free only GPUs of the model that is asked for", () => {
  const demand = Demand.parse({ gpu_model: "RTX_4090", resources: { gpus: 2 } });
  expect(blockersOf(offer, NODE, 2, demand)).toEqual(["gpus"]);
});

it("an offer is not sold in a tier that it has no prices for", () => {
  expect(blockersOf(offer, NODE, 2, Demand.parse({ tier: "yieldable" }))).toEqual(["tier"]);
});

it.each([
  { duration_s: { min: 2, max: 1 } },
  { features: ["Web GPU"] },
  { isolation: "none" },
  { models: ["../etc"] },
  { gpus_per_lease: 0 },
  { start: "1" },
])("refuses %j in an offer", (change) => {
  expect(Offer.safeParse({ ...z.encode(Offer, offer), ...change }).success).toBe(false);
});
