import type { BookEntry } from "@gpux/durable-objects/interfaces";
import { DAY_MS, NEVER_SEEN, observed, type Presence } from "@gpux/durable-objects/presence";
import { Address } from "@gpux/protocol/ids";
import { Demand, type Gpu, type Isolation, Offer } from "@gpux/protocol/resources";

/** The moment that all of the bench plays in. */
export const NOW = 20_000 * DAY_MS;

export const MODELS = Array.from({ length: 20 }, (_, i) => `MODEL_${String(i).padStart(2, "0")}`);
export const REGIONS = [
  "eu-west",
  "eu-north",
  "eu-south",
  "us-east",
  "us-west",
  "ap-south",
  "ap-east",
  "sa-east",
];
const VRAM = [8_000, 11_264, 12_288, 16_384, 24_564, 48_000, 81_920, 143_771];
const PER_GPU_CPU = [4, 6, 8, 12, 16, 24];
const PER_GPU_GB = [8, 15, 16, 31, 32, 62, 64, 125];

/** A generator of numbers from 0 to 1 that gives the same ones in every run (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function oneOf<T>(random: () => number, items: readonly T[]): T {
  const item = items[Math.floor(random() * items.length)];
  if (item === undefined) throw new RangeError("nothing to choose from");
  return item;
}

/** Four days of being there for these shares of the time: every step of the score (score.ts). */
const PRESENCES: readonly Presence[] = [1, 0.99, 0.97, 0.95, 0.9, 0.8, 0.6, 0.3].map((share) => {
  const from = NOW - 4 * DAY_MS;
  const seen = observed(NEVER_SEEN, from, "off");
  return observed(observed(seen, from + 4 * DAY_MS * share, "on"), NOW, "off");
});

/** Cards of a kind are the same object in every offer, so that a million of them fit into memory. */
const cards = new Map<string, readonly Gpu[]>();

function cardsOf(model: string, vramMb: number, count: number): readonly Gpu[] {
  const key = `${model}/${vramMb}/${count}`;
  const gpu: Gpu = {
    model,
    reported: model,
    vram_mb: vramMb,
    driver: "1",
    backend: "vulkan",
    software: false,
  };
  const known = cards.get(key) ?? Array.from({ length: count }, () => gpu);
  cards.set(key, known);
  return known;
}

const template = Offer.parse({
  gpus: cardsOf("MODEL_00", 8_000, 1),
  cpu: 0,
  memory_gb: 0,
  region: "eu-west",
  prices: { gpu_hour: "0", core_hour: "0", gb_hour: "0" },
  concurrency: 1,
});

/**
 * `count` nodes, the same in every run: 20 models, 8 regions, machines of 1 to 8 GPUs whose cores and memory grow with
 * them, prices to the millionth; a third have GPUs that are taken. Virtual machines are sold only with up to 8 cores
 * a GPU.
 */
export function* population(count: number): Generator<BookEntry> {
  const random = seeded(count);
  for (let n = 0; n < count; n += 1) {
    const modelAt = Math.floor(random() * MODELS.length);
    const model = oneOf(() => (modelAt + 0.5) / MODELS.length, MODELS);
    const gpus = oneOf(random, [1, 1, 1, 2, 4, 8]);
    // Two sizes of memory for each model, as cards come.
    const vramMb = VRAM[(modelAt + (random() < 0.8 ? 0 : 1)) % VRAM.length] ?? 8_000;
    const cpu = gpus * oneOf(random, PER_GPU_CPU);
    const isolation: Isolation = cpu <= 8 * gpus && random() < 0.5 ? "vm" : "process";
    const hash = Math.floor(random() * 2 ** 32)
      .toString(16)
      .padStart(8, "0");
    const node = Address.parse(`0x${hash}${n.toString(16).padStart(32, "0")}`);
    yield {
      node,
      offer: {
        ...template,
        gpus: [...cardsOf(model, vramMb, gpus)],
        cpu,
        memory_gb: gpus * oneOf(random, PER_GPU_GB),
        region: oneOf(random, REGIONS),
        isolation,
        prices: {
          gpu_hour: BigInt(100_000 + Math.floor(random() * 900_000)),
          core_hour: 0n,
          gb_hour: 0n,
        },
      },
      free: random() < 0.33 ? Math.floor(random() * gpus) : gpus,
      provider: node,
      agentVersion: "1.0.0",
      status: "online",
      lastSeen: 1,
      presence: oneOf(random, PRESENCES),
      challenge: null,
      sales: [],
    };
  }
}

/** What people ask for: a model in a region, one to four GPUs, often with cores, memory or a size of VRAM. */
export function typicalDemand(random: () => number): Demand {
  return Demand.parse({
    gpu_model: oneOf(random, MODELS),
    region: oneOf(random, REGIONS),
    ...(random() < 0.3 ? { min_vram_mb: oneOf(random, [8_000, 12_000, 16_000]) } : {}),
    ...(random() < 0.2 ? { isolation: "vm" } : {}),
    resources: {
      gpus: oneOf(random, [1, 1, 1, 2, 4]),
      cpu: random() < 0.5 ? 0 : oneOf(random, [4, 8, 12, 16]),
      memory_gb: random() < 0.5 ? 0 : oneOf(random, [8, 16, 30, 32, 64]),
    },
  });
}

/**
 * What nobody has although each part of it is common: many cores in a virtual machine, or more memory than the
 * largest machines of so many GPUs.
 */
export function impossibleDemand(random: () => number): Demand {
  const gpus = oneOf(random, [4, 8]);
  const resources =
    random() < 0.5 ? { gpus, cpu: 96, memory_gb: 64 } : { gpus: 8, cpu: 32, memory_gb: 1_024 };
  return Demand.parse({
    gpu_model: oneOf(random, MODELS),
    region: oneOf(random, REGIONS),
    isolation: "vm",
    resources,
  });
}
