import { DurableObject } from "cloudflare:workers";
import type { ErrorCode } from "@gpux/protocol/errors";
import type { Address, Bytes32, JobId, LeaseId } from "@gpux/protocol/ids";
import type { JobView, RoutedJobRequest } from "@gpux/protocol/job";
import {
  type FundingAuthorization,
  KEEP_WARM_S,
  type LeaseView,
  type Quote,
  type QuoteRequest,
} from "@gpux/protocol/lease";
import { type Blocker, blockersOf } from "@gpux/protocol/resources";
import type { SessionGrant, SessionId, SessionView } from "@gpux/protocol/session";
import { bytesToHex } from "viem/utils";
import type { ObjectEnv } from "../bindings.ts";
import { askAs } from "../caller.ts";
import { configOf } from "../config.ts";
import type {
  AccountRpc,
  BookEntry,
  Caller,
  Found,
  Outcome,
  PaymentNeeded,
  Principal,
  Refused,
  Wait,
} from "../interfaces.ts";
import { takeNonce } from "../nonce-window.ts";
import { findOffers } from "../offers.ts";
import { jobIdFor, scopeOf } from "../request-scope.ts";
import { candidates, type KeyEvent, MAX_OPEN_QUOTES, openQuotes, stepKey } from "./machine.ts";
import { amountOf, draftQuote, quoteOf } from "./quote.ts";
import { AccountSessions } from "./sessions.ts";
import { AccountStore } from "./store.ts";

/** Offers that are asked to hold, one after another, before the answer is "no capacity". */
const TRIES = 5;
/** Until leases are told of a revocation once more, when this life ends before they have heard. */
const TELL_AGAIN_MS = 2_000;

type Submitted = Outcome<{ job: JobView; replayed: boolean }> | PaymentNeeded;
type Quoted = Outcome<{ quote: Quote }> | (Refused & { wait?: Wait });

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
  readonly #sessions: AccountSessions;
  /** Quotes under way, which have no row yet. */
  #quoting = 0;
  /** Scopes of the requests that this life is dealing with. */
  readonly #underway = new Set<string>();

  constructor(ctx: DurableObjectState, env: ObjectEnv) {
    super(ctx, env);
    this.#store = new AccountStore(ctx.storage.sql);
    this.#sessions = new AccountSessions(ctx.storage.sql, env.LEASE);
  }

  async quote(by: Principal, request: QuoteRequest): Promise<Quoted> {
    const replay = this.#admit(by);
    return replay ?? this.#quote(by.address, request);
  }

  async openLease(
    by: Principal,
    id: LeaseId,
    funding: FundingAuthorization,
  ): Promise<Outcome<{ lease: LeaseView }>> {
    const replay = this.#admit(by);
    if (replay !== null) return replay;
    const known = this.#store.lease(id);
    if (known === null) return { ok: false, code: "quote_unknown" };
    const funded = await this.env.LEASE.getByName(id).fund(funding);
    if (funded.ok) {
      const expiresAt = funded.lease.terms.expiry * 1000;
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
      const known = await this.#onLease(by, lease, (as) => this.env.LEASE.getByName(lease).job(as, job, 0));
      return known.ok ? { ...known, replayed: true } : known;
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
    void this.ctx.storage.setAlarm(Date.now() + TELL_AGAIN_MS);
    await this.alarm();
    return this.#sessions.view(session);
  }

  async sessionStands(by: Principal): Promise<Outcome> {
    return this.#sessions.refusal(by, Date.now()) ?? { ok: true };
  }

  async admitSession(by: Principal, lease: LeaseId, needs: bigint): Promise<Outcome> {
    return this.#sessions.admit(by, lease, needs);
  }

  /** Leases that could not be told of a revocation are told again. */
  override async alarm(): Promise<void> {
    const wait = await this.#sessions.tell(Date.now());
    if (wait !== null) await this.ctx.storage.setAlarm(Date.now() + wait);
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
    const { demand, lease: named, ...job } = request;
    let full: Refused | null = null;
    const now = Date.now();
    for (const lease of candidates(this.#store.liveLeases(now), request, chosen, now)) {
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
      return submitted;
    }
    if (full !== null) return full;
    return this.#paymentFor(by.address, request);
  }

  async #paymentFor(by: Address, request: RoutedJobRequest): Promise<Submitted> {
    const { demand } = request;
    const wanted: QuoteRequest = { demand, duration_s: 3_600, keep_warm_s: KEEP_WARM_S };
    const quoted = await this.#quote(by, wanted, request.max_price);
    if (!quoted.ok) return quoted;
    return { ok: false, code: "payment_required", quote: quoted.quote };
  }

  async #quote(by: Address, request: QuoteRequest, atLeast = 0n): Promise<Quoted> {
    if (openQuotes(this.#store.liveLeases(Date.now()), Date.now()) + this.#quoting >= MAX_OPEN_QUOTES)
      return { ok: false, code: "too_many_quotes" };
    this.#quoting += 1;
    try {
      const demand = { ...request.demand, duration_s: request.demand.duration_s ?? request.duration_s };
      const found = await findOffers(this.env, demand, TRIES, { toBuy: true });
      const blockers = { ...found.blockers };
      for (const entry of found.entries) {
        const held = await this.#hold(by, request, entry, atLeast);
        if (held.ok) return held;
        for (const blocker of held.blockers) blockers[blocker] = (blockers[blocker] ?? 0) + 1;
      }
      return nothingFits(found, blockers);
    } finally {
      this.#quoting -= 1;
    }
  }

  /** Asks one node; what it failed counts as the offer's blockers. */
  async #hold(
    by: Address,
    request: QuoteRequest,
    listed: BookEntry,
    atLeast: bigint,
  ): Promise<{ ok: true; quote: Quote } | { ok: false; blockers: Blocker[] }> {
    const node = this.env.NODE.getByName(listed.node);
    const described = await node.describe();
    if (!described.ok) return { ok: false, blockers: ["gpus"] };
    const { entry } = described;
    const blockers = blockersOf(entry.offer, entry.node, entry.free, request.demand);
    if (blockers.length > 0) return { ok: false, blockers };
    const config = configOf(this.env);
    const now = Date.now();
    const salt: Bytes32 = bytesToHex(crypto.getRandomValues(new Uint8Array(32)));
    const draft = draftQuote(config, by, request, entry, salt, now);
    if (draft === null) return { ok: false, blockers: ["gpu_model"] };
    const { hold } = draft;
    const held = await node.hold(hold);
    if (!held.ok) return { ok: false, blockers: ["gpus"] };
    const usual = amountOf(request, hold.terms.ratePerHour);
    const amount = usual > atLeast ? usual : atLeast;
    const kept = await this.env.LEASE.getByName(hold.lease).quote({ ...hold, amount });
    if (!kept.ok) {
      await node.release(hold.lease);
      return { ok: false, blockers: ["gpus"] };
    }
    this.#store.saveLease({
      id: hold.lease,
      phase: "quoted",
      text: hold.text,
      expiresAt: hold.expiresAt,
      createdAt: now,
    });
    return { ok: true, quote: quoteOf(config, draft, amount) };
  }
}

function nothingFits(found: Found, blockers: Partial<Record<Blocker, number>>): Refused & { wait: Wait } {
  const code = found.entries.length === 0 && found.onlyPrice > 0 ? "price_below_offers" : "no_capacity";
  // Waiting helps where GPUs come free again.
  const possible = found.entries.length > 0 || found.onlyBusy > 0;
  return { ok: false, code, wait: { possible, blockers } };
}
