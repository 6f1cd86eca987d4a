import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import type { HexBytes } from "@gpux/protocol/ids";
import type { IntentKind, IntentRefusalCode } from "@gpux/protocol/intent";
import { type ContractErrorName, decodeErrorResult, parseAbi } from "viem";
import { STATUS } from "./escrow-state.ts";

/**
 * What a revert means. USDC (FiatTokenV2_2) reverts with strings, tokens after OpenZeppelin with custom errors; the
 * escrow's own are all custom and bubble through it unchanged.
 */
export interface Refusal {
  readonly code: IntentRefusalCode;
  readonly detail: string;
}

const tokenErrors = parseAbi([
  "error Error(string reason)",
  "error Panic(uint256 code)",
  "error ERC20InsufficientBalance(address sender, uint256 balance, uint256 needed)",
  "error ERC3009InvalidAuthorizationTime(uint256 validAfter, uint256 validBefore)",
  "error ERC3009InvalidSignature()",
  "error ERC3009UsedAuthorization(address authorizer, bytes32 nonce)",
]);
const abi = [...leaseEscrowAbi, ...tokenErrors] as const;

const byString: readonly (readonly [pattern: RegExp, code: IntentRefusalCode])[] = [
  [/authorization is used or canceled/i, "authorization_used"],
  [/authorization is expired/i, "expired"],
  [/authorization is not yet valid/i, "too_early"],
  [/invalid signature/i, "bad_signature"],
  [/transfer amount exceeds balance/i, "insufficient_balance"],
];

type Meaning = IntentRefusalCode | ((kind: IntentKind, args: readonly unknown[]) => IntentRefusalCode);

/** Every error that escrow or token declare. Those that no call of ours can meet are the deployment's or the compiler's. */
export const meanings: Readonly<Record<ContractErrorName<typeof abi>, Meaning>> = {
  AboveDue: "above_due",
  BadDelays: "escrow_refused",
  BadParty: "terms_refused",
  BadRoles: "intent_invalid",
  BadSignature: "bad_signature",
  BadStatus: (_kind, [status]) => (Number(status) === STATUS.closed ? "lease_closed" : "lease_not_open"),
  ERC20InsufficientBalance: "insufficient_balance",
  ERC3009InvalidAuthorizationTime: "expired",
  ERC3009InvalidSignature: "bad_signature",
  ERC3009UsedAuthorization: "authorization_used",
  Error: (_kind, [reason]) =>
    byString.find(([pattern]) => pattern.test(String(reason)))?.[1] ?? "token_refused",
  Expired: "expired",
  FeeTooHigh: "terms_refused",
  InsufficientCredit: "insufficient_credit",
  InvalidShortString: "escrow_refused",
  LengthMismatch: "intent_invalid",
  MissingPrecompile: "escrow_refused",
  NoRelease: "no_release",
  NoToken: "escrow_refused",
  NotPayer: "not_payer",
  NothingOwed: "nothing_owed",
  NothingToAllocate: "nothing_due",
  OtherCredit: "other_credit",
  // An amount that no uint88 holds.
  Panic: "escrow_refused",
  ReentrancyGuardReentrantCall: "escrow_refused",
  ReleasePending: "release_pending",
  ReleaseUsed: "release_used",
  RevokedMeter: "meter_revoked",
  SafeCastOverflowedUintDowncast: "escrow_refused",
  SafeERC20FailedOperation: "token_refused",
  SharedKey: "terms_refused",
  Stale: (kind) => (kind === "close" ? "stale" : "nothing_due"),
  StringTooLong: "escrow_refused",
  TermTooLong: "terms_refused",
  TooEarly: "too_early",
  TransferMismatch: "token_refused",
  ZeroAmount: "intent_invalid",
};

/** Kinds in which the token has a word as well. */
const WITH_TOKEN: ReadonlySet<IntentKind> = new Set(["fund", "deposit", "withdraw"]);

/** Reads what a simulated call reverted with; `message` is the node's own words, used where the data says nothing. */
export function refusalOf(kind: IntentKind, data: HexBytes, message: string): Refusal {
  try {
    const { errorName, args } = decodeErrorResult({ abi, data });
    const values: readonly unknown[] = args ?? [];
    const meaning = meanings[errorName];
    return {
      code: typeof meaning === "string" ? meaning : meaning(kind, values),
      detail:
        errorName === "Error"
          ? String(values[0]).slice(0, 200)
          : `${errorName}(${values.map(String).join(", ")})`,
    };
  } catch {
    // No data (out of gas, a token without reason) or an error that neither contract declares.
    const code = WITH_TOKEN.has(kind) ? "token_refused" : "escrow_refused";
    return { code, detail: message.slice(0, 200) };
  }
}
