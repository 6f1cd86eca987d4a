import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { IntentRefusalCode, IntentResult } from "@gpux/protocol/intent";

export interface EscrowLease {
  readonly terms: LeaseTerms;
  status: "open" | "closed";
  funded: bigint;
  paid: bigint;
  refunded: bigint;
  /** Seconds. */
  openedAt: number;
  /** Opened from credit: there its rest returns to. */
  readonly fromCredit: boolean;
  /** Of `funded`, what came from credit: kept for the books alone. */
  allocated: bigint;
}

export type Landed =
  | { readonly ok: true; readonly result: IntentResult }
  | { readonly ok: false; readonly code: IntentRefusalCode; readonly detail: string };

/** How the contract is built; a planted bug changes one of these. */
export interface EscrowRules {
  /** `close` drops what was not settled before it. */
  readonly closeClips: boolean;
  /** An authorization is good more than once. */
  readonly replaysFunding: boolean;
  /** The rest of a lease that credit opened is its payer's to withdraw. */
  readonly refundsCredit: boolean;
  /** An allocation's target is added to what the lease has. */
  readonly addsTargets: boolean;
  /** A release pays at once, and whoever signed it. */
  readonly paysWhoReleases: boolean;
}

export const CONTRACT: EscrowRules = {
  closeClips: false,
  replaysFunding: false,
  refundsCredit: false,
  addsTargets: false,
  paysWhoReleases: false,
};

export const refuse = (code: IntentRefusalCode, detail = ""): Landed => ({ ok: false, code, detail });
