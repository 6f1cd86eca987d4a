import fc from "fast-check";
import { concat, keccak256, toBytes } from "viem/utils";
import { describe, expect, test } from "vitest";
import {
  append,
  EMPTY_ROOT,
  emptyFrontier,
  Frontier,
  proof,
  proofsAfter,
  root,
  verifyProof,
} from "./merkle.ts";

const leaf = (n: number) => keccak256(toBytes(`leaf ${n}`));
const leavesTo = (size: number) => Array.from({ length: size }, (_, n) => leaf(n));
const frontierOf = (leaves: readonly `0x${string}`[]) => leaves.reduce(append, emptyFrontier());

/** RFC 6962 section 2.1, word for word: the oracle. */
function treeHash(leaves: readonly `0x${string}`[]): `0x${string}` {
  const [only] = leaves;
  if (only === undefined) return EMPTY_ROOT;
  if (leaves.length === 1) return keccak256(concat(["0x00", only]));
  const k = 2 ** (Math.ceil(Math.log2(leaves.length)) - 1);
  return keccak256(concat(["0x01", treeHash(leaves.slice(0, k)), treeHash(leaves.slice(k))]));
}

describe("root", () => {
  test("of no leaves is 32 zero bytes", () => {
    expect(root(emptyFrontier())).toBe(`0x${"00".repeat(32)}`);
  });

  test("is RFC 6962's for every size up to 70", () => {
    for (let size = 0; size <= 70; size += 1) {
      expect(root(frontierOf(leavesTo(size))), `size ${size}`).toBe(treeHash(leavesTo(size)));
    }
  });

  test("of two leaves is not the leaf hash of their concatenation", () => {
    const [a, b] = [leaf(0), leaf(1)];
    expect(root(frontierOf([a, b]))).not.toBe(keccak256(concat(["0x00", a, b])));
  });
});

describe("frontier", () => {
  test("survives JSON and keeps one peak per one in the binary size", () => {
    for (const [size, peaks] of [
      [0, 0],
      [1, 1],
      [7, 3],
      [8, 1],
      [1000, 6],
    ] as const) {
      const frontier = frontierOf(leavesTo(size));
      expect(frontier.peaks).toHaveLength(peaks);
      expect(Frontier.parse(JSON.parse(JSON.stringify(frontier)))).toEqual(frontier);
    }
  });

  test("append leaves the old frontier as it was", () => {
    const old = frontierOf(leavesTo(3));
    const before = structuredClone(old);
    append(old, leaf(3));
    expect(old).toEqual(before);
  });

  test("refuses a state whose peaks do not fit its size", () => {
    expect(Frontier.safeParse({ size: 2, peaks: [] }).success).toBe(false);
    expect(Frontier.safeParse({ size: 0, peaks: [leaf(0)] }).success).toBe(false);
  });
});

describe("proof", () => {
  test("of every leaf in every tree up to 33 verifies, and only at its own index, size, leaf and root", () => {
    for (let size = 1; size <= 33; size += 1) {
      const leaves = leavesTo(size);
      const expected = root(frontierOf(leaves));
      leaves.forEach((one, index) => {
        const path = proof(leaves, index);
        const at = `leaf ${index} of ${size}`;
        expect(verifyProof(expected, one, index, size, path), at).toBe(true);
        expect(verifyProof(expected, leaf(999), index, size, path), at).toBe(false);
        expect(verifyProof(leaf(999), one, index, size, path), at).toBe(false);
        expect(verifyProof(expected, one, index + 1, size, path), at).toBe(false);
        expect(verifyProof(expected, one, index, size, [...path, leaf(0)]), at).toBe(false);
        if (path.length > 0) expect(verifyProof(expected, one, index, size, path.slice(1)), at).toBe(false);
      });
    }
  });

  test("a changed sibling fails", () =>
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 40 }), fc.nat(), fc.nat(), (size, i, s) => {
        const leaves = leavesTo(size);
        const index = i % size;
        const path = proof(leaves, index);
        path[s % path.length] = leaf(1000);
        expect(verifyProof(root(frontierOf(leaves)), leaf(index), index, size, path)).toBe(false);
      }),
      { numRuns: 60 },
    ));

  test.each([
    [-1, 4],
    [4, 4],
    [0.5, 4],
    [0, 0],
    [Number.NaN, 4],
  ])("index %d of %d is refused", (index, size) => {
    expect(verifyProof(leaf(0), leaf(0), index, size, [])).toBe(false);
    expect(() => proof(leavesTo(size), index)).toThrow(RangeError);
  });
});

test("proves each leaf that is appended to a frontier, whose own leaves nobody has any more", () => {
  for (let before = 0; before < 9; before += 1)
    for (let size = before + 1; size <= 19; size += 1) {
      const all = leavesTo(size);
      const added = all.slice(before);
      const paths = proofsAfter(frontierOf(all.slice(0, before)), added);
      expect(paths).toEqual(added.map((_, i) => proof(all, before + i)));
    }
});
