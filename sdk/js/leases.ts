import { listOf } from "@gpux/protocol/answers";
import { MOST_AUTO_TOP_UPS } from "@gpux/protocol/funding";
import {
  IndicativeQuote,
  KEEP_WARM_S,
  type LeaseMode,
  LeaseView,
  Quote,
  QuoteRequest,
  type Settlement,
  TickView,
} from "@gpux/protocol/lease";
import type { LeaseEvent } from "@gpux/protocol/lease-event";
import type { Order } from "@gpux/protocol/order";
import { Demand } from "@gpux/protocol/resources";
import { GpuxError } from "./error.ts";
import { createFundings, type PayFrom } from "./fundings.ts";
import type { EventOptions } from "./journal.ts";
import { leaseEvents } from "./lease-events.ts";
import { DEFAULT_DURATION_S, type DemandInput, type LeaseSettings } from "./lease-settings.ts";
import { createOrders, type OrderInput } from "./orders.ts";
import { pages } from "./pages.ts";
import { checkIdentity, checkQuote, quoteMismatch } from "./quote-check.ts";
import { isConsumer } from "./spending.ts";
import { checked, jsonBody } from "./transport.ts";
import type { WarmLease } from "./warm-leases.ts";

export interface QuoteInput {
  readonly demand?: DemandInput;
  /** Seconds that the lease may last: 300 to 86,400, by default 3,600. */
  readonly durationS?: number;
  /** Seconds that the lease's end may be moved later, by `extend`: up to 86,400, by default none. */
  readonly extendableS?: number;
  /** `serverless`, the default: billed while a job runs. `dedicated`: reserved, billed by the clock, jobs are free. */
  readonly mode?: LeaseMode;
  /** Base units that the caller means to put in. */
  readonly amount?: bigint;
  /**
   * Seconds that the node keeps its GPUs for the lease after the last job, unbilled: 0 to 3,600, by default 300. After
   * that others may have them, and the next job waits until the node has them free.
   */
  readonly keepWarmS?: number;
}

export interface OpenOptions {
  /** Base units to put into escrow; what is not used comes back at the close. The quote's amount by default. */
  readonly amount?: bigint;
  /** What was asked for: the quote is checked against it before anything is signed. Any one GPU by default. */
  readonly demand?: DemandInput;
  readonly durationS?: number;
  readonly extendableS?: number;
  readonly mode?: LeaseMode;
  readonly keepWarmS?: number;
  /** Base units per hour. */
  readonly maxRatePerHour?: bigint;
  /** `credit`: out of what was deposited before (`Client.credit`), by this client's account alone. */
  readonly payFrom?: PayFrom;
  readonly signal?: AbortSignal | undefined;
}

/** Base units. */
export interface AutoTopUpInput {
  readonly below: bigint;
  readonly amount: bigint;
  /** The most that the lease may ever have been funded with; reached in 16 steps of `amount` at most. */
  readonly limit: bigint;
}

export interface Leases {
  /**
   * Checks the quote, signs its funding as the payer (or, from credit, as its spender) and opens the lease. Throws `quote_mismatch` and signs nothing
   * when a field is not what was asked, what the edge publishes or what was pinned.
   */
  open(quote: Quote, options?: OpenOptions): Promise<LeaseView>;
  /**
   * Several nodes at once, by one signature, or none: asks for all of them, checks every quote, signs the one funding
   * and opens the leases. When fewer can be held it throws `no_capacity` with `problem.wait` (found, wanted, blockers);
   * nothing is held or signed then.
   */
  order(input: OrderInput): Promise<Order>;
  getOrder(id: string, options?: { signal?: AbortSignal }): Promise<Order>;
  get(id: string, options?: { signal?: AbortSignal }): Promise<LeaseView>;
  /** Newest first, page by page. */
  list(options?: { signal?: AbortSignal }): AsyncGenerator<LeaseView>;
  /**
   * Adds `amount` base units to an open lease, signed by the payer, or from its credit by this client's account; what is
   * not used comes back at the close. Answers within seconds; `top_ups` of the answer names what has not landed yet.
   */
  topUp(
    id: string,
    amount: bigint,
    options?: { signal?: AbortSignal | undefined; payFrom?: PayFrom },
  ): Promise<LeaseView>;
  /**
   * Moves the lease's end to so many seconds behind the quote's, in all and at most its `extendableS`; `amount` base
   * units are added with it. Asked again it changes nothing more.
   */
  extend(
    id: string,
    extendedS: number,
    options?: { amount?: bigint; signal?: AbortSignal | undefined; payFrom?: PayFrom },
  ): Promise<LeaseView>;
  /**
   * Leaves the lease raises from credit, signed here and now, that it lands by itself: by `amount` whenever less than
   * `below` is left, up to `limit` base units in all. Null takes back what has not been used of them.
   */
  autoTopUp(
    id: string,
    settings: AutoTopUpInput | null,
    options?: { signal?: AbortSignal | undefined },
  ): Promise<LeaseView>;
  /** No new jobs; when those that run have ended, the provider is paid and the rest goes back. Idempotent. */
  close(id: string, options?: { signal?: AbortSignal }): Promise<LeaseView>;
  /** What happens to the lease, from its first event (or after `lastEventId`) to its end; cut streams are resumed. */
  events(id: string, options?: EventOptions): AsyncGenerator<LeaseEvent>;
  /** The billed time of a dedicated lease, oldest first; `verifyTick` checks each without the edge. */
  ticks(id: string, options?: { signal?: AbortSignal }): AsyncGenerator<TickView>;
  /** For jobs on a lease that this client did not open: checks that it is ours and what its terms hash to. */
  adopt(id: string, signal: AbortSignal | undefined): Promise<WarmLease>;
}

const FUNDING_CHECK_MS = 1_000;
const FUNDING_CHECKS = 60;

export function createQuotes({ transport, account, payer }: LeaseSettings) {
  const bodyOf = (input: QuoteInput, firm: boolean) => {
    const request = {
      demand: input.demand ?? {},
      payer: payer.address,
      consumer_signer: account.address,
      duration_s: input.durationS ?? DEFAULT_DURATION_S,
      ...(input.extendableS === undefined ? {} : { extendable_s: input.extendableS }),
      ...(input.mode === undefined ? {} : { mode: input.mode }),
      ...(input.keepWarmS === undefined ? {} : { keep_warm_s: input.keepWarmS }),
      ...(input.amount === undefined ? {} : { amount: input.amount }),
      ...(firm ? {} : { firm }),
    };
    const body = jsonBody(request);
    checked(QuoteRequest, JSON.parse(new TextDecoder().decode(body)));
    return body;
  };
  return {
    /** A firm quote: the node holds the GPU until `expires_at`. */
    create(input: QuoteInput = {}, { signal }: { signal?: AbortSignal | undefined } = {}): Promise<Quote> {
      return transport.json({ method: "POST", path: "/v1/quotes", body: bodyOf(input, true), signal }, Quote);
    },
    /** What it would cost now: free, nothing is held, nothing can be signed. */
    price(
      input: QuoteInput = {},
      { signal }: { signal?: AbortSignal | undefined } = {},
    ): Promise<IndicativeQuote> {
      const body = bodyOf(input, false);
      return transport.json({ method: "POST", path: "/v1/quotes", body, signal }, IndicativeQuote);
    },
  };
}
export type Quotes = ReturnType<typeof createQuotes>;

export function createLeases(settings: LeaseSettings): Leases {
  const { transport, account, payer, timing, warm } = settings;
  const fundings = createFundings(settings);
  const capped = (amount: bigint) =>
    settings.spendLimit !== null && settings.spendLimit < amount ? settings.spendLimit : amount;

  /** What a lease may spend is known once its funding is on chain, though more confirmations may still be waited for. */
  async function funded(id: string, signal: AbortSignal | undefined): Promise<LeaseView> {
    for (let asked = 1; ; asked += 1) {
      const lease = await transport.json({ method: "GET", path: `/v1/leases/${id}`, signal }, LeaseView);
      if (lease.status !== "funding" || lease.funded > 0n || asked === FUNDING_CHECKS) return lease;
      await timing.sleep(FUNDING_CHECK_MS, signal);
    }
  }

  /** More money for a lease of ours, signed. From credit it is a target: the same again adds nothing. */
  async function moreFor(
    id: string,
    amount: bigint,
    { signal, payFrom = "wallet" }: { signal?: AbortSignal | undefined; payFrom?: PayFrom },
  ) {
    const { settlement } = await settings.wellKnown();
    const lease = await transport.json({ method: "GET", path: `/v1/leases/${id}`, signal }, LeaseView);
    mustBe(lease, id, settlement);
    if (lease.terms.payer !== payer.address.toLowerCase())
      throw quoteMismatch("terms.payer", "the lease's money goes back to another account");
    if (payFrom === "credit" && !isConsumer(account, lease.terms))
      throw quoteMismatch("terms.consumerSigner", "the lease's credit is another key's to spend");
    const added = payFrom === "credit" ? raisedTo(lease) + amount : amount;
    const topped = { hash: lease.lease_hash, terms: lease.terms, amount: added };
    return fundings.forOne(settlement, topped, payFrom);
  }

  return {
    async open(quote, options = {}) {
      const wellKnown = await settings.wellKnown();
      const now = timing.now();
      const check = checkQuote(quote, {
        wellKnown,
        payer: payer.address,
        consumerSigner: account.address,
        demand: checked(Demand, options.demand ?? {}),
        mode: options.mode ?? "serverless",
        durationS: options.durationS ?? DEFAULT_DURATION_S,
        extendableS: options.extendableS ?? 0,
        keepWarmS: options.keepWarmS ?? KEEP_WARM_S,
        maxRatePerHour: options.maxRatePerHour ?? null,
        now,
      });
      if (!check.ok) throw quoteMismatch(check.field, check.detail);
      const amount = options.amount ?? quote.amount;
      const lent = { hash: quote.lease_hash, terms: quote.terms, amount };
      const funding = await fundings.forOne(wellKnown.settlement, lent, options.payFrom ?? "wallet");
      const body = jsonBody({ lease: quote.lease_id, funding });
      const call = { method: "POST", path: "/v1/leases", body, signal: options.signal } as const;
      const lease = await transport.json(call, LeaseView);
      if (lease.lease_hash !== quote.lease_hash)
        throw quoteMismatch("lease_hash", "another lease was opened");
      warm.put({
        id: quote.lease_id,
        hash: quote.lease_hash,
        terms: quote.terms,
        text: quote.text,
        limit: capped(amount),
        spent: 0n,
      });
      return lease;
    },
    ...createOrders(settings),
    get: (id, { signal } = {}) =>
      transport.json({ method: "GET", path: `/v1/leases/${id}`, signal }, LeaseView),
    list: ({ signal } = {}) => pages(transport, "/v1/leases", listOf(LeaseView), { signed: true, signal }),
    async topUp(id, amount, options = {}) {
      const body = jsonBody({ funding: await moreFor(id, amount, options) });
      const path = `/v1/leases/${id}/topup`;
      const call = { method: "POST", path, body, signal: options.signal } as const;
      const after = await transport.json(call, LeaseView);
      warm.raise(id, capped(after.funded));
      return after;
    },
    async extend(id, extendedS, { amount, ...options } = {}) {
      const funding = amount === undefined ? {} : { funding: await moreFor(id, amount, options) };
      const body = jsonBody({ extended_s: extendedS, ...funding });
      const path = `/v1/leases/${id}/extend`;
      const call = { method: "POST", path, body, signal: options.signal } as const;
      const after = await transport.json(call, LeaseView);
      warm.raise(id, capped(after.funded));
      return after;
    },
    async autoTopUp(id, auto, { signal } = {}) {
      const { settlement } = await settings.wellKnown();
      const path = `/v1/leases/${id}`;
      const lease = await transport.json({ method: "GET", path, signal }, LeaseView);
      mustBe(lease, id, settlement);
      if (!isConsumer(account, lease.terms))
        throw quoteMismatch("terms.consumerSigner", "the lease's credit is another key's to spend");
      const allocations =
        auto === null ? [] : await fundings.raises(settlement, lease, targetsOf(lease, auto));
      const auto_top_up = auto === null ? null : { below: auto.below, allocations };
      const body = jsonBody({ auto_top_up });
      const after = await transport.json({ method: "POST", path: `${path}/topup`, body, signal }, LeaseView);
      if (auto !== null) warm.raise(id, capped(auto.limit));
      return after;
    },
    events: (id, options = {}) => leaseEvents(transport, timing, id, options),
    ticks: (id, { signal } = {}) =>
      pages(transport, `/v1/leases/${id}/ticks`, listOf(TickView), { signed: true, signal }),
    close(id, { signal } = {}) {
      warm.forget(id);
      return transport.json({ method: "POST", path: `/v1/leases/${id}/close`, signal }, LeaseView);
    },
    async adopt(id, signal) {
      const { settlement } = await settings.wellKnown();
      const lease = await funded(id, signal);
      mustBe(lease, id, settlement);
      if (!isConsumer(account, lease.terms)) {
        throw quoteMismatch("terms.consumerSigner", "the lease's allowances are another key's to sign");
      }
      const { lease_hash, terms, text, allowance } = lease;
      const limit = capped(lease.funded);
      const allowed = { cumulative: allowance, signed: null };
      return warm.put({
        id: lease.id,
        hash: lease_hash,
        terms,
        text,
        limit,
        spent: lease.committed,
        allowed,
      });
    },
  };
}

function targetsOf(lease: LeaseView, { amount, limit }: AutoTopUpInput): bigint[] {
  const targets: bigint[] = [];
  let last = raisedTo(lease);
  while (amount > 0n && last < limit && targets.length < MOST_AUTO_TOP_UPS) {
    last = last + amount < limit ? last + amount : limit;
    targets.push(last);
  }
  if (last === limit && targets.length > 0) return targets;
  throw new GpuxError({
    code: "request_invalid",
    title: "The lease cannot be raised to this limit",
    hint: `Choose an amount above zero and a limit above what the lease has, ${MOST_AUTO_TOP_UPS} amounts away at most.`,
    detail: `the limit is ${limit}, it has ${raisedTo(lease)}`,
    fault: "tenant",
  });
}

/** What it has, with all that is on its way to it. */
function raisedTo({ funded, top_ups = [] }: LeaseView): bigint {
  const landing = top_ups.filter(({ status }) => status === "landing");
  const target = landing.reduce((most, { funded_to = 0n }) => (funded_to > most ? funded_to : most), funded);
  return landing.reduce((sum, { amount, salt }) => (salt === undefined ? sum : sum + amount), target);
}

/** What is signed for a lease names its hash: it must be the hash of its terms, on the chain that is published. */
function mustBe(lease: LeaseView, id: string, settlement: Settlement): void {
  const check = checkIdentity(settlement, lease.lease_hash, lease.terms, settlement);
  if (!check.ok) throw quoteMismatch(check.field, check.detail);
  if (lease.id !== id) throw quoteMismatch("id", "the edge answered with another lease");
}
