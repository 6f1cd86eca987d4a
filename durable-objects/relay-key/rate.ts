import type { Address } from "@gpux/protocol/ids";
import type { Intent } from "@gpux/protocol/intent";
import type { Policy } from "./policy.ts";
import type { Refusal } from "./refusal.ts";
import type { Used } from "./store.ts";

/** Whose rate an intent counts against: whoever's money it is about. */
export function accountOf(intent: Intent): Address {
  switch (intent.kind) {
    case "fund":
      return intent.from;
    case "withdraw":
      return intent.account;
    case "settle":
    case "close":
    case "exit":
    case "reclaim":
      return intent.terms.payer;
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
