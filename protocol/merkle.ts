import { z } from "zod";
import { putHex } from "./hex.ts";
import { Bytes32 } from "./ids.ts";
import { keccak256 } from "./keccak.ts";

/**
 * The evidence tree of a lease: append-only, in the shape of RFC 6962 section 2.1, over keccak256. A leaf is the
 * EIP-712 *digest* of a {@link file://./eip712.ts Receipt}, not its struct hash: so a root also names chain and
 * contract. Prefixes 0x00 (leaf) and 0x01 (node) keep a node from passing as a leaf.
 *
 * The meter keeps only the frontier, the roots of the full subtrees from the largest to the smallest: O(log n),
 * so a voucher's `evidence` costs the same after a million receipts. Who publishes receipts keeps the leaves.
 */

const HASH = 32;
/** Each with its prefix in front; reused, since hashing is synchronous. */
const leafInput = new Uint8Array(1 + HASH);
const nodeInput = new Uint8Array(1 + 2 * HASH);
nodeInput[0] = 1;

/** The root of no receipts. */
export const EMPTY_ROOT: Bytes32 = `0x${"00".repeat(32)}`;

/** Subtrees of a tree of `size` leaves: the ones in its binary form. */
function peakCount(size: number): number {
  let count = 0;
  for (let rest = size; rest > 0; rest = Math.floor(rest / 2)) count += rest % 2;
  return count;
}

/** Plain JSON, to be stored beside the lease's meter. */
export const Frontier = z
  .strictObject({ size: z.int().min(0), peaks: z.array(Bytes32).max(53) })
  .refine((frontier) => peakCount(frontier.size) === frontier.peaks.length, "one peak for each full subtree");
export type Frontier = z.infer<typeof Frontier>;

function leafHash(leaf: Bytes32): Bytes32 {
  putHex(leafInput, 1, leaf, HASH);
  return keccak256(leafInput);
}

function nodeHash(left: Bytes32, right: Bytes32): Bytes32 {
  putHex(nodeInput, 1, left, HASH);
  putHex(nodeInput, 1 + HASH, right, HASH);
  return keccak256(nodeInput);
}

export function emptyFrontier(): Frontier {
  return { size: 0, peaks: [] };
}

/** A new frontier; the old one stays valid. */
export function append(frontier: Frontier, leaf: Bytes32): Frontier {
  const peaks = [...frontier.peaks];
  let hash = leafHash(leaf);
  // Each trailing one in the old size is a full subtree as large as what has been built so far.
  for (let rest = frontier.size; rest % 2 === 1; rest = Math.floor(rest / 2)) {
    const left = peaks.pop();
    if (left === undefined) throw new Error("a frontier lacks a peak that its size asks for");
    hash = nodeHash(left, hash);
  }
  peaks.push(hash);
  return { size: frontier.size + 1, peaks };
}

/** What stands in a voucher as `evidence`. */
export function root(frontier: Frontier): Bytes32 {
  return (
    frontier.peaks.reduceRight<Bytes32 | null>(
      (right, left) => (right === null ? left : nodeHash(left, right)),
      null,
    ) ?? EMPTY_ROOT
  );
}

/** The largest power of two below `size`, where RFC 6962 splits a tree. */
function splitOf(size: number): number {
  let split = 1;
  while (split * 2 < size) split *= 2;
  return split;
}

function rootOf(leaves: readonly Bytes32[]): Bytes32 {
  return root(leaves.reduce(append, emptyFrontier()));
}

/**
 * The audit path of leaf `index` (from 0), nearest sibling first, as in RFC 6962 section 2.1.1.
 * Throws a RangeError when there is no such leaf.
 */
export function proof(leaves: readonly Bytes32[], index: number): Bytes32[] {
  if (!Number.isInteger(index) || index < 0 || index >= leaves.length)
    throw new RangeError(`no leaf ${index}`);
  if (leaves.length === 1) return [];
  const split = splitOf(leaves.length);
  const left = leaves.slice(0, split);
  const right = leaves.slice(split);
  return index < split
    ? [...proof(left, index), rootOf(right)]
    : [...proof(right, index - split), rootOf(left)];
}

/**
 * The audit paths of `leaves` under the root of the tree that they bring `frontier` to, with nothing else known of what
 * came before: a leaf's siblings to the left are full subtrees, so those that hold old leaves only are peaks.
 */
export function proofsAfter(frontier: Frontier, leaves: readonly Bytes32[]): Bytes32[][] {
  const { size } = frontier;
  const paths = leaves.map((): Bytes32[] => []);
  const peaks = new Map<number, Bytes32>();
  let start = 0;
  for (const peak of frontier.peaks) {
    peaks.set(start, peak);
    start += splitOf(size - start + 1);
  }
  const walk = (from: number, to: number): Bytes32 => {
    const known = to <= size ? peaks.get(from) : undefined;
    if (known !== undefined) return known;
    const leaf = leaves[from - size];
    if (to - from === 1 && leaf !== undefined) return leafHash(leaf);
    const middle = from + splitOf(to - from);
    const left = walk(from, middle);
    const right = walk(middle, to);
    for (let i = Math.max(from, size); i < to; i += 1) paths[i - size]?.push(i < middle ? right : left);
    return nodeHash(left, right);
  };
  if (leaves.length > 0) walk(0, size + leaves.length);
  return paths;
}

/** Whether `leaf` is number `index` (from 0) of the `size` leaves under `expected` (RFC 9162 section 2.1.3.2). */
export function verifyProof(
  expected: Bytes32,
  leaf: Bytes32,
  index: number,
  size: number,
  path: readonly Bytes32[],
): boolean {
  if (!Number.isSafeInteger(index) || !Number.isSafeInteger(size) || index < 0 || index >= size) return false;
  let node = index;
  let last = size - 1;
  let hash = leafHash(leaf);
  for (const sibling of path) {
    if (last === 0) return false;
    if (node % 2 === 1 || node === last) {
      hash = nodeHash(sibling, hash);
      // A right edge that is a left child has no sibling on these levels: climb to where it has.
      while (node % 2 === 0 && node !== 0) {
        node = Math.floor(node / 2);
        last = Math.floor(last / 2);
      }
    } else {
      hash = nodeHash(hash, sibling);
    }
    node = Math.floor(node / 2);
    last = Math.floor(last / 2);
  }
  return last === 0 && hash === expected;
}
