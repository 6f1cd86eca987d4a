import { expect, it } from "vitest";
import { blockersOf, Demand, gpuModelOf, type Offer, Resources, ratePerHour } from "./resources.ts";

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
const offer: Offer = {
  gpus: [gpu, { ...gpu, model: "RTX_3060", vram_mb: 12_000 }],
  cpu: 8,
  memory_gb: 32,
  region: "eu-west",
  prices,
  concurrency: 1,
};
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
