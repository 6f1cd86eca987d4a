import fc from "fast-check";
import { bytesToHex, hexToBytes, keccak256, toBytes } from "viem/utils";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { ConsumerSignature, consumerOf } from "./consumer-signature.ts";
import { Address, Bytes32, HexBytes } from "./ids.ts";
import { p256Address, p256Signer, serializeP256, toP256 } from "./p256.ts";
import golden from "./vectors/p256.json" with { type: "json" };
import typedData from "./vectors/typed-data.json" with { type: "json" };

const ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const vectors = z
  .array(z.object({ name: z.string(), digest: Bytes32, signature: HexBytes, high: HexBytes }))
  .parse(golden.vectors);
const [usage] = vectors;
if (usage === undefined) throw new Error("no vectors");
/** `signature` with the n-th of its four words exchanged. */
const withWord = (signature: string, n: number, value: bigint) =>
  `${signature.slice(0, 2 + 64 * n)}${value.toString(16).padStart(64, "0")}${signature.slice(66 + 64 * n)}`;

describe("golden vectors, signed by OpenSSL", () => {
  test.each(vectors)("$name, low and high", async ({ name, digest, signature, high }) => {
    expect(digest).toBe(typedData.vectors.find((each) => each.name === name)?.digest);
    expect(await p256Signer(digest, signature)).toBe(golden.signer);
    expect(await p256Signer(digest, high)).toBe(golden.signer);
    expect(await consumerOf(digest, signature)).toBe(golden.signer);
  });

  test("a high s becomes the low one, which the contract takes", () => {
    for (const { signature, high } of vectors) {
      const parts = toP256(high);
      expect(parts && serializeP256(parts)).toBe(signature);
      expect(toP256(signature)).toEqual(parts);
    }
  });

  test("the id is the end of the hash of the key", () => {
    expect(p256Address({ x: Bytes32.parse(golden.x), y: Bytes32.parse(golden.y) })).toBe(golden.signer);
  });
});

describe("no signer", () => {
  const { signature } = usage;
  const refused: [title: string, signature: string][] = [
    ["a byte too few", signature.slice(0, -2)],
    ["a byte too many", `${signature}00`],
    ["no hex", `0x${"zz".repeat(128)}`],
    ["r of zero", withWord(signature, 0, 0n)],
    ["r of the order", withWord(signature, 0, ORDER)],
    ["s of zero", withWord(signature, 1, 0n)],
    ["s of the order", withWord(signature, 1, ORDER)],
    ["another r", withWord(signature, 0, 5n)],
    ["a key off the curve", withWord(signature, 3, 5n)],
    ["a key of zeros", withWord(withWord(signature, 2, 0n), 3, 0n)],
    ["a coordinate above the field", withWord(signature, 2, (1n << 256n) - 1n)],
  ];
  test.each(refused)("%s", async (_title, changed) => {
    expect(await p256Signer(usage.digest, changed)).toBeNull();
  });

  test("over another digest", async () => {
    expect(await p256Signer(keccak256(toBytes("another")), signature)).toBeNull();
  });
});

test("a WebCrypto key that nobody can export signs anything, and only as itself", async () => {
  const { privateKey, publicKey } = await crypto.subtle.generateKey(algorithm, false, ["sign", "verify"]);
  const point = bytesToHex(new Uint8Array(await crypto.subtle.exportKey("raw", publicKey)));
  const key = {
    x: Bytes32.parse(point.slice(0, 2) + point.slice(4, 68)),
    y: Bytes32.parse(`0x${point.slice(68)}`),
  };
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 32, maxLength: 32 }), async (bytes) => {
      const digest = bytesToHex(bytes);
      const pair = await crypto.subtle.sign(algorithm, privateKey, Uint8Array.from(hexToBytes(digest)));
      const signature = `${bytesToHex(new Uint8Array(pair))}${key.x.slice(2)}${key.y.slice(2)}`;
      const signer = Address.parse(p256Address(key));
      expect(await p256Signer(digest, signature)).toBe(signer);
      expect(await p256Signer(digest, withWord(signature, 2, BigInt(golden.x)))).toBeNull();
    }),
    { numRuns: 30 },
  );
});

test("a consumer's signature has one of three lengths, and each kind names its signer", async () => {
  const [vector] = typedData.vectors.filter(({ name }) => name === "usage");
  const [consumer] = vector?.signatures ?? [];
  if (vector === undefined || consumer === undefined) throw new Error("no vector");
  expect(await consumerOf(Bytes32.parse(vector.digest), consumer.signature)).toBe(consumer.signer);
  for (const length of [64, 65, 128])
    expect(ConsumerSignature.safeParse(`0x${"11".repeat(length)}`).success).toBe(true);
  for (const length of [0, 63, 66, 127, 129])
    expect(ConsumerSignature.safeParse(`0x${"11".repeat(length)}`).success).toBe(false);
});
