import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Bytes32 } from "../ids.ts";
import type { Ecdsa } from "./curve.ts";
import { curve } from "./node.ts";
import { curve as oracle } from "./portable.ts";

const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const FIELD = 0xfffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2fn;
const word = (value: bigint): Bytes32 => `0x${value.toString(16).padStart(64, "0")}`;
const number = (max: bigint) => fc.bigInt({ min: 0n, max }).map(word);
const anyWord = number((1n << 256n) - 1n);
const key = fc.bigInt({ min: 1n, max: ORDER - 1n }).map(word);
const edge = fc
  .constantFrom(0n, 1n, ORDER - 1n, ORDER, ORDER + 1n, FIELD - 1n, FIELD, (1n << 256n) - 1n)
  .map(word);
const parity = fc.constantFrom<0 | 1>(0, 1);

const same = async (digest: Bytes32, signature: Ecdsa) => {
  const found = await curve.recover(digest, signature);
  expect(found).toBe(await oracle.recover(digest, signature));
  return found;
};

describe("SIG-1 libsecp256k1 in WebAssembly against viem", () => {
  test("signs digests with every key to the same bytes, and recovers the key", () =>
    fc.assert(
      fc.asyncProperty(number(ORDER - 1n), key, async (digest, secret) => {
        const signature = await curve.sign(digest, secret);
        expect(signature).toEqual(await oracle.sign(digest, secret));
        expect(await same(digest, signature)).not.toBeNull();
      }),
      { numRuns: 150 },
    ));

  test("a digest that is no number below the order has another nonce here, and a signature as good", () =>
    fc.assert(
      fc.asyncProperty(
        fc.bigInt({ min: ORDER, max: (1n << 256n) - 1n }).map(word),
        key,
        async (digest, secret) => {
          const signer = await oracle.recover(digest, await oracle.sign(digest, secret));
          expect(await same(digest, await curve.sign(digest, secret))).toBe(signer);
        },
      ),
      { numRuns: 20 },
    ));

  test("recovers the same key, or none, from random numbers", () =>
    fc.assert(
      fc.asyncProperty(anyWord, anyWord, anyWord, parity, async (digest, r, s, yParity) => {
        await same(digest, { r, s, yParity });
      }),
      { numRuns: 150 },
    ));

  test("agrees at the edges of the order and the field, for r, s and digest", () =>
    fc.assert(
      fc.asyncProperty(
        fc.oneof(edge, anyWord),
        fc.oneof(edge, anyWord),
        fc.oneof(edge, anyWord),
        parity,
        async (digest, r, s, yParity) => {
          await same(digest, { r, s, yParity });
        },
      ),
      { numRuns: 300 },
    ));

  test("agrees on altered signatures: the high-s twin, the other parity, one bit in any place", () =>
    fc.assert(
      fc.asyncProperty(anyWord, key, fc.integer({ min: 0, max: 511 }), async (digest, secret, bit) => {
        const { r, s, yParity } = await curve.sign(digest, secret);
        const other = yParity === 1 ? 0 : 1;
        const signer = await same(digest, { r, s, yParity });
        expect(await same(digest, { r, s: word(ORDER - BigInt(s)), yParity: other })).toBe(signer);
        expect(await same(digest, { r, s, yParity: other })).not.toBe(signer);
        const flipped = ((BigInt(r) << 256n) | BigInt(s)) ^ (1n << BigInt(bit));
        const altered = { r: word(flipped >> 256n), s: word(flipped & ((1n << 256n) - 1n)), yParity };
        expect(await same(digest, altered)).not.toBe(signer);
      }),
      { numRuns: 60 },
    ));

  test("the key that would be the point at infinity is none", async () => {
    // R = s^-1 z G makes s R = z G, so that the recovered point is zero: r is the x of G for s = z = 1.
    const r = "0x79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    expect(await same(word(1n), { r, s: word(1n), yParity: 0 })).toBeNull();
  });

  test.each([
    ["zero", 0n],
    ["the order", ORDER],
    ["above the order", ORDER + 1n],
  ])("%s is no private key", async (_, secret) => {
    await expect(curve.sign(word(1n), word(secret))).rejects.toThrow();
    await expect(oracle.sign(word(1n), word(secret))).rejects.toThrow();
    // The library still works after what it refused.
    expect(await curve.sign(word(1n), word(2n))).toEqual(await oracle.sign(word(1n), word(2n)));
  });
});
