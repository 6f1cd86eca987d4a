import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import type { Intent } from "@gpux/protocol/intent";
import { quoteAt } from "@gpux/sdk/testing/market";
import { encodeErrorResult, parseAbi } from "viem";
import { expect, it } from "vitest";
import { explainRevert, isDoneAlready } from "./refusal.ts";
import { timeText } from "./time.ts";

const NOW = 1_800_000_000;
const { terms } = quoteAt(NOW * 1_000);
const settle: Intent = {
  kind: "settle",
  terms,
  cumulative: 2_000_000n,
  evidence: `0x${"00".repeat(32)}`,
  signatures: { provider: `0x${"11".repeat(64)}`, meter: `0x${"11".repeat(64)}` },
};
const account = `0x${"ab".repeat(20)}` as const;
const abi = leaseEscrowAbi;

it.each([
  [
    encodeErrorResult({ abi, errorName: "TooEarly", args: [BigInt(NOW + 3_600)] }),
    "too_early",
    /2027-01-15T09:00:00Z \(in 60 min\)/,
    false,
  ],
  [encodeErrorResult({ abi, errorName: "BadStatus", args: [0] }), "unknown_lease", /never funded/, false],
  [encodeErrorResult({ abi, errorName: "BadStatus", args: [2] }), "exit_asked", /already/, true],
  [encodeErrorResult({ abi, errorName: "BadStatus", args: [3] }), "exit_asked", /already/, true],
  [encodeErrorResult({ abi, errorName: "BadStatus", args: [4] }), "lease_closed", /closed/, true],
  [encodeErrorResult({ abi, errorName: "Stale", args: [2_000_000n] }), "paid_already", /2\.00 USDC/, true],
  // Signed for more than is paid: a cap holds the rest back, so it is not done.
  [
    encodeErrorResult({ abi, errorName: "Stale", args: [1_999_999n] }),
    "nothing_due",
    /1\.999999 USDC/,
    false,
  ],
  [
    encodeErrorResult({ abi, errorName: "AboveDue", args: [3n, 2n] }),
    "above_due",
    /0\.000002 are due/,
    false,
  ],
  [encodeErrorResult({ abi, errorName: "Expired", args: [BigInt(NOW - 60)] }), "expired", /60 s ago/, false],
  [encodeErrorResult({ abi, errorName: "BadSignature", args: [account] }), "bad_signature", /0xAb/i, false],
  [encodeErrorResult({ abi, errorName: "NothingOwed", args: [account] }), "nothing_owed", /nothing/, true],
  [
    encodeErrorResult({ abi, errorName: "RevokedMeter", args: [account] }),
    "refused",
    /RevokedMeter\(0x/i,
    false,
  ],
  [
    encodeErrorResult({
      abi: parseAbi(["error Error(string)"]),
      errorName: "Error",
      args: ["Blacklistable: account is blacklisted"],
    }),
    "token_refused",
    /blacklisted/,
    false,
  ],
  ["0x", "refused", /says not why/, false],
  ["0xdeadbeef", "refused", /0xdeadbeef/, false],
] as const)("explains %s as %s", (data, code, message, already) => {
  const error = explainRevert(data, settle, NOW);
  expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
  expect(error.hint).not.toBe("");
  expect(isDoneAlready(error)).toBe(already);
});

it.each([
  [90, "90 s"],
  [5_400, "90 min"],
  [86_400, "24 h"],
  [604_800, "7 days"],
])("says how far %i s are", (apart, text) => {
  expect(timeText(NOW + apart, NOW)).toContain(`(in ${text})`);
  expect(timeText(NOW - apart, NOW)).toContain(`(${text} ago)`);
});
