import { type ErrorEntry, later, tenant } from "./error-entry.ts";
import { intentHints as hints, type IntentRefusalCode } from "./intent-refusals.ts";

/** Why `POST /v1/relay` does not land an intent: the part of the table (errors.ts) that no other route needs. */
export const RELAY_ERRORS = {
  intent_unknown: tenant(
    404,
    "No intent of this key is on its way",
    "Submit the intent itself: what the chain has done already, it answers at once.",
  ),
  intent_expired: tenant(410, "The signature's time is over", hints.expired),
  intent_signature_invalid: tenant(422, "The typed data is not signed by whom it needs", hints.bad_signature),
  wallet_not_deployed: tenant(422, "The smart wallet has no code yet", hints.wallet_not_deployed),
  insufficient_credit: tenant(402, "The credit does not hold this much", hints.insufficient_credit),
  authorization_used: tenant(409, "The payer's authorization was used before", hints.authorization_used),
  token_refused: later(503, "chain", "The token refuses to move", hints.token_refused),
  not_payer: tenant(422, "Another's money cannot open this lease", hints.not_payer),
  terms_refused: tenant(422, "The escrow takes no such terms", hints.terms_refused),
  meter_revoked: tenant(409, "The meter has resigned", hints.meter_revoked),
  other_credit: tenant(422, "The leases belong to several credits", hints.other_credit),
  lease_not_open: tenant(409, "The lease is not open on chain", hints.lease_not_open),
  above_due: tenant(409, "The close asks for more than is due", hints.above_due),
  voucher_stale: tenant(409, "A newer voucher has been settled", hints.stale),
  nothing_due: tenant(409, "Nothing more is due", hints.nothing_due),
  too_early: tenant(409, "Its time has not come", hints.too_early),
  nothing_owed: tenant(409, "There is no money there", hints.nothing_owed),
  release_used: tenant(409, "This release has served", hints.release_used),
  release_pending: tenant(409, "A release is on its way", hints.release_pending),
  no_release: tenant(409, "No release is on its way", hints.no_release),
  escrow_refused: tenant(422, "The escrow refuses the call", hints.escrow_refused),
  over_budget: tenant(409, "It moves too little for its gas", hints.over_budget),
  relayer_low_balance: later(503, "platform", "The relayer is short of gas money", hints.relayer_low_balance),
  intent_reverted: later(503, "chain", "The chain kept changing under it", hints.reverted),
  rate_limited: later(429, "tenant", "Too many intents in this minute", hints.rate_limited),
  daily_cap: later(429, "tenant", "The account's gas of today is used up", hints.daily_cap),
} as const satisfies Record<string, ErrorEntry>;

/** The API's code for the relayer's: what other routes say as well, they say by the same code. */
export function relayErrorOf(code: IntentRefusalCode) {
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
    case "chain_unavailable":
    case "rate_limited":
    case "daily_cap":
      return code;
  }
}
