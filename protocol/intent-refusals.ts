import { z } from "zod";

/**
 * Why the relayer does not land an intent, each with what helps ({@link intentHints}). Nothing of it is left on chain,
 * and submitting it again, mended, tries again. Of the intent itself: `intent_invalid` (the schema, or amounts and
 * lists that move nothing), `expired`, `bad_signature`, `wallet_not_deployed` (a smart wallet without code yet,
 * ERC-6492). Of the payer's money: `insufficient_balance`, `insufficient_credit`, `authorization_used` (or cancelled,
 * without this funding), `token_refused` (paused, blacklisted, another reason of the token's), `not_payer`. Of the
 * lease: `terms_refused`, `meter_revoked`, `other_credit`, `lease_not_open`, `lease_closed`, `above_due` (a close above
 * funding or caps), `stale` (below what is paid), `nothing_due` (no rise to pay yet), `too_early`. Of credit and
 * payouts: `nothing_owed`, `release_used`, `release_pending`, `no_release`. `escrow_refused`: any other rule of the
 * contract, named in the detail. Ours: `relayer_low_balance`, `reverted` (simulated well but reverted when it landed,
 * repeatedly), `over_budget` (costs more than the policy pays for what it moves), and for what anybody brings
 * `chain_unavailable`, `rate_limited` and `daily_cap`.
 */
export const IntentRefusalCode = z.enum([
  "intent_invalid",
  "expired",
  "bad_signature",
  "wallet_not_deployed",
  "insufficient_balance",
  "insufficient_credit",
  "authorization_used",
  "token_refused",
  "not_payer",
  "terms_refused",
  "meter_revoked",
  "other_credit",
  "lease_not_open",
  "lease_closed",
  "above_due",
  "stale",
  "nothing_due",
  "too_early",
  "nothing_owed",
  "release_used",
  "release_pending",
  "no_release",
  "escrow_refused",
  "relayer_low_balance",
  "reverted",
  "over_budget",
  "chain_unavailable",
  "rate_limited",
  "daily_cap",
]);
export type IntentRefusalCode = z.infer<typeof IntentRefusalCode>;

/** What the caller can do about a refusal. */
export const intentHints: Readonly<Record<IntentRefusalCode, string>> = {
  intent_invalid:
    "Compare the body with the schema of the intent: amounts are decimal strings above zero, one for each lease.",
  expired: "Sign it again with a later validBefore, or open a lease that has not expired.",
  bad_signature: "Sign the typed data of this chain and escrow with the key that the terms name.",
  wallet_not_deployed: "Deploy the smart wallet first, then submit its inner signature.",
  insufficient_balance: "The payer needs as much USDC (not USDC.e) as it signed for.",
  insufficient_credit: "Deposit more for this spender and meter, or sign lower targets.",
  authorization_used: "This authorization is used or cancelled; sign another with a fresh salt.",
  token_refused:
    "USDC itself refused, as when it is paused or an account is blocked; it can only be tried later.",
  not_payer:
    "Only money of the payer that the terms name opens a lease; once it is open, anyone may add to it.",
  terms_refused:
    "The escrow takes no such terms; the detail names its rule: distinct keys, real payees, a fee and an expiry within its limits.",
  meter_revoked:
    "This meter has resigned; name another, and take its credit back with a release of your own.",
  other_credit:
    "Leases of one allocation share payer, consumerSigner and meter; sign one allocation for each.",
  lease_not_open: "Fund the lease first.",
  lease_closed: "The lease has ended; withdraw what is owed.",
  above_due: "A close may not exceed the funding and caps; sign a lower amount or top up first.",
  stale: "A newer voucher is settled already; sign at least what is paid.",
  nothing_due: "Nothing more is due now; try again when more has been used.",
  too_early: "Its time has not come; the detail says from when on.",
  nothing_owed: "There is no money there to give back; look whether it was released or paid out before.",
  release_used: "A release serves once; sign another with another validBefore.",
  release_pending:
    "A release is on its way already: wait for its time and reclaim the credit, or add the meter's signature to have it now.",
  no_release: "Land a signed release first, then reclaim the credit once its delay is over.",
  escrow_refused: "The escrow's rule is in the detail.",
  relayer_low_balance:
    "The relayer is short of gas money; try later, or land it by yourself with gpux rescue.",
  reverted: "The chain kept changing under it; look at the detail and submit it again.",
  over_budget:
    "Gas is dear for what this moves; wait, move more at once, or land it by yourself with gpux rescue.",
  chain_unavailable: "No node answers just now; nothing was taken. Submit it again in a while.",
  rate_limited: "Wait a minute.",
  daily_cap:
    "The account's gas of today is used up; go on tomorrow, or land it by yourself with gpux rescue.",
};
