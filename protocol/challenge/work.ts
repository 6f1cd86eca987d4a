import { MOST_IN_DISPATCH, SIZE, UNIT, UNITS, UNITS_ACROSS } from "./function.ts";

/** What a node is to compute: two seeds, and how deep the product is (a multiple of {@link STEP}). */
export interface Work {
  readonly seedA: number;
  readonly seedB: number;
  readonly depth: number;
}

/** Multiplications and additions of it. */
export function operationsOf({ depth }: Pick<Work, "depth">): number {
  return 2 * SIZE * SIZE * depth;
}

/** What the challenge's function is given. */
export function inputsOf({ seedA, seedB, depth }: Work) {
  const perDispatch = Math.min(depth, MOST_IN_DISPATCH);
  return { seed_a: seedA, seed_b: seedB, depth: perDispatch, dispatches: Math.ceil(depth / perDispatch) };
}

/**
 * Whether `hashes` (16 bits for each unit, little-endian) is right where it is looked at: the `units` are computed anew,
 * each of them a {@link UNITS}th of the whole. A share of the work that was left out is missed at one unit with the
 * probability of what was done; a unit's hash is guessed once in 65,536 tries.
 */
export function isRight(work: Work, hashes: Uint8Array, units: readonly number[]): boolean {
  if (hashes.length !== 2 * UNITS) return false;
  return units.every((unit) => {
    const said = (hashes[2 * unit] ?? 0) | ((hashes[2 * unit + 1] ?? 0) << 8);
    return said === unitHash(work, unit);
  });
}

/** As the function computes it (function.ts). */
export function unitHash({ seedA, seedB, depth }: Work, unit: number): number {
  const row = Math.floor(unit / UNITS_ACROSS) * UNIT;
  const column = (unit % UNITS_ACROSS) * UNIT;
  const rowKeys = Uint32Array.from({ length: UNIT }, (_, i) => key(seedA, row + i));
  const columnKeys = Uint32Array.from({ length: UNIT }, (_, i) => key(seedB, column + i));
  const product = productOf(rowKeys, columnKeys, depth);
  let sum = 0;
  for (let r = 0; r < UNIT; r += 1)
    for (let c = 0; c < UNIT; c += 1)
      sum = (sum + key(product[r * UNIT + c] ?? 0, (row + r) * SIZE + column + c)) | 0;
  return sum >>> 16;
}

/** All of the time goes here; it names nothing of another module, which some loaders look up at each use. */
function productOf(rowKeys: Uint32Array, columnKeys: Uint32Array, depth: number): Int32Array {
  const size = rowKeys.length;
  const columns = new Int32Array(size);
  const product = new Int32Array(size * size);
  for (let k = 0; k < depth; k += 1) {
    for (let c = 0; c < size; c += 1) columns[c] = element(columnKeys[c] ?? 0, k);
    for (let r = 0; r < size; r += 1) {
      const a = element(rowKeys[r] ?? 0, k);
      const at = r * size;
      for (let c = 0; c < size; c += 1)
        product[at + c] = ((product[at + c] ?? 0) + Math.imul(a, columns[c] ?? 0)) | 0;
    }
  }
  return product;
}

/** The constants are of MurmurHash3's finalizer and of Wellons' `lowbias32`. */
function key(seed: number, at: number): number {
  let x = seed ^ Math.imul(at, 0x9e3779b1);
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return x ^ (x >>> 16);
}

function element(line: number, k: number): number {
  const x = Math.imul(line ^ Math.imul(k, 0x9e3779b1), 0x85ebca6b);
  return Math.imul(x ^ (x >>> 15), 0xc2b2ae35);
}
