import type { AccountLease, KeyEntry, KeyEvent } from "@gpux/durable-objects/account/machine";
import { MAX_OPEN_QUOTES } from "@gpux/durable-objects/account/machine";
import type { OrderState } from "@gpux/durable-objects/account/order";
import { amountOf, type Draft, draftQuote, quoteOf, type Wanted } from "@gpux/durable-objects/account/quote";
import { groupsFor, shardsOf } from "@gpux/durable-objects/books";
import type { EdgeConfig } from "@gpux/durable-objects/config";
import type { BookEntry, Caller, Outcome, PaymentNeeded, Refused } from "@gpux/durable-objects/interfaces";
import { allocateTypedData, type CreditOffer } from "@gpux/protocol/credit";
import type { LeaseFunding } from "@gpux/protocol/funding";
import { type Address, type JobId, jobIdOf, type LeaseId, type OrderId } from "@gpux/protocol/ids";
import type { RoutedJobRequest } from "@gpux/protocol/job";
import { KEEP_WARM_S, type LeaseStatus, type Quote } from "@gpux/protocol/lease";
import type { OrderAuthorization } from "@gpux/protocol/order";
import { blockersOf } from "@gpux/protocol/resources";
import type { SessionId } from "@gpux/protocol/session";
import { startPriceOf } from "@gpux/protocol/tariff";
import { AccountOrders } from "./account-orders.ts";
import { AccountSessions } from "./account-sessions.ts";
import { Actor, type Flow } from "./actor.ts";
import { askWhereItIs } from "./moved.ts";
import type { JobSeen } from "./seen.ts";
import { askAs } from "./session-keys.ts";
import {
  type AccountDoor,
  FEE_RECIPIENT,
  type LeaseDoor,
  METER,
  ONE_SHARD,
  PLACE,
  type Setting,
} from "./setting.ts";

/** As in durable-objects/account/object.ts and quotes.ts. */
const TRIES = 5;
const ALLOCATE_S = 600;
const OVER: ReadonlySet<string> = new Set([
  "lease_closed",
  "lease_unknown",
  "quote_expired",
  "quote_unknown",
]);
const UNFIT: ReadonlySet<string> = new Set(["lease_underfunded", "queue_full"]);

type Submitted = Outcome<{ job: JobSeen; replayed: boolean }> | PaymentNeeded;

/** The shell of durable-objects/account/object.ts over the same machine. */
export class AccountObject extends Actor implements AccountDoor {
  readonly #setting: Setting;
  readonly #config: Pick<EdgeConfig, "hasher" | "settlement" | "meter" | "feeRecipient" | "feeBps">;
  readonly #keys = new Map<string, KeyEntry>();
  readonly #leases = new Map<LeaseId, AccountLease>();
  readonly orders: AccountOrders;
  readonly sessions: AccountSessions;
  #quoting = 0;
  #underway = new Set<string>();

  constructor(address: Address, setting: Setting) {
    super(`account ${address.slice(2, 4)}`);
    this.#setting = setting;
    this.sessions = new AccountSessions(this, setting);
    this.orders = new AccountOrders(this, setting, (state) => this.#keepLeases(state));
    this.#config = {
      hasher: setting.hasher,
      settlement: {
        chain_id: PLACE.chainId,
        escrow: PLACE.escrow,
        token: `0x${"70".repeat(20)}`,
        token_name: "USD Coin",
        token_version: "2",
      },
      meter: METER,
      feeRecipient: FEE_RECIPIENT,
      feeBps: 500,
    };
  }

  override crash(): void {
    super.crash();
    this.#quoting = 0;
    this.#underway = new Set();
    this.orders.crash();
    this.sessions.crash();
  }

  *quote(by: Address, request: Wanted, atLeast = 0n): Flow<Outcome<{ quote: Quote }>> {
    const { network } = this.#setting;
    if (this.#openQuotes() >= MAX_OPEN_QUOTES) return { ok: false, code: "too_many_quotes" };
    this.#quoting += 1;
    try {
      const [group] = groupsFor(request.demand);
      const [name] = group === undefined ? [] : shardsOf(group, ONE_SHARD);
      if (name === undefined) return { ok: false, code: "no_capacity" };
      const book = this.#setting.book(name);
      const found = yield* network.call(this, book, "find", () => book.find(request.demand, TRIES));
      for (const entry of found.entries) {
        const quoted = yield* this.#hold(by, request, entry, atLeast);
        if (quoted.ok) return quoted;
      }
      return { ok: false, code: "no_capacity" };
    } finally {
      this.#quoting -= 1;
    }
  }

  *order(by: Address, request: Wanted, nodes: number): Flow<Outcome<{ order: OrderState }>> {
    const [group] = groupsFor(request.demand);
    const [name] = group === undefined ? [] : shardsOf(group, ONE_SHARD);
    const isFull = this.#openQuotes() + this.orders.open() >= MAX_OPEN_QUOTES;
    if (name === undefined || isFull) return { ok: false, code: "too_many_quotes" };
    const book = this.#setting.book(name);
    const find = () => book.find(request.demand, TRIES);
    const found = yield* this.#setting.network.call(this, book, "find", find);
    const self = this;
    return yield* this.orders.place(nodes, found.entries, function* (entry) {
      const draft = yield* self.#offer(by, request, entry);
      if (draft === null) return null;
      return { ...draft, amount: usualAmount(request, draft.hold) };
    });
  }

  *fundOrder(id: OrderId, funding: OrderAuthorization): Flow<Outcome<{ order: OrderState }>> {
    return yield* this.orders.fund(id, funding);
  }

  quoteOf(draft: Draft, amount: bigint): Quote {
    return quoteOf(this.#config, draft, amount);
  }

  #openQuotes(): number {
    const { machines, schedule } = this.#setting;
    return machines.account.openQuotes(this.#liveLeases(schedule.now), schedule.now) + this.#quoting;
  }

  /** The account's own rows of the leases follow the order's. */
  #keepLeases({ id: order, createdAt, legs }: OrderState): void {
    for (const { hold, state } of legs) {
      const { lease: id, text, terms, expiresAt } = hold;
      const row = { id, text, createdAt, order };
      if (state === "held") this.#leases.set(id, { ...row, phase: "quoted", expiresAt });
      if (state === "told") this.#leases.set(id, { ...row, phase: "open", expiresAt: terms.expiry * 1_000 });
      if (state === "freeing") this.#leases.set(id, { ...row, phase: "ended", expiresAt });
    }
  }

  /** What a listed node offers now, written as terms; nothing is held yet. */
  *#offer(by: Address, request: Wanted, listed: BookEntry): Flow<Draft | null> {
    const { network, random, schedule } = this.#setting;
    const node = this.#setting.node(listed.node);
    const described = yield* network.call(this, node, "describe", () => node.describe());
    if (!described.ok) return null;
    const { entry, free } = described;
    const unsold = { ...entry.offer, cpu: free.cpu, memory_gb: free.memory_gb };
    if (blockersOf(unsold, entry.node, free.gpus.length, request.demand).length > 0) return null;
    const cards = free.gpus;
    return draftQuote(this.#config, by, request, { entry, cards }, random.bytes32(), schedule.now);
  }

  *#hold(by: Address, request: Wanted, listed: BookEntry, atLeast: bigint): Flow<Outcome<{ quote: Quote }>> {
    const { network, schedule, watch } = this.#setting;
    const full: Refused = { ok: false, code: "no_capacity" };
    const draft = yield* this.#offer(by, request, listed);
    if (draft === null) return full;
    const now = schedule.now;
    const { hold } = draft;
    const node = this.#setting.node(listed.node);
    const held = yield* network.call(this, node, "hold", () => node.hold(hold));
    if (!held.ok) return full;
    const usual = usualAmount(request, hold);
    const lease = this.#setting.lease(hold.lease);
    const kept = yield* network.call(this, lease, "quote", () => lease.quote(hold));
    if (!kept.ok) {
      yield* network.call(this, node, "release", () => node.release(hold.lease));
      return full;
    }
    this.#leases.set(hold.lease, {
      id: hold.lease,
      phase: "quoted",
      text: hold.text,
      expiresAt: hold.expiresAt,
      createdAt: now,
      order: null,
    });
    watch.quotes(
      this.name,
      this.#liveLeases(schedule.now).filter((each) => each.phase === "quoted" && each.order === null).length,
    );
    return { ok: true, quote: quoteOf(this.#config, draft, usual > atLeast ? usual : atLeast) };
  }

  *openLease(by: Address, id: LeaseId, funding: LeaseFunding): Flow<Outcome<{ status: LeaseStatus }>> {
    const known = this.#leases.get(id);
    if (known === undefined) return { ok: false, code: "quote_unknown" };
    const lease = this.#setting.lease(id);
    const funded = yield* this.#setting.network.call(
      this,
      lease,
      `fund by ${by.slice(2, 4)}`,
      () => lease.fund(funding),
      true,
    );
    if (funded.ok) this.#leases.set(id, { ...known, phase: "open", expiresAt: funded.expiry * 1_000 });
    return funded;
  }

  *submit(
    by: Address,
    key: string,
    bodyHash: string,
    request: RoutedJobRequest,
    waitMs: number,
    session: SessionId | null = null,
  ): Flow<Submitted> {
    const over = this.sessions.refusal(session);
    if (over !== null) return over;
    const scope = `key:${key}`;
    const begun = this.#stepKey(scope, { t: "begin", bodyHash, underway: this.#underway.has(scope) });
    if (!begun.ok) return begun;
    if (begun.replay !== null) {
      const { job, lease } = begun.replay;
      const self = this;
      const known = yield* askWhereItIs(lease, function* (at) {
        const door = self.#setting.lease(at);
        return yield* self.#onLease(by, session, door, "job", (as) => door.job(as, job));
      });
      return known.ok ? { ...known, replayed: true } : known;
    }
    this.#underway.add(scope);
    try {
      const chosen = begun.next?.chosen?.lease ?? null;
      const submitted = yield* this.#submit(by, session, scope, chosen, request, waitMs);
      this.#stepKey(
        scope,
        submitted.ok
          ? { t: "succeeded", chosen: { job: submitted.job.id, lease: submitted.job.lease } }
          : { t: "refused" },
      );
      return submitted;
    } finally {
      this.#underway.delete(scope);
    }
  }

  *places(lease: LeaseId): Flow<LeaseId[]> {
    yield* [];
    const { machines, schedule } = this.#setting;
    const { now } = schedule;
    return machines.account.placesFor(this.#leases.get(lease) ?? null, this.#liveLeases(now), now);
  }

  /** As in durable-objects/account/object.ts: it vouches for the session itself. */
  *#onLease<Answer extends object>(
    by: Address,
    session: SessionId | null,
    lease: LeaseDoor,
    what: string,
    ask: (as: Caller) => Flow<Answer>,
  ): Flow<Answer | Refused> {
    const call = (as: Caller) => this.#setting.network.call(this, lease, what, () => ask(as));
    return yield* askAs(by, session, call, (id, needs) => this.sessions.admit(id, lease.id, needs));
  }

  *openSession(id: SessionId, cap: bigint, expiresAt: number): Flow<Outcome> {
    yield* [];
    return this.sessions.open(id, cap, expiresAt);
  }

  *admitSession(session: SessionId, lease: LeaseId, needs: bigint): Flow<Outcome> {
    return yield* this.sessions.admit(session, lease, needs);
  }

  *revokeSession(id: SessionId): Flow<Outcome<{ untold: readonly LeaseId[] }>> {
    return yield* this.sessions.revoke(id);
  }

  *#submit(
    by: Address,
    session: SessionId | null,
    scope: string,
    chosen: LeaseId | null,
    request: RoutedJobRequest,
    waitMs: number,
  ): Flow<Submitted> {
    const { machines, schedule } = this.#setting;
    const { demand, lease: named, payer = by, funding, ...job } = request;
    if (funding !== undefined) {
      if (named === undefined) return { ok: false, code: "funding_invalid" };
      const opened = yield* this.openLease(by, named, funding);
      if (!opened.ok) return opened;
    }
    const now = schedule.now;
    for (const id of machines.account.candidates(this.#liveLeases(now), request, chosen, now)) {
      const jobId = jobIdFor(id, by, scope);
      this.#stepKey(scope, { t: "choose", chosen: { lease: id, job: jobId } });
      const lease = this.#setting.lease(id);
      const submitted = yield* this.#onLease(by, session, lease, "submit", (as) =>
        lease.submit(as, jobId, job, waitMs),
      );
      if (!submitted.ok && OVER.has(submitted.code)) {
        const known = this.#leases.get(id);
        if (known !== undefined) this.#leases.set(id, { ...known, phase: "ended" });
        if (named !== id) continue;
      }
      if (!submitted.ok && UNFIT.has(submitted.code) && named !== id) continue;
      return submitted;
    }
    const quoted = yield* this.quote(
      by,
      { demand, payer, duration_s: 3_600, extendable_s: 0, keep_warm_s: KEEP_WARM_S, mode: "serverless" },
      request.max_price,
    );
    if (!quoted.ok) return quoted;
    const { lease_id, lease_hash } = quoted.quote;
    const allowance = { lease_id, lease_hash, cumulative: request.max_price.toString() };
    const credit = this.#creditFor(quoted.quote);
    const paid = credit === null ? {} : { allowance, credit };
    return { ok: false, code: "payment_required", quote: quoted.quote, ...paid };
  }

  /** CRD-5: what to sign where the payer's credit suffices and is not on its way back; by the newest block. */
  #creditFor(quote: Quote): CreditOffer | null {
    const { chain, schedule } = this.#setting;
    const { payer, consumerSigner } = quote.terms;
    const { amount: balance, releaseAt } = chain.escrow.credits.of(payer, consumerSigner);
    if (balance < quote.amount || releaseAt > 0) return null;
    const validBefore = Math.floor(schedule.now / 1_000) + ALLOCATE_S;
    const message = { leaseIds: [quote.lease_hash], fundedTo: [quote.amount], validBefore };
    return { balance, allocate: allocateTypedData(quote.settlement, message) };
  }

  #stepKey(scope: string, event: KeyEvent) {
    const result = this.#setting.machines.account.stepKey(
      this.#keys.get(scope) ?? null,
      event,
      this.#setting.schedule.now,
    );
    if (!result.ok) return result;
    if (result.next === null) this.#keys.delete(scope);
    else this.#keys.set(scope, result.next);
    return result;
  }

  #liveLeases(now: number): AccountLease[] {
    return [...this.#leases.values()]
      .filter(({ phase, expiresAt }) => phase !== "ended" && expiresAt > now)
      .sort((a, b) => b.createdAt - a.createdAt);
  }
}

/** As `jobIdFor` of request-scope.ts, with a hash that needs no WebCrypto: the same request is the same job. */
export function jobIdFor(lease: LeaseId, by: Address, scope: string): JobId {
  const seed = new Uint8Array(16);
  let at = 0;
  for (const letter of `${by} ${scope}`) {
    const slot = at % 16;
    seed[slot] = (Math.imul((seed[slot] ?? 0) + at, 31) + letter.charCodeAt(0)) & 0xff;
    at += 1;
  }
  return jobIdOf(lease, seed);
}

function usualAmount(request: Wanted, { terms, text }: Draft["hold"]): bigint {
  return amountOf(request, { ratePerHour: terms.ratePerHour, startPrice: startPriceOf(text) });
}
