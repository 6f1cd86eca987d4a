import fc from "fast-check";
import { expect, test } from "vitest";
import { checkManifest, LIMITS } from "../manifest.ts";
import { PORTABLE } from "../manifest-limits.ts";
import { floorOf } from "./floor.ts";
import { CHALLENGE_FUNCTION, MOST_IN_DISPATCH, SIZE, UNIT, UNITS, UNITS_ACROSS } from "./function.ts";
import { VERDICT_MS, verifiedGpus } from "./verdict.ts";
import { inputsOf, isRight, operationsOf, unitHash, type Work } from "./work.ts";

const M = 2n ** 32n;
const shr = (x: bigint, by: bigint) => x >> by;

/** The definition, in whole numbers without end: slow, and nothing of what makes the other fast. */
function byDefinition({ seedA, seedB, depth }: Work, unit: number): number {
  const key = (seed: bigint, at: bigint) => {
    let x = (seed ^ ((at * 0x9e3779b1n) % M)) % M;
    x = ((x ^ shr(x, 16n)) * 0x7feb352dn) % M;
    x = ((x ^ shr(x, 15n)) * 0x846ca68bn) % M;
    return x ^ shr(x, 16n);
  };
  const element = (line: bigint, k: bigint) => {
    const x = ((line ^ ((k * 0x9e3779b1n) % M)) * 0x85ebca6bn) % M;
    return ((x ^ shr(x, 15n)) * 0xc2b2ae35n) % M;
  };
  let sum = 0n;
  for (let r = 0; r < UNIT; r += 1)
    for (let c = 0; c < UNIT; c += 1) {
      const row = Math.floor(unit / UNITS_ACROSS) * UNIT + r;
      const column = (unit % UNITS_ACROSS) * UNIT + c;
      let entry = 0n;
      for (let k = 0n; k < BigInt(depth); k += 1n)
        entry += element(key(BigInt(seedA), BigInt(row)), k) * element(key(BigInt(seedB), BigInt(column)), k);
      sum += key(entry % M, BigInt(row * SIZE + column));
    }
  return Number((sum % M) >> 16n);
}

const seed = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const unit = fc.integer({ min: 0, max: UNITS - 1 });

test("CHL-2 a unit is looked at as its definition has it, for any seed and place", () => {
  fc.assert(
    fc.property(seed, seed, unit, (seedA, seedB, at) => {
      const work = { seedA, seedB, depth: 16 };
      expect(unitHash(work, at)).toBe(byDefinition(work, at));
    }),
    { numRuns: 20 },
  );
});

test("CHL-2 one wrong unit is found where it is looked at, and what has another length is wrong", () => {
  const work = { seedA: 1, seedB: 2, depth: 16 };
  const hashes = new Uint8Array(2 * UNITS);
  for (const at of [0, 777, UNITS - 1])
    new DataView(hashes.buffer).setUint16(2 * at, unitHash(work, at), true);
  expect(isRight(work, hashes, [0, 777, UNITS - 1])).toBe(true);
  expect(isRight({ ...work, seedB: 3 }, hashes, [0])).toBe(false);
  expect(isRight({ ...work, depth: 32 }, hashes, [0])).toBe(false);
  hashes[2 * 777 + 1] = (hashes[2 * 777 + 1] ?? 0) ^ 1;
  expect(isRight(work, hashes, [0, UNITS - 1])).toBe(true);
  expect(isRight(work, hashes, [0, 777])).toBe(false);
  expect(isRight(work, hashes.subarray(2), [0])).toBe(false);
  expect(isRight(work, new Uint8Array(0), [])).toBe(false);
});

test("CHL-1 the function is one that any provider runs, in dispatches that no driver takes for a hang", () => {
  expect(checkManifest(CHALLENGE_FUNCTION, LIMITS)).toMatchObject({ ok: true });
  expect(4 * SIZE * SIZE).toBeLessThanOrEqual(PORTABLE.bindingBytes);
  for (const depth of [16, 1_024, 4_096, 2 ** 18]) {
    const inputs = inputsOf({ seedA: 0, seedB: 0, depth });
    expect(inputs.depth * inputs.dispatches).toBe(depth);
    expect(inputs.depth).toBeLessThanOrEqual(MOST_IN_DISPATCH);
  }
  expect(operationsOf({ depth: 16 })).toBe(134_217_728);
});

test("CHL-3 a model's floor is that of the longest name that it begins with; of others nothing is known", () => {
  const floor = floorOf;
  expect(floor("RTX_4090")).toBeCloseTo(1_652);
  expect(floor("RTX_4090_LAPTOP_GPU")).toBe(floor("RTX_4090"));
  expect(floor("RTX_3060_TI")).toBeGreaterThan(floor("RTX_3060") ?? Number.POSITIVE_INFINITY);
  expect(floor("A100_SXM4_80GB")).toBe(floor("A100"));
  expect(floor("H2000")).toBeNull();
  expect(floor("UNKNOWN_GPU")).toBeNull();
  expect(floor("TOSTRING")).toBeNull();
  expect(floor("SWIFTSHADER"), "sold as what it is: a CPU").toBe(0);
});

test("CHL-4 a verdict vouches for one GPU, for seven days", () => {
  const verdict = { result: "verified", gops: 5, at: 1_000 } as const;
  expect(verifiedGpus(verdict, 1_000)).toBe(1);
  expect(verifiedGpus(verdict, 1_000 + VERDICT_MS - 1)).toBe(1);
  expect(verifiedGpus(verdict, 1_000 + VERDICT_MS)).toBe(0);
  expect(verifiedGpus(null, 0)).toBe(0);
  for (const result of ["slow", "unrated", "wrong"] as const)
    expect(verifiedGpus({ ...verdict, result }, 1_000)).toBe(0);
});
