import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import type { Intent } from "@gpux/protocol/intent";
import { formatAmount } from "@gpux/protocol/money";
import { BaseError, type DecodeErrorResultReturnType, decodeErrorResult, parseAbi } from "viem";
import { z } from "zod";
import { ChainError } from "../outcome.ts";
import { timeText } from "./time.ts";

const Hex = z.templateLiteral(["0x", z.string().regex(/^[0-9a-fA-F]*$/)]);
/** Nodes put what a call reverted with into `error.data`, or one deeper. */
const RevertData = z.object({
  data: z.union([Hex, z.looseObject({ data: Hex }).transform(({ data }) => data)]),
});

/** What a call reverted with; null when it failed otherwise (the node's or the network's trouble). */
export function revertDataOf(error: unknown): `0x${string}` | null {
  if (!(error instanceof BaseError)) return null;
  const parsed = RevertData.safeParse(error.walk());
  return parsed.success ? parsed.data.data : null;
}

/** The token's own refusals come through as `Error(string)`. */
const errorsAbi = [...leaseEscrowAbi, ...parseAbi(["error Error(string)"])] as const;
type EscrowError = DecodeErrorResultReturnType<typeof errorsAbi>;

/** Nothing is left to do: somebody did it, or a newer one was there before. */
const DONE: ReadonlySet<string> = new Set(["paid_already", "lease_closed", "exit_asked", "nothing_owed"]);
export const isDoneAlready = (error: ChainError): boolean => DONE.has(error.code);

/** Why the escrow (or the token behind it) refuses, in words; `now` is the chain's time in seconds. */
export function explainRevert(data: `0x${string}`, intent: Intent, now: number): ChainError {
  let decoded: EscrowError;
  try {
    decoded = decodeErrorResult({ abi: errorsAbi, data });
  } catch {
    return new ChainError(
      "refused",
      data === "0x" ? "The call fails, and says not why" : `The call fails with ${data}`,
      "Check that --escrow is the LeaseEscrow of this chain; a revert without words is often the token's.",
    );
  }
  return explained(decoded, intent, now);
}

function explained(error: EscrowError, intent: Intent, now: number): ChainError {
  switch (error.errorName) {
    case "TooEarly":
      return new ChainError(
        "too_early",
        `Its time comes at ${timeText(Number(error.args[0]), now)}`,
        "Run the same again then; nobody can prevent it.",
      );
    case "BadStatus":
      return ofStatus(error.args[0]);
    case "Stale": {
      const [paid] = error.args;
      const more = "cumulative" in intent && intent.cumulative > paid;
      return new ChainError(
        more ? "nothing_due" : "paid_already",
        `${formatAmount(paid)} USDC of this lease are paid already`,
        more
          ? "Its funding or the clock of its terms holds the rest back; if the lease runs, try again later."
          : "There is nothing left to do: withdraw what is owed with gpux rescue withdraw.",
      );
    }
    case "AboveDue": {
      const [cumulative, due] = error.args;
      return new ChainError(
        "above_due",
        `The close is over ${formatAmount(cumulative)} USDC, and ${formatAmount(due)} are due by now`,
        "Its clock or its allowance holds it back; settle the voucher instead, or try again later.",
      );
    }
    case "Expired":
      return new ChainError(
        "expired",
        `Its time was over at ${timeText(Number(error.args[0]), now)}`,
        "A close or a funding that has expired is worth nothing any more; a voucher still is.",
      );
    case "BadSignature":
      return new ChainError(
        "bad_signature",
        `A signature is not that of ${error.args[0]}`,
        "It was signed by another key, over other terms, or for another chain or escrow.",
      );
    case "NothingOwed":
      return new ChainError(
        "nothing_owed",
        `The escrow owes ${error.args[0]} nothing`,
        "Settle, close or reclaim first; gpux rescue status shows what is owed to whom.",
      );
    case "Error":
      return new ChainError(
        "token_refused",
        `The token refuses: ${error.args[0]}`,
        "Paused, blocked, already used, or too little of it: that is between the account and the token.",
      );
    default:
      return new ChainError(
        "refused",
        `The escrow refuses: ${error.errorName}(${error.args?.join(", ") ?? ""})`,
        "The rule behind it is in contracts/src/ILeaseEscrow.sol.",
      );
  }
}

const NONE = 0;
const CLOSED = 4;

function ofStatus(status: number): ChainError {
  if (status === NONE)
    return new ChainError(
      "unknown_lease",
      "There is no such lease in this escrow on this chain: it was never funded there",
      "Check --rpc and --escrow, and that the terms are the ones that were funded.",
    );
  if (status === CLOSED)
    return new ChainError(
      "lease_closed",
      "The lease is closed",
      "Its money is at the parties or owed to them: gpux rescue withdraw.",
    );
  return new ChainError(
    "exit_asked",
    "The exit was asked for already",
    "When its delay is over, get the rest with gpux rescue reclaim; status says when.",
  );
}
