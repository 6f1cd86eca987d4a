import fc from "fast-check";
import { keccak256 as oracle } from "viem/utils";
import { describe, expect, test } from "vitest";
import { BLOCKS_AT_ONCE, RATE_BYTES } from "./keccak/layout.ts";
import { keccak256, keccakBytes } from "./keccak.ts";

describe("SIG-2 keccak256", () => {
  test("of nothing and of a text is what everybody knows", () => {
    expect(keccak256(new Uint8Array())).toBe(
      "0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470",
    );
    expect(keccak256("abc")).toBe("0x4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45");
    expect(keccak256("abc")).toBe(keccak256(new TextEncoder().encode("abc")));
  });

  const chunk = BLOCKS_AT_ONCE * RATE_BYTES;
  test.each([
    ...[RATE_BYTES - 1, RATE_BYTES, RATE_BYTES + 1, 2 * RATE_BYTES - 1, 2 * RATE_BYTES],
    ...[chunk - 1, chunk, chunk + 1, 2 * chunk, 2 * chunk + RATE_BYTES],
  ])("of %i bytes, at the edge of a block or of the memory, is viem's", (length) => {
    const message = Uint8Array.from({ length }, (_, i) => i * 31);
    expect(keccak256(message)).toBe(oracle(message));
  });

  test("of any bytes is viem's", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 1_000 }), (message) => {
        expect(keccak256(message)).toBe(oracle(message));
        expect(keccakBytes(message)).toEqual(oracle(message, "bytes"));
      }),
    );
  });

  test("nothing of a message stays for the next", () => {
    const short = keccak256("a");
    keccak256(new Uint8Array(500).fill(255));
    expect(keccak256("a")).toBe(short);
    // A part of a larger buffer is hashed as that part.
    expect(keccak256(new Uint8Array([1, 2, 3, 4]).subarray(1, 3))).toBe(keccak256(new Uint8Array([2, 3])));
  });

  test("what it answered stays as it was", () => {
    const first = keccakBytes(new Uint8Array([1]));
    const copy = first.slice();
    keccakBytes(new Uint8Array([2]));
    expect(first).toEqual(copy);
  });
});
