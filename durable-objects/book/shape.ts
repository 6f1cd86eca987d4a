import { type Isolation, isolationRank } from "@gpux/protocol/resources";

/**
 * The sizes of a machine rounded down to tiers and packed into one number, so that one subtraction compares all of
 * them: each field has a guard bit above it, which a field that is too small borrows.
 */

/** Sizes rounded down to steps, by a table: a demand and an offer each ask three times, and a search of steps is a walk. */
export class Tiers {
  readonly count: number;
  readonly #steps: readonly number[];
  readonly #unit: number;
  readonly #tierAt: Uint8Array;
  readonly #last: number;

  /** `steps` begin with 0, rise, and are multiples of `unit`. */
  constructor(unit: number, steps: readonly number[]) {
    this.count = steps.length;
    this.#steps = steps;
    this.#unit = unit;
    this.#last = (steps.at(-1) ?? 0) / unit;
    this.#tierAt = new Uint8Array(this.#last + 1);
    for (const [tier, step] of steps.entries()) this.#tierAt.fill(tier, step / unit);
  }

  /** The highest tier that `value` reaches. */
  of(value: number): number {
    const at = Math.floor(value / this.#unit);
    return this.#tierAt[Math.min(at, this.#last)] ?? 0;
  }

  /** Whether `value` is a tier's own: who reaches its tier then has it. */
  has(value: number): boolean {
    return this.#steps[this.of(value)] === value;
  }
}

/** Megabytes, as cards come; a card's driver tells a little more or less than its name. */
export const VRAM_TIERS = new Tiers(
  1_000,
  [
    0, 2_000, 4_000, 6_000, 8_000, 10_000, 11_000, 12_000, 16_000, 20_000, 24_000, 32_000, 40_000, 48_000,
    64_000, 80_000, 94_000, 128_000, 140_000, 180_000, 192_000, 256_000, 288_000, 512_000,
  ],
);
/** Coarse where machines are many: fewer classes are worth more than an offer looked at now and then. */
export const CPU_TIERS = new Tiers(1, [0, 1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 512, 1_024]);
/** Gigabytes. */
export const MEMORY_TIERS = new Tiers(4, [0, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 16_384]);

export interface Sizes {
  readonly gpus: number;
  readonly vramMb: number;
  readonly cpu: number;
  readonly memoryGb: number;
  readonly isolation: Isolation;
}

const ISOLATION_AT = 8;
const MEMORY_AT = 11;
const CPU_AT = 17;
const VRAM_AT = 23;
const GUARDS = (1 << 7) | (1 << 10) | (1 << 16) | (1 << 22) | (1 << 28);

export function packed(sizes: Sizes): number {
  return (
    sizes.gpus |
    (isolationRank(sizes.isolation) << ISOLATION_AT) |
    (MEMORY_TIERS.of(sizes.memoryGb) << MEMORY_AT) |
    (CPU_TIERS.of(sizes.cpu) << CPU_AT) |
    (VRAM_TIERS.of(sizes.vramMb) << VRAM_AT)
  );
}

/** Whether no field of `has` is below the same field of `wanted`. Both as {@link packed} makes them. */
export function covers(has: number, wanted: number): boolean {
  return (((has | GUARDS) - wanted) & GUARDS) === GUARDS;
}

/** `shape` with another number of GPUs. */
export function withGpus(shape: number, gpus: number): number {
  return (shape & ~0x7f) | gpus;
}

/** How many values lie below a bound: prefix sums over tiers, and over the values of one tier where it must be exact. */
export class Histogram {
  readonly #tiers: Tiers;
  readonly #counts: Int32Array;
  readonly #values: Map<number, number>[];

  constructor(tiers: Tiers) {
    this.#tiers = tiers;
    this.#counts = new Int32Array(tiers.count);
    this.#values = Array.from({ length: tiers.count }, () => new Map());
  }

  add(value: number, by: 1 | -1): void {
    const tier = this.#tiers.of(value);
    this.#counts[tier] = (this.#counts[tier] ?? 0) + by;
    const values = this.#values[tier];
    const count = (values?.get(value) ?? 0) + by;
    if (count === 0) values?.delete(value);
    else values?.set(value, count);
  }

  below(bound: number): number {
    const tier = this.#tiers.of(bound);
    let below = 0;
    for (let i = 0; i < tier; i += 1) below += this.#counts[i] ?? 0;
    if (this.#tiers.has(bound)) return below;
    for (const [value, count] of this.#values[tier] ?? []) if (value < bound) below += count;
    return below;
  }
}
