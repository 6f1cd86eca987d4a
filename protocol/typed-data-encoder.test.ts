import fc from "fast-check";
import { hashStruct, hashTypedData } from "viem/utils";
import { describe, expect, test } from "vitest";
import { escrowDomain, type Struct, type StructName, types } from "./eip712.ts";
import { MAX_AMOUNT } from "./money.ts";
import { createHasher, encodeType, type TypedDataHasher } from "./typed-data-encoder.ts";

const hex = (size: number) =>
  fc
    .uint8Array({ minLength: size, maxLength: size })
    .map((bytes): `0x${string}` => `0x${Buffer.from(bytes).toString("hex")}`);
const address = hex(20);
const bytes32 = hex(32);
const amount = fc.oneof(fc.bigInt({ min: 0n, max: MAX_AMOUNT }), fc.constantFrom(0n, MAX_AMOUNT, 1n << 64n));
const uint64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const uint = (bits: number) => fc.integer({ min: 0, max: 2 ** Math.min(bits, 31) - 1 });
const seconds = fc.maxSafeNat().map((n) => n % 2 ** 40);
const list = <T>(item: fc.Arbitrary<T>) => fc.array(item, { maxLength: 5 });

const arbitraries: { [Name in StructName]: fc.Arbitrary<Struct<Name>> } = {
  LeaseTerms: fc.record({
    payer: address,
    consumerSigner: address,
    provider: address,
    providerSigner: address,
    meter: address,
    feeRecipient: address,
    feeBps: uint(16),
    upfront: amount,
    unattended: amount,
    ratePerHour: uint64,
    expiry: seconds,
    quote: bytes32,
  }),
  Funding: fc.record({ leaseIds: list(bytes32), amounts: list(amount), salt: bytes32 }),
  Deposit: fc.record({ payer: address, spender: address, meter: address, amount, salt: bytes32 }),
  Allocate: fc.record({ leaseIds: list(bytes32), fundedTo: list(amount), validBefore: seconds }),
  Release: fc.record({ payer: address, spender: address, meter: address, validBefore: seconds }),
  Usage: fc.record({ leaseId: bytes32, cumulative: amount, evidence: bytes32 }),
  Allowance: fc.record({ leaseId: bytes32, cumulative: amount }),
  Close: fc.record({ leaseId: bytes32, cumulative: amount, evidence: bytes32, validBefore: seconds }),
  Exit: fc.record({ leaseId: bytes32 }),
  RevokeMeter: fc.record({ meter: address }),
  Receipt: fc.record({
    leaseId: bytes32,
    job: bytes32,
    sequence: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
    attempt: uint(32),
    inputHash: bytes32,
    outputHashes: list(bytes32),
    node: address,
    gpu: fc.string({ unit: "grapheme", maxLength: 40 }),
    billedMs: uint64,
    price: amount,
    cumulative: amount,
    endedAt: seconds,
  }),
};

const place = fc.record({ chainId: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), escrow: address });

function agreesWithViem<Name extends StructName>(
  primaryType: Name,
  hashed: (hasher: TypedDataHasher, struct: Struct<Name>) => `0x${string}`,
) {
  fc.assert(
    fc.property(place, arbitraries[primaryType], (at, struct) => {
      const domain = escrowDomain(at);
      const plain: { types: Record<string, unknown>; primaryType: string } = { types, primaryType };
      const message: Record<string, unknown> = struct;
      const expected =
        primaryType === "Funding" || primaryType === "Deposit"
          ? hashStruct({ ...plain, data: message })
          : hashTypedData({ ...plain, domain, message });
      const hasher = createHasher(at);
      expect(hashed(hasher, struct)).toBe(expected);
      // Twice: the buffer is reused and must hold nothing of the first call.
      expect(hashed(hasher, struct)).toBe(expected);
    }),
    { numRuns: 200 },
  );
}

describe("agrees with viem on", () => {
  test("LeaseTerms", () => agreesWithViem("LeaseTerms", (hasher, terms) => hasher.leaseTerms(terms)));
  test("Funding", () => agreesWithViem("Funding", (hasher, funding) => hasher.fundingNonce(funding)));
  test("Deposit", () => agreesWithViem("Deposit", (hasher, deposit) => hasher.depositNonce(deposit)));
  test("Allocate", () => agreesWithViem("Allocate", (hasher, allocate) => hasher.allocate(allocate)));
  test("Release", () => agreesWithViem("Release", (hasher, release) => hasher.release(release)));
  test("Usage", () => agreesWithViem("Usage", (hasher, usage) => hasher.usage(usage)));
  test("Allowance", () => agreesWithViem("Allowance", (hasher, allowance) => hasher.allowance(allowance)));
  test("Close", () => agreesWithViem("Close", (hasher, close) => hasher.close(close)));
  test("Exit", () => agreesWithViem("Exit", (hasher, exit) => hasher.exit(exit)));
  test("RevokeMeter", () =>
    agreesWithViem("RevokeMeter", (hasher, revocation) => hasher.revokeMeter(revocation)));
  test("Receipt", () => agreesWithViem("Receipt", (hasher, receipt) => hasher.receipt(receipt)));
});

describe("never hashes a truncation", () => {
  const hasher = createHasher({ chainId: 10, escrow: `0x${"ee".repeat(20)}` });
  const leaseId = `0x${"aa".repeat(32)}` as const;

  test.each([
    ["an amount above uint88", { leaseId, cumulative: MAX_AMOUNT + 1n }],
    ["a negative amount", { leaseId, cumulative: -1n }],
    ["a short id", { leaseId: "0xaa" as const, cumulative: 1n }],
    ["an id that is no hex", { leaseId: `0x${"zz".repeat(32)}` as const, cumulative: 1n }],
  ])("throws on %s", (_what, allowance) => {
    expect(() => hasher.allowance(allowance)).toThrow(/uint88|bytes in hex|hex digit/);
  });

  test("throws on fractional seconds", () => {
    const release = { payer: `0x${"11".repeat(20)}`, spender: `0x${"22".repeat(20)}` } as const;
    expect(() => hasher.release({ ...release, meter: release.payer, validBefore: 1.5 })).toThrow(RangeError);
  });
});

test("upper-case hex hashes as lower-case", () => {
  const hasher = createHasher({ chainId: 10, escrow: `0x${"EE".repeat(20)}` });
  const same = createHasher({ chainId: 10, escrow: `0x${"ee".repeat(20)}` });
  expect(hasher.exit({ leaseId: `0x${"AB".repeat(32)}` })).toBe(
    same.exit({ leaseId: `0x${"ab".repeat(32)}` }),
  );
});

test("writes the type text in field order", () => {
  expect(encodeType("Usage", types.Usage)).toBe("Usage(bytes32 leaseId,uint88 cumulative,bytes32 evidence)");
});
