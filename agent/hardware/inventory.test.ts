import { describe, expect, test } from "vitest";
import { configWith } from "../fixtures.ts";
import { gpuOf, parseNvidiaSmi, takeInventory } from "./inventory.ts";

const software = {
  adapter: "SwiftShader driver-5.0.0",
  vendor: "google",
  architecture: "swiftshader",
  backend: "vulkan",
  software: true,
  maxBufferBytes: 2 ** 28,
  maxBindingBytes: 2 ** 27,
  features: ["webgpu"],
};
const nvidia = {
  ...software,
  adapter: "NVIDIA GeForce RTX 4090",
  vendor: "nvidia",
  architecture: "ada",
  software: false,
};
const cards = parseNvidiaSmi(
  "NVIDIA H200, 143771, 550.54.14\nNVIDIA GeForce RTX 4090, 24564, 550.54.14\n\nNo devices were found\n",
);

describe("inventory", () => {
  test("takes memory and driver from the card that the adapter names", () => {
    expect(cards).toHaveLength(2);
    expect(gpuOf(nvidia, cards, undefined)).toMatchObject({
      model: "RTX_4090",
      vram_mb: 24_564,
      driver: "550.54.14",
    });
    expect(gpuOf(nvidia, [], undefined)).toMatchObject({ vram_mb: 0, driver: "ada" });
    expect(gpuOf(nvidia, cards, 8_000)).toMatchObject({ vram_mb: 8_000 });
  });

  test("sells a CPU that renders as what it is", () => {
    expect(gpuOf(software, cards, undefined)).toMatchObject({
      model: "SWIFTSHADER",
      vram_mb: 0,
      software: true,
    });
  });

  test("simulates a machine where the config says so, and says that it is simulated", async () => {
    const simulated = { gpus: 4, cpu: 32, memory_gb: 128 };
    const offer = await takeInventory(software, configWith({ simulated }));
    expect([offer.gpus.length, offer.cpu, offer.memory_gb]).toEqual([4, 32, 128]);
    for (const gpu of offer.gpus)
      expect(gpu).toMatchObject({ model: "SWIFTSHADER", reported: expect.stringMatching(/^simulated: /) });
  });

  test("offers at most what the machine has, and less where the owner says so", async () => {
    const whole = await takeInventory(software, configWith({ cpu: 1_024, memory_gb: 65_536 }));
    expect(whole.cpu).toBeLessThan(1_024);
    expect(whole.memory_gb).toBeLessThan(65_536);
    expect(whole).toMatchObject({
      yieldable: null,
      duration_s: { min: 0, max: 168 * 3_600 },
      features: ["webgpu"],
      isolation: "process",
    });
    const changed = configWith({
      yieldable_prices: { gpu_hour: "0.2" },
      min_lease_minutes: 10,
      max_lease_hours: 2,
      features: ["webgpu", "cuda-12"],
      models: ["sdxl"],
      gpus_per_lease: 1,
    });
    expect(await takeInventory(software, changed)).toMatchObject({
      yieldable: { gpu_hour: 200_000n, core_hour: 0n, gb_hour: 0n },
      duration_s: { min: 600, max: 7_200 },
      features: ["webgpu", "cuda-12"],
      models: ["sdxl"],
      gpus_per_lease: 1,
    });
    expect(await takeInventory(software, configWith({ cpu: 1, memory_gb: 0 }))).toMatchObject({
      cpu: 1,
      memory_gb: 0,
    });
  });
});
