import { describe, expect, test } from "vitest";
import { z } from "zod";
import {
  authorizationDigest,
  digest,
  escrowDomain,
  Funding,
  fundingNonce,
  LeaseTerms,
  leaseIdHash,
  Receipt,
  ReceiveWithAuthorization,
  tokenTypes,
  types,
} from "./eip712.ts";
import { MAX_AMOUNT } from "./money.ts";

const address = (digit: string) => `0x${digit.repeat(40)}`;
const word = (digit: string) => `0x${digit.repeat(64)}`;

const termsWire = {
  payer: address("1"),
  consumerSigner: address("2"),
  provider: address("3"),
  providerSigner: address("4"),
  meter: address("5"),
  feeRecipient: address("6"),
  feeBps: 250,
  upfront: "0",
  unattended: MAX_AMOUNT.toString(),
  ratePerHour: "18446744073709551615",
  expiry: 1_800_000_000,
  quote: word("7"),
};

const domain = escrowDomain({ chainId: 10, escrow: "0x00000000000000000000000000000000000000ee" });

describe("the signed text", () => {
  // DESIGN section 8 and the receipt: an independent copy on purpose, so that no edit of the fields goes unnoticed.
  const texts = [
    "LeaseTerms(address payer,address consumerSigner,address provider,address providerSigner,address meter,address feeRecipient,uint16 feeBps,uint88 upfront,uint88 unattended,uint64 ratePerHour,uint40 expiry,bytes32 quote)",
    "Funding(bytes32[] leaseIds,uint88[] amounts,bytes32 salt)",
    "Deposit(address payer,address spender,address meter,uint88 amount,bytes32 salt)",
    "Allocate(bytes32[] leaseIds,uint88[] fundedTo,uint40 validBefore)",
    "Release(address payer,address spender,address meter,uint40 validBefore)",
    "Usage(bytes32 leaseId,uint88 cumulative,bytes32 evidence)",
    "Allowance(bytes32 leaseId,uint88 cumulative)",
    "Close(bytes32 leaseId,uint88 cumulative,bytes32 evidence,uint40 validBefore)",
    "Exit(bytes32 leaseId)",
    "RevokeMeter(address meter)",
    "Receipt(bytes32 leaseId,bytes32 job,uint32 sequence,uint32 attempt,bytes32 inputHash,bytes32[] outputHashes,address node,string gpu,uint64 billedMs,uint88 price,uint88 cumulative,uint40 endedAt)",
    "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)",
  ];
  test("is the design's, field by field", () => {
    const written = Object.entries({ ...types, ...tokenTypes }).map(
      ([name, fields]) => `${name}(${fields.map((field) => `${field.type} ${field.name}`).join(",")})`,
    );
    expect(written).toEqual(texts);
  });
});

describe("wire form", () => {
  test("decodes to bigint amounts and encodes back to the same JSON", () => {
    const terms = LeaseTerms.parse(termsWire);
    expect(terms.unattended).toBe(MAX_AMOUNT);
    expect(terms.ratePerHour).toBe(2n ** 64n - 1n);
    expect(terms.expiry).toBe(1_800_000_000);
    expect(z.encode(LeaseTerms, terms)).toEqual(termsWire);
  });

  test("encodes structs with arrays and refinements", () => {
    const wire = { leaseIds: [word("a"), word("b")], amounts: ["1", "2"], salt: word("c") };
    expect(z.encode(Funding, Funding.parse(wire))).toEqual(wire);
  });

  test("lower-cases addresses and hashes", () => {
    const terms = LeaseTerms.parse({
      ...termsWire,
      payer: `0x${"Ab".repeat(20)}`,
      quote: `0x${"EF".repeat(32)}`,
    });
    expect(terms.payer).toBe(`0x${"ab".repeat(20)}`);
    expect(terms.quote).toBe(`0x${"ef".repeat(32)}`);
  });

  test.each([
    ["an unknown key", { extra: 1 }],
    ["a number as amount", { upfront: 1 }],
    ["a leading zero", { upfront: "01" }],
    ["an amount above uint88", { upfront: (MAX_AMOUNT + 1n).toString() }],
    ["a rate above uint64", { ratePerHour: "18446744073709551616" }],
    ["an expiry above uint40", { expiry: 2 ** 40 }],
    ["a fractional expiry", { expiry: 1.5 }],
    ["a fee above the contract's cap", { feeBps: 5_001 }],
    ["a short address", { payer: "0x1234" }],
    ["a missing field", { quote: undefined }],
  ])("refuses %s", (_what, change) => {
    expect(LeaseTerms.safeParse({ ...termsWire, ...change }).success).toBe(false);
  });

  test("refuses funding whose arrays differ in length", () => {
    expect(Funding.safeParse({ leaseIds: [word("a")], amounts: ["1", "2"], salt: word("c") }).success).toBe(
      false,
    );
  });

  test("refuses to encode an amount that the wire could not carry", () => {
    const terms = LeaseTerms.parse(termsWire);
    expect(z.safeEncode(LeaseTerms, { ...terms, upfront: -1n }).success).toBe(false);
    expect(z.safeEncode(LeaseTerms, { ...terms, upfront: MAX_AMOUNT + 1n }).success).toBe(false);
  });

  test("counts receipts from 1", () => {
    const wire = {
      leaseId: word("1"),
      job: word("2"),
      sequence: 1,
      attempt: 0,
      inputHash: word("3"),
      outputHashes: [word("4")],
      node: address("5"),
      gpu: "NVIDIA GeForce RTX 4090",
      billedMs: "1234",
      price: "56",
      cumulative: "78",
      endedAt: 1_700_000_000,
    };
    expect(z.encode(Receipt, Receipt.parse(wire))).toEqual(wire);
    expect(Receipt.safeParse({ ...wire, sequence: 0 }).success).toBe(false);
  });

  test("refuses an authorization that never ends", () => {
    const wire = {
      from: address("1"),
      to: address("2"),
      value: "5",
      validAfter: "0",
      validBefore: "1800000000",
      nonce: word("3"),
    };
    expect(z.encode(ReceiveWithAuthorization, ReceiveWithAuthorization.parse(wire))).toEqual(wire);
    const forever = { ...wire, validBefore: (2n ** 256n - 1n).toString() };
    expect(ReceiveWithAuthorization.safeParse(forever).success).toBe(false);
  });
});

describe("hashes", () => {
  test("the lease id is the digest of the terms and binds chain and contract", () => {
    const terms = LeaseTerms.parse(termsWire);
    expect(leaseIdHash(domain, terms)).toBe(digest(domain, "LeaseTerms", terms));
    const elsewhere = escrowDomain({ chainId: 11155420, escrow: domain.verifyingContract });
    expect(leaseIdHash(elsewhere, terms)).not.toBe(leaseIdHash(domain, terms));
  });

  test("the funding nonce depends on every part of the funding", () => {
    const funding = Funding.parse({ leaseIds: [word("a")], amounts: ["1"], salt: word("c") });
    const nonces = [
      funding,
      { ...funding, amounts: [2n] },
      { ...funding, salt: funding.leaseIds[0] ?? funding.salt },
    ].map(fundingNonce);
    expect(new Set(nonces).size).toBe(3);
  });

  test("an authorization is bound to the token", () => {
    const authorization = ReceiveWithAuthorization.parse({
      from: address("1"),
      to: address("2"),
      value: "5",
      validAfter: "0",
      validBefore: "1800000000",
      nonce: word("3"),
    });
    const usdc = { name: "USD Coin", version: "2", chainId: 10, verifyingContract: domain.verifyingContract };
    expect(authorizationDigest(usdc, authorization)).not.toBe(
      authorizationDigest({ ...usdc, version: "1" }, authorization),
    );
  });
});
