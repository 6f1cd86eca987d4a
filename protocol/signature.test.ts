import fc from "fast-check";
import { parseSignature, serializeCompactSignature, signatureToCompactSignature } from "viem";
import { privateKeyToAccount, sign } from "viem/accounts";
import { keccak256, toBytes } from "viem/utils";
import { describe, expect, test } from "vitest";
import { fromCompact, recoverSigner, serializeCompact, toCompact } from "./signature.ts";

const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const key = `0x${"11".repeat(32)}` as const;
const signer = privateKeyToAccount(key).address.toLowerCase();
const digest = keccak256(toBytes("a digest"));
const signature = await sign({ hash: digest, privateKey: key, to: "hex" });

function highS(low: string): string {
  const s = ORDER - BigInt(`0x${low.slice(66, 130)}`);
  const v = low.endsWith("1b") ? "1c" : "1b";
  return `0x${low.slice(2, 66)}${s.toString(16).padStart(64, "0")}${v}`;
}

describe("encodings", () => {
  test("65 bytes go to EIP-2098 and back, as viem does it", () =>
    fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 32, maxLength: 32 }), async (hash) => {
        const long = await sign({ hash: keccak256(hash), privateKey: key, to: "hex" });
        const compact = toCompact(long);
        if (compact === null) throw new Error("a fresh signature is well formed");
        const short = serializeCompact(compact);
        expect(short).toBe(serializeCompactSignature(signatureToCompactSignature(parseSignature(long))));
        expect(fromCompact(compact)).toBe(long);
        expect(toCompact(short)).toEqual(compact);
      }),
      { numRuns: 50 },
    ));

  test("v of 0 and 1 means 27 and 28", () => {
    const parity = signature.endsWith("1c") ? "01" : "00";
    expect(toCompact(`${signature.slice(0, -2)}${parity}`)).toEqual(toCompact(signature));
  });

  test("high-s is refused in both forms", () => {
    expect(toCompact(highS(signature))).toBeNull();
    const s = `0x7${"f".repeat(63)}` as const;
    expect(fromCompact({ r: `0x${signature.slice(2, 66)}`, vs: s })).toBeNull();
  });

  test.each([
    "",
    "0x",
    "0x1234",
    signature.slice(2),
    `${signature}00`,
    signature.replace(/..$/, "1d"),
    `0x${"g".repeat(130)}`,
  ])("malformed is null: %s", (text) => {
    expect(toCompact(text)).toBeNull();
  });
});

describe("recoverSigner", () => {
  test("finds the signer from 65 and from 64 bytes", async () => {
    const compact = toCompact(signature);
    if (compact === null) throw new Error("a fresh signature is well formed");
    expect(await recoverSigner(digest, signature)).toBe(signer);
    expect(await recoverSigner(digest, serializeCompact(compact))).toBe(signer);
  });

  test("another digest gives another address", async () => {
    expect(await recoverSigner(keccak256(digest), signature)).not.toBe(signer);
  });

  test("refuses the high-s twin that the curve itself would accept", async () => {
    expect(await recoverSigner(digest, highS(signature))).toBeNull();
  });

  test.each([
    ["r of zero", `0x${"00".repeat(32)}${signature.slice(66)}`],
    ["s of zero", `${signature.slice(0, 66)}${"00".repeat(32)}1b`],
    ["r above the order", `0x${"ff".repeat(32)}${signature.slice(66)}`],
    ["all zero", `0x${"00".repeat(65)}`],
    ["text", "not a signature"],
  ])("is null for %s", async (_what, bad) => {
    expect(await recoverSigner(digest, bad)).toBeNull();
  });

  test("never throws on random bytes", () =>
    fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 60, maxLength: 70 }), async (bytes) => {
        const found = await recoverSigner(digest, `0x${Buffer.from(bytes).toString("hex")}`);
        expect(found).not.toBe(signer);
      }),
      { numRuns: 100 },
    ));
});
