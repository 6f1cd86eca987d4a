import { decodeFunctionData } from "viem";
import { describe, expect, test } from "vitest";
import { leaseEscrowAbi } from "./abi/lease-escrow.ts";
import { calldataOf, deadlineOf } from "./calldata.ts";
import { INTENT_KINDS, Intent, IntentKey, intentKey } from "./intent.ts";
import { account, browser, hasher, intentOf, intents, signature, terms, wireOf } from "./testing/intents.ts";
import golden from "./vectors/p256.json" with { type: "json" };

const key = { x: golden.x, y: golden.y };
const NO_KEY = { x: `0x${"00".repeat(32)}`, y: `0x${"00".repeat(32)}` };
const [r, s] = [browser.low.slice(0, 66), `0x${browser.low.slice(66, 130)}`];
const fits = (kind: Intent["kind"], change: object) => Intent.safeParse(wireOf(kind, change)).success;

/** Read back with the contract's own ABI. */
function callOf(intent: Intent) {
  const calldata = calldataOf(intent);
  if (calldata === null) throw new Error("no calldata");
  return decodeFunctionData({ abi: leaseEscrowAbi, data: calldata.data });
}

test("each kind has a call of the escrow, a bound of gas and a key", () => {
  expect(intents.map(({ kind }) => kind)).toEqual([...INTENT_KINDS]);
  const functions = intents.map((intent) => callOf(intent).functionName);
  expect(functions).toEqual([
    "fund",
    "deposit",
    "allocate",
    "settle",
    "close",
    "requestExit",
    "reclaim",
    "release",
    "reclaimCredit",
    "revokeMeter",
    "withdraw",
  ]);
  for (const intent of intents) {
    expect(calldataOf(intent)?.gas).toBeGreaterThan(50_000n);
    expect(IntentKey.parse(intentKey(hasher, intent))).toMatch(new RegExp(`^${intent.kind}:`));
  }
  const keys = intents.map((intent) => intentKey(hasher, intent));
  expect(new Set(keys).size).toBe(keys.length);
});

test("a deadline is the signature's, and of an opening the lease's as well", () => {
  expect(intents.map(deadlineOf)).toEqual([
    1_700_000_000,
    1_700_000_000,
    1_700_000_001,
    null,
    1_700_000_002,
    null,
    null,
    1_700_000_003,
    null,
    null,
    null,
  ]);
  expect(deadlineOf(intentOf("fund", { validBefore: 1_900_000_000 }))).toBe(terms.expiry);
});

describe("RLY-13 a consumer whose key is P-256", () => {
  test("signs usage by the low s, its key beside it", () => {
    const { args } = callOf(intentOf("settle"));
    expect(args?.[3]).toMatchObject({ roles: 3, a: { r, vs: s } });
    expect(args?.[5]).toEqual(key);
  });

  test("signs an allowance, under usage of the other two", () => {
    const { args } = callOf(intentOf("close"));
    expect(args?.[4]).toMatchObject({ roles: 6 });
    expect(args?.[5]).toEqual({ cumulative: 9n, sig: { r, vs: s } });
    expect(args?.[6]).toEqual(key);
  });

  test("names the key of the signature that is read: the usage's, where there are both", () => {
    const signatures = { consumer: signature, provider: signature };
    const { args } = callOf(intentOf("close", { signatures }));
    expect(args?.[6]).toEqual(NO_KEY);
  });

  test("allocates and exits by 128 bytes with the low s", () => {
    expect(callOf(intentOf("allocate")).args?.[3]).toBe(browser.low);
    expect(callOf(intentOf("exit")).args?.[1]).toBe(browser.low);
  });

  test("leaves a wallet's bytes alone, also those of a P-256 signature's length", () => {
    const strange = { ...terms, consumerSigner: account(2) };
    expect(callOf(intentOf("exit", { terms: strange })).args?.[1]).toBe(browser.high);
    expect(callOf(intentOf("release", { signature: browser.high })).args?.[4]).toBe(browser.high);
    const own = { spender: golden.signer, signature: browser.high };
    expect(callOf(intentOf("release", own)).args?.[4]).toBe(browser.low);
  });

  const malformed: [title: string, intent: Intent][] = [
    ["usage", intentOf("settle", { signatures: { consumer: `0x${"00".repeat(128)}`, meter: signature } })],
    [
      "an allowance",
      intentOf("close", { allowance: { cumulative: "9", signature: `0x${"ff".repeat(128)}` } }),
    ],
    ["an allocation", intentOf("allocate", { signature: `0x${"00".repeat(128)}` })],
    ["the meter's word", intentOf("allocate", { meterSignature: `0x${"ff".repeat(65)}` })],
    ["a co-signature", intentOf("release", { meterSignature: `0x${"ff".repeat(65)}` })],
    ["a revocation", intentOf("revoke_meter", { signature: `0x${"ff".repeat(65)}` })],
  ];
  test.each(malformed)("has no call for %s without sense", (_title, intent) => {
    expect(calldataOf(intent)).toBeNull();
  });

  test("is the only party with one: the others sign by 64 or 65 bytes", () => {
    const signatures = { provider: signature, meter: signature };
    expect(fits("settle", { signatures })).toBe(true);
    expect(fits("settle", { signatures: { ...signatures, provider: browser.low } })).toBe(false);
    expect(fits("revoke_meter", { signature })).toBe(true);
    expect(fits("revoke_meter", { signature: browser.low })).toBe(false);
  });
});

describe("the key of a meaning", () => {
  const keyOf = (kind: Intent["kind"], change: object = {}) => intentKey(hasher, intentOf(kind, change));

  test("does not hang on who signed it, nor an allocation's on its time", () => {
    expect(keyOf("allocate", { validBefore: 5, signature })).toBe(keyOf("allocate"));
    expect(keyOf("deposit", { validBefore: 5, signature: "0x" })).toBe(keyOf("deposit"));
    expect(keyOf("settle", { signatures: { consumer: signature, meter: signature } })).toBe(keyOf("settle"));
  });

  test("of usage hangs on how far the consumer allows it", () => {
    const signatures = { provider: signature, meter: signature };
    const allowed = (cumulative: string) => ({ signatures, allowance: { cumulative, signature } });
    const [signed, bare] = [keyOf("settle"), keyOf("settle", { signatures })];
    expect(signed).toBe(`${bare}:allowed`);
    expect(keyOf("settle", allowed("9"))).toBe(signed);
    expect(keyOf("settle", allowed("10"))).toBe(signed);
    expect(keyOf("settle", allowed("8"))).toBe(`${signed}:8`);
  });

  test("hangs on what it brings about", () => {
    expect(keyOf("allocate", { fundedTo: ["10"] })).not.toBe(keyOf("allocate"));
    expect(keyOf("deposit", { amount: "10" })).not.toBe(keyOf("deposit"));
    expect(keyOf("release", { meterSignature: signature })).toBe(`${keyOf("release")}:cosigned`);
    expect(keyOf("release", { validBefore: 5 })).not.toBe(keyOf("release"));
    expect(keyOf("reclaim_credit", { releaseAt: 5 })).not.toBe(keyOf("reclaim_credit"));
  });
});
