import type { Address } from "@gpux/protocol/ids";
import type { Intent } from "@gpux/protocol/intent";
import type { Policy } from "./policy.ts";
import type { Refusal } from "./refusal.ts";
import type { Used } from "./store.ts";

/** The account of what is about nobody's money. */
export const NOBODY = "nobody";

/**
 * Whose rate an intent counts against: whoever's money it is about. A revocation is about nobody's, and whoever makes
 * keys can make as many as there are keys, so all of them share one account.
 */
export function accountOf(intent: Intent): Address | typeof NOBODY {
  switch (intent.kind) {
    case "fund":
    case "deposit":
      return intent.from;
    case "allocate":
      // The contract takes leases of one payer only.
      return intent.terms[0]?.payer ?? NOBODY;
    case "settle":
    case "close":
    case "exit":
    case "reclaim":
      return intent.terms.payer;
    case "release":
    case "reclaim_credit":
      return intent.payer;
    case "revoke_meter":
      return NOBODY;
    case "withdraw":
      return intent.account;
  }
}

/** What the account has used with one more intent of `gas` at `now`, or why it may not. Pure. */
export function admit(
  used: Used | null,
  gas: bigint,
  now: number,
  policy: Policy,
): { readonly ok: true; readonly used: Used } | ({ readonly ok: false } & Refusal) {
  const minute = Math.floor(now / 60_000);
  const day = Math.floor(now / 86_400_000);
  const inMinute = (used?.minute === minute ? used.inMinute : 0) + 1;
  const gasInDay = (used?.day === day ? used.gasInDay : 0) + Number(gas);
  if (inMinute > policy.ratePerMinute)
    return { ok: false, code: "rate_limited", detail: `${policy.ratePerMinute} a minute` };
  if (gasInDay > policy.gasPerDay)
    return { ok: false, code: "daily_cap", detail: `${policy.gasPerDay} gas a day` };
  return { ok: true, used: { minute, inMinute, day, gasInDay } };
}
