import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import type { HexBytes } from "@gpux/protocol/ids";
import type { IntentKind, IntentRefusalCode } from "@gpux/protocol/intent";
import { decodeErrorResult, parseAbi } from "viem";

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
  "error ERC20InsufficientBalance(address sender, uint256 balance, uint256 needed)",
  "error ERC3009InvalidAuthorizationTime(uint256 validAfter, uint256 validBefore)",
  "error ERC3009InvalidSignature()",
  "error ERC3009UsedAuthorization(address authorizer, bytes32 nonce)",
]);
const abi = [...leaseEscrowAbi, ...tokenErrors];

const byString: readonly (readonly [pattern: RegExp, code: IntentRefusalCode])[] = [
  [/authorization is used or canceled/i, "authorization_used"],
  [/authorization is expired/i, "expired"],
  [/authorization is not yet valid/i, "too_early"],
  [/invalid signature/i, "bad_signature"],
  [/transfer amount exceeds balance/i, "insufficient_balance"],
];

/** `LeaseEscrow.Status`. */
export const CLOSED = 4;

function meaning(kind: IntentKind, name: string, args: readonly unknown[]): IntentRefusalCode {
  switch (name) {
    case "ERC3009UsedAuthorization":
      return "authorization_used";
    case "ERC3009InvalidSignature":
    case "BadSignature":
      return "bad_signature";
    case "ERC20InsufficientBalance":
      return "insufficient_balance";
    case "ERC3009InvalidAuthorizationTime":
    case "Expired":
      return "expired";
    case "BadStatus":
      return Number(args[0]) === CLOSED ? "lease_closed" : "lease_not_open";
    case "AboveDue":
      return "above_due";
    case "Stale":
      return kind === "close" ? "stale" : "nothing_due";
    case "TooEarly":
      return "too_early";
    default:
      return "escrow_refused";
  }
}

/** Reads what a simulated call reverted with; `message` is the node's own words, used where the data says nothing. */
export function refusalOf(kind: IntentKind, data: HexBytes, message: string): Refusal {
  try {
    const { errorName, args } = decodeErrorResult({ abi, data });
    const values: readonly unknown[] = args ?? [];
    if (errorName === "Error") {
      const text = String(values[0]).slice(0, 200);
      const code = byString.find(([pattern]) => pattern.test(text))?.[1];
      return { code: code ?? "token_refused", detail: text };
    }
    return {
      code: meaning(kind, errorName, values),
      detail: `${errorName}(${values.map(String).join(", ")})`,
    };
  } catch {
    // No data (out of gas, a token without reason) or an error that neither contract declares.
    const code = kind === "fund" || kind === "withdraw" ? "token_refused" : "escrow_refused";
    return { code, detail: message.slice(0, 200) };
  }
}
