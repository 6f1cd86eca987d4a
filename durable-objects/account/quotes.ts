import { allocateTypedData, type CreditOffer } from "@gpux/protocol/credit";
import type { Address } from "@gpux/protocol/ids";
import type { RoutedJobRequest } from "@gpux/protocol/job";
import { type IndicativeQuote, type Quote, QuoteRequest } from "@gpux/protocol/lease";
import type { ObjectEnv } from "../bindings.ts";
import { configOf } from "../config.ts";
import { createCredits } from "../credit.ts";
import type { NothingFits, Outcome, PaymentNeeded, Refused } from "../interfaces.ts";
import { findOffers } from "../offers.ts";
import { giveBackHold, holdLimit, takeHold } from "./holding.ts";
import { MAX_OPEN_QUOTES, openQuotes } from "./machine.ts";
import { indicativeQuote, QUOTE_MS, quoteOf, type Wanted } from "./quote.ts";
import { type Blockers, count, demandFor, hasRisen, hold, nothingFits, offer } from "./quoting.ts";
import type { AccountStore } from "./store.ts";

/** Offers that are asked to hold, one after another, before the answer is "no capacity". */
const TRIES = 5;

/** How long what is asked for can land; seconds. The quote itself ends sooner. */
const ALLOCATE_S = 600;

type Quoted = Outcome<{ quote: Quote }> | NothingFits;

/** The quotes of one account, and what it holds without having paid for it (SPEC QTE-*). */
export class Quotes {
  readonly #env: ObjectEnv;
  readonly #store: AccountStore;
  readonly #ordersOpen: (now: number) => number;
  readonly #credits: ReturnType<typeof createCredits>;
  /** Quotes and orders under way, which have no row yet. */
  #quoting = 0;

  constructor(env: ObjectEnv, store: AccountStore, ordersOpen: (now: number) => number) {
    this.#env = env;
    this.#store = store;
    this.#ordersOpen = ordersOpen;
    const config = configOf(env);
    this.#credits = createCredits({ ...config, escrow: config.settlement.escrow });
  }

  firm(by: Address, request: Wanted, maxPrice = 0n): Promise<Quoted> {
    return this.holding(by, request, request.demand.resources.gpus, () => this.#hold(by, request, maxPrice));
  }

  /** QTE-1, QTE-3: asks one node after another, best first, until one holds. */
  async #hold(by: Address, request: Wanted, maxPrice: bigint): Promise<Quoted> {
    const { demand } = request;
    const found = await findOffers(this.#env, demandFor(request), TRIES, { toBuy: true });
    const blockers: Blockers = { ...found.blockers };
    const queue = found.entries.map((listed) => ({ listed, isAsked: false }));
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const offered = await offer(this.#env, by, request, next.listed, maxPrice);
      if (!offered.ok) {
        count(blockers, offered.blockers);
        continue;
      }
      // It asks for more than it is listed for: the others may be better now.
      if (!next.isAsked && queue.length > 0 && hasRisen(next.listed, offered.entry, demand)) {
        queue.push({ listed: offered.entry, isAsked: true });
        continue;
      }
      const { draft, amount } = offered;
      if (await hold(this.#env, offered)) {
        const { lease: id, text, expiresAt } = draft.hold;
        const createdAt = Date.now();
        this.#store.saveLease({ id, phase: "quoted", text, expiresAt, createdAt, order: null });
        return { ok: true, quote: quoteOf(configOf(this.#env), draft, amount) };
      }
      count(blockers, ["gpus"]);
    }
    return nothingFits(found, blockers);
  }

  /** QTE-2: by what is listed alone. */
  async indicate(request: Wanted): Promise<Outcome<{ quote: IndicativeQuote }> | NothingFits> {
    const found = await findOffers(this.#env, demandFor(request), TRIES);
    for (const entry of found.entries) {
      const quote = indicativeQuote(request, entry, Date.now());
      if (quote !== null) return { ok: true, quote };
    }
    return nothingFits(found, found.blockers);
  }

  /** QTE-5: what is held and not paid for is bounded, by number and by GPU-seconds; `work` holds at most `gpus`. */
  async holding<T extends { readonly ok: boolean }>(
    by: Address,
    { payer }: Pick<Wanted, "payer">,
    gpus: number,
    work: () => Promise<T>,
  ): Promise<T | Refused> {
    const began = Date.now();
    const gpuS = holdGpuS(gpus);
    const open = openQuotes(this.#store.liveLeases(began), began) + this.#ordersOpen(began);
    if (open + this.#quoting >= MAX_OPEN_QUOTES) return { ok: false, code: "too_many_quotes" };
    this.#quoting += 1;
    try {
      const refusal = await this.#take(by, payer ?? by, gpuS);
      if (refusal !== null) return refusal;
      const done = await work();
      // What was held while it was tried stays counted.
      if (!done.ok) this.#giveBack(gpuS * (1 - Math.min(1, (Date.now() - began) / QUOTE_MS)));
      return done;
    } finally {
      this.#quoting -= 1;
    }
  }

  /** CRD-5: what would pay for a job that no lease takes, and where the credit suffices what to sign for it. */
  async forJob(by: Address, request: RoutedJobRequest): Promise<PaymentNeeded | NothingFits> {
    const { demand, payer = by, max_price } = request;
    const quoted = await this.firm(by, { ...QuoteRequest.parse({}), demand, payer }, max_price);
    if (!quoted.ok) return quoted;
    const { quote } = quoted;
    const { lease_id, lease_hash } = quote;
    const allowance = { lease_id, lease_hash, cumulative: max_price.toString() };
    const credit = await this.#creditFor(quote);
    const paid = credit === null ? {} : { credit };
    return { ok: false, code: "payment_required", quote, allowance, ...paid };
  }

  /** Null where it does not suffice. */
  async #creditFor(quote: Quote): Promise<CreditOffer | null> {
    const { payer, consumerSigner } = quote.terms;
    const balance = await this.#credits.of(payer, consumerSigner, quote.amount);
    if (balance < quote.amount) return null;
    const validBefore = Math.floor(Date.now() / 1_000) + ALLOCATE_S;
    const message = { leaseIds: [quote.lease_hash], fundedTo: [quote.amount], validBefore };
    return { balance, allocate: allocateTypedData(quote.settlement, message) };
  }

  /** The credit is looked up only by who has used up what is free. */
  async #take(by: Address, payer: Address, gpuS: number): Promise<Refused | null> {
    let taken = takeHold(this.#store.holding(), gpuS, holdLimit(0n), Date.now());
    if (!taken.ok) {
      const credit = await this.#credits.of(payer, by);
      taken = takeHold(this.#store.holding(), gpuS, holdLimit(credit), Date.now());
    }
    if (taken.ok) {
      this.#store.saveHolding(taken.next);
      return null;
    }
    const detail =
      taken.retryAfterS === null
        ? `it would hold ${gpuS} GPU-seconds at once`
        : `there is room for it in ${taken.retryAfterS} s`;
    return { ok: false, code: "hold_limit", detail };
  }

  #giveBack(gpuS: number): void {
    this.#store.saveHolding(giveBackHold(this.#store.holding(), gpuS, Date.now()));
  }

  /** What was held is paid for now. */
  paid(gpus: number): void {
    this.#giveBack(holdGpuS(gpus));
  }
}

/** What a hold of so many GPUs comes to when it is not paid for. */
function holdGpuS(gpus: number): number {
  return (gpus * QUOTE_MS) / 1_000;
}
