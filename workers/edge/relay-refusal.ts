import type { ErrorCode } from "@gpux/protocol/errors";
import { type IntentAnswer, type IntentRefusalCode, intentHints } from "@gpux/protocol/intent";
import { type Refusal, refuse } from "./refusal.ts";

/** The API's code for the relayer's: what other routes say as well, they say by the same code. */
export function errorOf(code: IntentRefusalCode): ErrorCode {
  switch (code) {
    case "intent_invalid":
      return "invalid_request";
    case "expired":
      return "intent_expired";
    case "bad_signature":
      return "intent_signature_invalid";
    case "insufficient_balance":
      return "insufficient_funds";
    case "stale":
      return "voucher_stale";
    case "reverted":
      return "intent_reverted";
    case "wallet_not_deployed":
    case "insufficient_credit":
    case "authorization_used":
    case "token_refused":
    case "not_payer":
    case "terms_refused":
    case "meter_revoked":
    case "other_credit":
    case "lease_not_open":
    case "lease_closed":
    case "above_due":
    case "nothing_due":
    case "too_early":
    case "nothing_owed":
    case "release_used":
    case "release_pending":
    case "no_release":
    case "escrow_refused":
    case "over_budget":
    case "relayer_low_balance":
    case "rate_limited":
    case "daily_cap":
      return code;
  }
}

/** `refusal` is the relayer's own code, as `GET /v1/relay/{key}` shows it; the hint is that of an intent. */
export function refuseIntent(answer: Extract<IntentAnswer, { status: "rejected" }>): Refusal {
  const { code, key, detail } = answer;
  return refuse(errorOf(code), detail, {
    refusal: code,
    hint: intentHints[code],
    ...(key === null ? {} : { key }),
  });
}
