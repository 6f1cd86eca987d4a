import type { WellKnown } from "@gpux/protocol/answers";
import { canonicalJson } from "@gpux/protocol/canonical";
import { escrowDomain, type LeaseTerms, leaseIdHash } from "@gpux/protocol/eip712";
import { leaseIdOf } from "@gpux/protocol/ids";
import type { LeaseMode, Quote, QuoteText, Settlement } from "@gpux/protocol/lease";
import { MAX_AMOUNT } from "@gpux/protocol/money";
import { textBlockersOf } from "@gpux/protocol/quote-text";
import { type Demand, Prices, ratePerHour } from "@gpux/protocol/resources";
import { mostStart, startPriceOf, upfrontOf } from "@gpux/protocol/tariff";
import { keccak256, stringToBytes } from "viem/utils";
import { GpuxError } from "./error.ts";

/** What the caller asked for and trusts; the quote is held against it before anything is signed. */
export interface Expected {
  readonly wellKnown: WellKnown;
  readonly payer: string;
  readonly consumerSigner: string;
  readonly demand: Demand;
  readonly mode: LeaseMode;
  readonly durationS: number;
  readonly keepWarmS: number;
  /** By how much its end may be moved later; none when left out. */
  readonly extendableS?: number;
  /** Base units per hour; null leaves the rate to the demand's own limit. */
  readonly maxRatePerHour: bigint | null;
  /** Milliseconds. */
  readonly now: number;
}

export type QuoteCheck =
  | { readonly ok: true }
  | { readonly ok: false; readonly field: string; readonly detail: string };

/** Clocks differ, and a quote takes a while to arrive; seconds. */
const CLOCK_SLACK_S = 120;

const pass: QuoteCheck = { ok: true };
const fail = (field: string, detail: string): QuoteCheck => ({ ok: false, field, detail });

/**
 * Whether signing this quote binds the payer to what was asked and to nothing else. The edge is not trusted: every
 * field that the terms hash covers is either recomputed or compared. `terms.provider` (where the node is paid out) is
 * the node's to choose. Of a serverless lease nothing is due beyond the allowances that the consumer signs
 * (`unattended` is 0); of a dedicated one the clock alone decides, so `upfront`, which is due before any time has
 * passed, may be a minute's worth at most.
 */
export function checkQuote(quote: Quote, expected: Expected): QuoteCheck {
  const { terms, text } = quote;
  const { wellKnown } = expected;
  const identity = checkIdentity(quote.settlement, quote.lease_hash, terms, wellKnown.settlement);
  if (!identity.ok) return identity;
  if (quote.lease_id !== leaseIdOf(quote.lease_hash))
    return fail("lease_id", "it is not the id of lease_hash");
  if (terms.quote !== keccak256(stringToBytes(canonicalJson(text)))) {
    return fail("terms.quote", "it is not the hash of the quote's text");
  }
  const parties = [
    ["payer", terms.payer, expected.payer.toLowerCase()],
    ["consumerSigner", terms.consumerSigner, expected.consumerSigner.toLowerCase()],
    ["meter", terms.meter, wellKnown.meter],
    ["feeRecipient", terms.feeRecipient, wellKnown.fee_recipient],
    ["providerSigner", terms.providerSigner, text.node],
  ] as const;
  for (const [field, is, should] of parties) {
    if (is !== should) return fail(`terms.${field}`, `it is ${is}, not ${should}`);
  }
  if (terms.feeBps !== wellKnown.fee_bps) {
    return fail("terms.feeBps", `it is ${terms.feeBps}, the edge publishes ${wellKnown.fee_bps}`);
  }
  const mode = checkMode(terms, text, expected.mode);
  if (!mode.ok) return mode;
  if (text.keep_warm_s !== expected.keepWarmS)
    return fail("text.keep_warm_s", `it is ${text.keep_warm_s}, not ${expected.keepWarmS}`);
  if (text.tier !== expected.demand.tier)
    return fail("text.tier", `it is ${text.tier}, not ${expected.demand.tier}`);
  const rate = checkRate(terms.ratePerHour, text, expected);
  if (!rate.ok) return rate;
  return checkTimes(quote, expected);
}

function checkMode(terms: LeaseTerms, text: QuoteText, expected: LeaseMode): QuoteCheck {
  if (text.mode !== expected) return fail("text.mode", `it is ${text.mode}, not ${expected}`);
  if (expected === "serverless" && terms.unattended !== 0n)
    return fail("terms.unattended", "a serverless lease needs an allowance for all it spends");
  if (expected === "dedicated" && terms.unattended !== MAX_AMOUNT)
    return fail("terms.unattended", "a dedicated lease is owed by the clock alone");
  if (expected === "dedicated" && terms.upfront > upfrontOf(terms.ratePerHour, startPriceOf(text)))
    return fail("terms.upfront", `${terms.upfront} would be due at once, more than the start and a minute`);
  return pass;
}

/** The lease id binds terms, chain and contract; the settlement is the pinned one. Also asked before an allowance. */
export function checkIdentity(
  settlement: Settlement,
  leaseHash: string,
  terms: LeaseTerms,
  pinned: Settlement,
): QuoteCheck {
  const facts = ["chain_id", "escrow", "token", "token_name", "token_version"] as const;
  for (const fact of facts) {
    if (settlement[fact] !== pinned[fact]) {
      return fail(`settlement.${fact}`, `it is ${settlement[fact]}, not ${pinned[fact]}`);
    }
  }
  const domain = escrowDomain({ chainId: pinned.chain_id, escrow: pinned.escrow });
  if (leaseHash !== leaseIdHash(domain, terms)) return fail("lease_hash", "the terms hash to another id");
  return pass;
}

function checkRate(rate: bigint, text: QuoteText, { demand, maxRatePerHour }: Expected): QuoteCheck {
  const prices = Prices.safeParse(text.prices);
  if (!prices.success) return fail("text.prices", "they are no amounts");
  const { gpus, cpu, memory_gb } = demand.resources;
  const { resources } = text;
  if (resources.gpus !== gpus || resources.cpu !== cpu || resources.memory_gb !== memory_gb) {
    return fail("text.resources", "they are not what was asked for");
  }
  if (startPriceOf(text) > mostStart(prices.data))
    return fail("text.start_price", `${text.start_price} is more than ten minutes of a GPU`);
  if (rate !== ratePerHour(prices.data, resources)) {
    return fail("terms.ratePerHour", "it is not the sum of the quoted prices");
  }
  if (maxRatePerHour !== null && rate > maxRatePerHour) {
    return fail("terms.ratePerHour", `${rate} per hour is above the limit of ${maxRatePerHour}`);
  }
  const [blocker] = textBlockersOf(text, demand);
  return blocker === undefined ? pass : fail("text", `the offer fails the demand's ${blocker}`);
}

function checkTimes(quote: Quote, { now, durationS, extendableS = 0 }: Expected): QuoteCheck {
  const extendable = quote.text.extendable_s ?? 0;
  if (extendable !== extendableS) return fail("text.extendable_s", `it is ${extendable}, not ${extendableS}`);
  const nowS = Math.floor(now / 1_000);
  if (Date.parse(quote.expires_at) <= now) return fail("expires_at", "the quote has lapsed");
  if (quote.terms.expiry <= nowS) return fail("terms.expiry", "the terms are over already");
  if (quote.terms.expiry > nowS + durationS + extendableS + CLOCK_SLACK_S) {
    return fail("terms.expiry", `the terms run longer than the ${durationS + extendableS} s asked for`);
  }
  return pass;
}

/** What is thrown when a check fails; nothing was signed. */
export function quoteMismatch(field: string, detail: string): GpuxError {
  return new GpuxError({
    code: "quote_mismatch",
    title: "What the edge offers is not what was asked for",
    hint: "Nothing was signed. Ask again; if it repeats, do not use this edge.",
    detail: `${field}: ${detail}`,
  });
}
