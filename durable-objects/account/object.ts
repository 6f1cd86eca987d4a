import { DurableObject } from "cloudflare:workers";
import type { ErrorCode } from "@gpux/protocol/errors";
import type { LeaseFunding } from "@gpux/protocol/funding";
import type { JobId, LeaseId, OrderId } from "@gpux/protocol/ids";
import type { JobView, RoutedJobRequest } from "@gpux/protocol/job";
import type { IndicativeQuote, LeaseView, Quote, QuoteRequest } from "@gpux/protocol/lease";
import type { Order, OrderAuthorization, OrderRequest } from "@gpux/protocol/order";
import type { Demand } from "@gpux/protocol/resources";
import type { SessionGrant, SessionId, SessionView } from "@gpux/protocol/session";
import type { ObjectEnv } from "../bindings.ts";
import { askAs } from "../caller.ts";
import type {
  AccountRpc,
  Caller,
  NothingFits,
  Outcome,
  PaymentNeeded,
  Principal,
  Refused,
} from "../interfaces.ts";
import { askWhereItIs } from "../moved.ts";
import { takeNonce } from "../nonce-window.ts";
import { jobIdFor, scopeOf } from "../request-scope.ts";
import { candidates, fits, type KeyEvent, placesFor, pool, stepKey } from "./machine.ts";
import { demandOf, Orders } from "./orders.ts";
import { Quotes } from "./quotes.ts";
import { AccountSessions } from "./sessions.ts";
import { standingOf } from "./standing.ts";
import { AccountStore } from "./store.ts";

type Submitted = Outcome<{ job: JobView; replayed: boolean; routes: boolean }> | PaymentNeeded;
/** Of a lease that will take no more jobs. */
const OVER: ReadonlySet<ErrorCode> = new Set([
  "lease_closed",
  "lease_unknown",
  "quote_expired",
  "quote_unknown",
]);
/** Of a lease that cannot take this job, while another may. */
const UNFIT: ReadonlySet<ErrorCode> = new Set(["lease_underfunded", "queue_full"]);

/**
 * One principal: which requests it has made, its client-made job ids, its leases. Named by the principal's address.
 * It is on the cold path only: a job for a known lease goes straight to the Lease.
 */
export class AccountObject extends DurableObject<ObjectEnv> implements AccountRpc {
  readonly #store: AccountStore;
  readonly #orders: Orders;
  readonly #sessions: AccountSessions;
  readonly #quotes: Quotes;
  #alarmAt = Number.POSITIVE_INFINITY;
  /** Scopes of the requests that this life is dealing with. */
  readonly #underway = new Set<string>();

  constructor(ctx: DurableObjectState, env: ObjectEnv) {
    super(ctx, env);
    this.#store = new AccountStore(ctx.storage.sql);
    this.#orders = new Orders(env, this.#store, () => this.#rearm());
    this.#quotes = new Quotes(env, this.#store, (now) => this.#orders.open(now));
    this.#sessions = new AccountSessions(ctx.storage.sql, env.LEASE);
  }

  async quote(
    by: Principal,
    request: QuoteRequest,
  ): Promise<Outcome<{ quote: Quote | IndicativeQuote }> | NothingFits> {
    const replay = this.#admit(by);
    if (replay !== null) return replay;
    return request.firm ? this.#quotes.firm(by.address, request) : this.#quotes.indicate(request);
  }

  async order(
    by: Principal,
    key: string | null,
    bodyHash: string,
    request: OrderRequest,
  ): Promise<Outcome<{ order: Order; replayed: boolean }> | NothingFits> {
    const replay = this.#admit(by);
    if (replay !== null) return replay;
    const scope = scopeOf(null, key, by.nonce);
    const known = await this.#orders.known(scope, bodyHash, by.address);
    if (known !== null) return known.ok ? { ...known, replayed: true } : known;
    const gpus = request.nodes * demandOf(request).resources.gpus;
    const placed = await this.#quotes.holding(by.address, request, gpus, () =>
      this.#orders.place(by.address, scope, bodyHash, request),
    );
    return placed.ok ? { ...placed, replayed: false } : placed;
  }

  async fundOrder(
    by: Principal,
    id: OrderId,
    funding: OrderAuthorization,
  ): Promise<Outcome<{ order: Order }>> {
    const replay = this.#admit(by);
    if (replay !== null) return replay;
    const wasPaid = this.#orders.isFunded(id);
    const funded = await this.#orders.fund(by.address, id, funding);
    if (funded.ok && !wasPaid)
      this.#quotes.paid(funded.order.quotes.reduce((sum, { text }) => sum + text.resources.gpus, 0));
    return funded;
  }

  async viewOrder(by: Principal, id: OrderId): Promise<Outcome<{ order: Order }>> {
    return this.#sessions.refusal(by, Date.now()) ?? this.#orders.view(id, by.address);
  }

  async openLease(by: Principal, id: LeaseId, funding: LeaseFunding): Promise<Outcome<{ lease: LeaseView }>> {
    const replay = this.#admit(by);
    if (replay !== null) return replay;
    return this.#open(id, funding);
  }

  async #open(id: LeaseId, funding: LeaseFunding): Promise<Outcome<{ lease: LeaseView }>> {
    const known = this.#store.lease(id);
    if (known === null) return { ok: false, code: "quote_unknown" };
    if (known.order !== null && known.phase === "quoted")
      return { ok: false, code: "funding_invalid", detail: `it opens with the others of ${known.order}` };
    const funded = await this.env.LEASE.getByName(id).fund(funding);
    if (funded.ok) {
      const expiresAt = funded.lease.terms.expiry * 1000;
      if (known.phase === "quoted") this.#quotes.paid(known.text.resources.gpus);
      this.#store.saveLease({ ...known, phase: "open", expiresAt });
    }
    // An RPC's answer carries a disposer. Handed on, it would keep this object from leaving memory until called.
    return structuredClone(funded);
  }

  async submit(
    by: Principal,
    key: string | null,
    bodyHash: string,
    request: RoutedJobRequest,
    clientId: string | null,
  ): Promise<Submitted> {
    const replay = this.#admit(by);
    if (replay !== null) return replay;
    const scope = scopeOf(clientId, key, by.nonce);
    const begun = this.#stepKey(scope, { t: "begin", bodyHash, underway: this.#underway.has(scope) });
    if (!begun.ok) return begun;
    if (begun.replay !== null) {
      const { job, lease } = begun.replay;
      const known = await askWhereItIs(lease, (at) =>
        this.#onLease(by, at, (as) => this.env.LEASE.getByName(at).job(as, job, 0)),
      );
      if (!known.ok) return known;
      return { ...known, replayed: true, routes: this.#routes(known.job.lease_id, request.demand) };
    }
    this.#underway.add(scope);
    try {
      const submitted = await this.#submit(by, scope, begun.next?.chosen?.lease ?? null, request, clientId);
      const chosen = submitted.ok && { job: submitted.job.id, lease: submitted.job.lease_id };
      this.#stepKey(scope, chosen ? { t: "succeeded", chosen } : { t: "refused" });
      return submitted;
    } finally {
      // After a throw the lease may or may not have the job: the key stays, and the retry asks the same one.
      this.#underway.delete(scope);
    }
  }

  async resolve(clientId: string): Promise<JobId | null> {
    return this.#store.key(scopeOf(clientId, null, ""))?.chosen?.job ?? null;
  }

  async leases(): Promise<LeaseId[]> {
    return this.#store
      .liveLeases(Date.now())
      .filter((lease) => lease.phase === "open")
      .map((lease) => lease.id);
  }

  async places(lease: LeaseId): Promise<LeaseId[]> {
    const now = Date.now();
    return placesFor(this.#store.lease(lease), this.#store.liveLeases(now), now);
  }

  /** Without the disposer that the Lease's answer carries, for it is handed on. */
  async #onLease<Answer extends object>(
    by: Principal,
    lease: LeaseId,
    ask: (as: Caller) => Promise<Answer>,
  ): Promise<Answer | Refused> {
    return structuredClone(await askAs(by, ask, (needs) => this.#sessions.admit(by, lease, needs)));
  }

  async openSession(by: Principal, grant: SessionGrant): Promise<Outcome<{ session: SessionView }>> {
    return this.#admit(by) ?? this.#sessions.open(grant, Date.now());
  }

  async sessions(by: Principal): Promise<Outcome<{ sessions: SessionView[] }>> {
    return this.#sessions.refusal(by, Date.now()) ?? { ok: true, sessions: this.#sessions.list() };
  }

  async revokeSession(by: Principal, session: SessionId): Promise<Outcome<{ session: SessionView }>> {
    const refusal = this.#admit(by);
    if (refusal !== null) return refusal;
    if (!this.#sessions.revoke(session, Date.now())) return { ok: false, code: "session_unknown" };
    // Written with the revocation: a crash before all leases have heard leaves the alarm.
    this.#rearm();
    await this.alarm();
    return this.#sessions.view(session);
  }

  async sessionStands(by: Principal): Promise<Outcome> {
    return this.#sessions.refusal(by, Date.now()) ?? { ok: true };
  }

  async admitSession(by: Principal, lease: LeaseId, needs: bigint): Promise<Outcome> {
    return this.#sessions.admit(by, lease, needs);
  }

  /** What an order must still do, and leases that could not be told of a revocation. */
  override async alarm(): Promise<void> {
    this.#alarmAt = Number.POSITIVE_INFINITY;
    // The platform drops an alarm after six failures, and with it what leases must still hear: never throw.
    try {
      await Promise.all([this.#orders.alarm(), this.#sessions.tell(Date.now())]);
    } catch (error) {
      console.error(error);
    }
    this.#rearm();
  }

  #admit(by: Principal): Refused | null {
    const now = Date.now();
    const over = this.#sessions.refusal(by, now);
    if (over !== null) return over;
    this.#store.prune(now);
    const { address: signer, nonce, expires } = by;
    if (takeNonce(this.ctx.storage.sql, { signer, nonce, expires }, now)) return null;
    return { ok: false, code: "signature_replayed" };
  }

  #stepKey(scope: string, event: KeyEvent) {
    const before = this.#store.key(scope);
    const result = stepKey(before, event, Date.now());
    if (result.ok && result.next !== before) this.#store.saveKey(scope, result.next);
    return result;
  }

  async #submit(
    by: Principal,
    scope: string,
    chosen: LeaseId | null,
    request: RoutedJobRequest,
    clientId: string | null,
  ): Promise<Submitted> {
    const { demand, lease: named, payer: _, funding, ...job } = request;
    if (funding !== undefined) {
      if (named === undefined) return { ok: false, code: "funding_invalid", detail: "name the quoted lease" };
      const opened = await this.#open(named, funding);
      if (!opened.ok) return opened;
    }
    let full: Refused | null = null;
    const now = Date.now();
    const live = this.#store.liveLeases(now);
    const standing =
      named === undefined ? await standingOf(this.env, by.address, pool(live, demand, now)) : undefined;
    for (const lease of candidates(live, request, chosen, now, standing)) {
      const id = await jobIdFor(lease, by.address, scope);
      this.#stepKey(scope, { t: "choose", chosen: { lease, job: id } });
      const submitted = await this.#onLease(by, lease, (as) =>
        this.env.LEASE.getByName(lease).submit(as, id, job, clientId, 0),
      );
      if (!submitted.ok && OVER.has(submitted.code)) {
        this.#store.endLease(lease);
        if (named !== lease) continue;
      }
      if (!submitted.ok && UNFIT.has(submitted.code) && named !== lease) {
        if (submitted.code === "queue_full") full = submitted;
        continue;
      }
      return submitted.ok ? { ...submitted, routes: this.#routes(lease, demand) } : submitted;
    }
    if (full !== null) return full;
    return this.#quotes.forJob(by.address, request);
  }

  /** POOL-2: whether a request with this demand may be led to the lease straight away. */
  #routes(id: LeaseId, demand: Demand): boolean {
    const lease = this.#store.lease(id);
    return lease !== null && lease.phase === "open" && fits(lease.text, demand);
  }

  /** Never later than what is set already: an account that is asked without end must not put its duties off. */
  #rearm(): void {
    const now = Date.now();
    const due = Math.min(
      this.#orders.dueAt(now) ?? Number.POSITIVE_INFINITY,
      this.#sessions.dueAt(now) ?? Number.POSITIVE_INFINITY,
    );
    if (due >= this.#alarmAt) return;
    this.#alarmAt = Math.max(now, due);
    void this.ctx.storage.setAlarm(this.#alarmAt);
  }
}
