import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import { type IntentKind, IntentRefusalCode, intentHints } from "@gpux/protocol/intent";
import {
  type AbiParameter,
  encodeAbiParameters,
  encodeErrorResult,
  parseAbi,
  toFunctionSelector,
} from "viem";
import { describe, expect, test } from "vitest";
import { STATUS } from "./escrow-state.ts";
import { meanings, refusalOf } from "./refusal.ts";

const errors = leaseEscrowAbi.filter((entry) => entry.type === "error");

/** The error as the node answers it, with 7 for numbers and words of 1 for the rest. */
function revertOf(error: { readonly name: string; readonly inputs: readonly AbiParameter[] }) {
  const values = error.inputs.map(({ type }) => {
    if (type === "address") return `0x${"11".repeat(20)}`;
    if (type === "bytes32") return `0x${"11".repeat(32)}`;
    if (type === "string") return "text";
    return type === "uint8" ? 1 : 7n;
  });
  const signature = `${error.name}(${error.inputs.map(({ type }) => type).join(",")})`;
  return `${toFunctionSelector(signature)}${encodeAbiParameters(error.inputs, values).slice(2)}` as const;
}

describe("RLY-12 each error of the escrow", () => {
  test.each(errors.map((error) => [error.name, error] as const))(
    "%s is refused by a code that has a hint, and names itself",
    (name, error) => {
      const { code, detail } = refusalOf("settle", revertOf(error), "execution reverted");
      expect(IntentRefusalCode.options).toContain(code);
      expect(intentHints[code]).toMatch(/\.$/);
      expect(detail).toMatch(new RegExp(`^${name}\\(`));
      expect(meanings).toHaveProperty(name);
    },
  );

  test("has a meaning of its own, but for those that no call of ours can meet", () => {
    const unnamed = errors.filter(
      (error) => refusalOf("settle", revertOf(error), "").code === "escrow_refused",
    );
    expect(unnamed.map(({ name }) => name).toSorted()).toEqual([
      "BadDelays",
      "InvalidShortString",
      "MissingPrecompile",
      "NoToken",
      "ReentrancyGuardReentrantCall",
      "SafeCastOverflowedUintDowncast",
      "StringTooLong",
    ]);
  });

  test("and no error is known that neither escrow nor token has", () => {
    const known = new Set<string>(errors.map(({ name }) => name));
    const others = Object.keys(meanings).filter((name) => !known.has(name));
    expect(others.toSorted()).toEqual([
      "ERC20InsufficientBalance",
      "ERC3009InvalidAuthorizationTime",
      "ERC3009InvalidSignature",
      "ERC3009UsedAuthorization",
      "Error",
      "Panic",
    ]);
  });
});

describe("what hangs on more than the name", () => {
  const badStatus = (status: number) =>
    encodeErrorResult({ abi: leaseEscrowAbi, errorName: "BadStatus", args: [status] });
  const stale = encodeErrorResult({ abi: leaseEscrowAbi, errorName: "Stale", args: [7n] });
  const text = (reason: string) =>
    encodeErrorResult({ abi: parseAbi(["error Error(string)"]), errorName: "Error", args: [reason] });
  const panic = encodeErrorResult({
    abi: parseAbi(["error Panic(uint256)"]),
    errorName: "Panic",
    args: [17n],
  });
  const cases: [title: string, kind: IntentKind, data: `0x${string}`, code: IntentRefusalCode][] = [
    ["a lease that ended", "settle", badStatus(STATUS.closed), "lease_closed"],
    ["a lease that is exiting", "fund", badStatus(STATUS.exiting), "lease_not_open"],
    ["a lease that never was", "settle", badStatus(STATUS.none), "lease_not_open"],
    ["a voucher with nothing new", "settle", stale, "nothing_due"],
    ["a close below what is paid", "close", stale, "stale"],
    [
      "USDC's word for a used authorization",
      "fund",
      text("FiatTokenV2: authorization is used or canceled"),
      "authorization_used",
    ],
    ["USDC's word for a late one", "deposit", text("FiatTokenV2: authorization is expired"), "expired"],
    [
      "USDC's word for an early one",
      "deposit",
      text("FiatTokenV2: authorization is not yet valid"),
      "too_early",
    ],
    ["USDC's word for a wrong signature", "deposit", text("FiatTokenV2: invalid signature"), "bad_signature"],
    [
      "USDC's word for an empty wallet",
      "fund",
      text("ERC20: transfer amount exceeds balance"),
      "insufficient_balance",
    ],
    ["USDC that is paused", "withdraw", text("Pausable: paused"), "token_refused"],
    ["a sum that no uint88 holds", "fund", panic, "escrow_refused"],
    ["no reason, where the token is asked", "deposit", "0x", "token_refused"],
    ["no reason, where it is not", "release", "0x", "escrow_refused"],
    ["an error of nobody", "settle", "0xdeadbeef", "escrow_refused"],
  ];
  test.each(cases)("%s (%s)", (_title, kind, data, code) => {
    expect(refusalOf(kind, data, "the node's words")).toMatchObject({ code });
  });

  test("the token's words are bounded", () => {
    expect(refusalOf("fund", text("x".repeat(5_000)), "").detail).toHaveLength(200);
    expect(refusalOf("fund", "0x", "y".repeat(5_000)).detail).toHaveLength(200);
  });
});
