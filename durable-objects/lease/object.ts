import { DurableObject } from "cloudflare:workers";
import { CLOSE, FRAME_LIMIT, FromLease, type ToLease } from "@gpux/protocol/frames";
import { Address, JobId } from "@gpux/protocol/ids";
import {
  inputHash,
  type JobEvent,
  type JobRequest,
  type JobView,
  type SignedAllowance,
} from "@gpux/protocol/job";
import type { FundingAuthorization, LeaseView } from "@gpux/protocol/lease";
import type { FundingPlan } from "@gpux/protocol/order";
import { placeOf } from "@gpux/protocol/place";
import type { SessionId } from "@gpux/protocol/session";
import { recoverSigner } from "@gpux/protocol/signature";
import { bytesToHex } from "viem/utils";
import { z } from "zod";
import type { ObjectEnv } from "../bindings.ts";
import type { Caller, HoldRequest, LeaseRpc, Outcome, PaymentNeeded, Refused } from "../interfaces.ts";
import { takeNonce } from "../nonce-window.ts";
import { upgradeOf } from "../upgrade.ts";
import { fundingAnswer, isLanding, mayNot, refusalOf, topUpAnswer } from "./answers.ts";
import { duties } from "./duties.ts";
import { Errands } from "./errands.ts";
import { fundingFault } from "./funding.ts";
import { type Event, prune, type Step, step } from "./machine.ts";
import { quotedLease } from "./quoted.ts";
import type { Run } from "./runs.ts";
import { LeaseSessions } from "./sessions.ts";
import { claimsOf } from "./signatures.ts";
import { AgentSocket, Watchers } from "./sockets.ts";
import { isFinal, isSettled, isTerminal, type Job, type State, sameAttempt } from "./state.ts";
import { LeaseStore } from "./store.ts";
import { type Shell, takeIn } from "./submission.ts";
import { issue, redeem } from "./tickets.ts";
import { isForgotten, wakeAt } from "./timers.ts";
import { jobView, leaseView } from "./view.ts";
import { Waiters } from "./waiters.ts";
import { BEHIND_MS, WriteBehind } from "./write-behind.ts";

const LONGEST_WAIT_MS = 60_000;
const FUNDING_WAIT_MS = 3_000;
/** How long a quote stands for its order once its node is reserved: until all others are, and the order is decided. */
const RESERVED_MS = 60_000;
const ALARM_RETRY_MS = 10_000;
/** The longest that a landed funding may take to become as hard as its amount asks; `safe` takes minutes. */
const CONFIRM_MS = 30 * 60_000;

/** Frames whose effect the agent would tell again: their rows may follow a moment later. */
const HOT: ReadonlySet<FromLease["t"]> = new Set([
  "started",
  "progress",
  "log",
  "result",
  "failed",
  "stopped",
  "ack",
]);

/**
 * One lease; its name is the lease's id. The shell around the machine: load, step, write state, journal and alarm in
 * one synchronous block, then send frames, wake who waits, and carry out duties. On the warm path the rows follow within
 * milliseconds (write-behind.ts): nothing of it waits for the disk.
 */
export class LeaseObject extends DurableObject<ObjectEnv> implements LeaseRpc {
  #store = new LeaseStore(this.ctx.storage.sql);
  #state = this.#store.load();
  #sessions = this.#openSessions();
  readonly #errands = new Errands(this.env);
  readonly #agent = new AgentSocket(this.ctx);
  readonly #watchers = new Watchers(this.ctx);
  readonly #waiters = new Waiters();
  readonly #shell: Shell = {
    state: () => this.#state,
    sessions: () => this.#sessions,
    mayNot: (as) => this.#mayNot(as),
    job: (id) => this.#job(id),
    apply: (event, mayWait) => this.#apply(event, mayWait),
  };
  #behind = new WriteBehind();
  #timer: ReturnType<typeof setTimeout> | null = null;
  /** The agent's highest seq whose effect is in the rows. */
  #seen = this.#state?.lease.seen ?? 0;
  /** Frames are dealt with in order although some need a signature check first. */
  #inbox: Promise<void> = Promise.resolve();
  #asleep = true;
  #alarmAt = Number.POSITIVE_INFINITY;

  async quote(request: HoldRequest & { amount: bigint }): Promise<Outcome> {
    if (this.#state !== null) return { ok: true };
    const now = Date.now();
    this.#state = quotedLease(request, placeOf(this.env), now);
    this.#behind.note(null, this.#state, [], [], now);
    this.#write();
    this.#arm();
    return { ok: true };
  }

  async reserve(validBefore: number): Promise<Outcome> {
    if (this.#state === null) return { ok: false, code: "quote_unknown" };
    const { id, terms } = this.#state.lease;
    const until = validBefore * 1_000 + CONFIRM_MS;
    const reserved = await this.env.NODE.getByName(terms.providerSigner).reserve(id, until);
    if (!reserved.ok) return reserved;
    if (this.#state === null) return { ok: false, code: "quote_expired" };
    const result = this.#apply({ t: "reserve", until: Date.now() + RESERVED_MS });
    return result.ok ? { ok: true } : refusalOf(result);
  }

  async fund(
    funding: FundingAuthorization,
    plan: FundingPlan | null = null,
  ): Promise<Outcome<{ lease: LeaseView }>> {
    if (this.#state === null) return { ok: false, code: "quote_unknown" };
    const { lease } = this.#state;
    if (lease.status === "quoted" && plan === null) {
      const fault = fundingFault(funding, Date.now());
      if (fault !== null) return refusalOf(fault);
      // A reservation outlives every block in which the funding could still land, and what it is waited for on top.
      const node = this.env.NODE.getByName(lease.terms.providerSigner);
      const reserved = await node.reserve(lease.id, funding.valid_before * 1_000 + CONFIRM_MS);
      if (!reserved.ok) return reserved;
    }
    const result = this.#apply({ t: "fund", funding, plan });
    if (!result.ok) return refusalOf(result);
    // A slow chain is no refusal.
    if (this.#state.lease.status === "funding") await this.#waiters.change("lease", FUNDING_WAIT_MS);
    return fundingAnswer(this.#state);
  }

  async topUp(as: Caller, funding: FundingAuthorization): Promise<Outcome<{ lease: LeaseView }>> {
    const refusal = this.#mayNot(as);
    if (this.#state === null || refusal !== null) return refusal ?? { ok: false, code: "lease_unknown" };
    const fault = fundingFault(funding, Date.now());
    if (fault !== null) return refusalOf(fault);
    const result = this.#apply({ t: "top_up", funding });
    if (!result.ok) return refusalOf(result);
    const isTried = this.#state.lease.status === "active" && isLanding(this.#state, funding.salt);
    if (isTried) await this.#waiters.change("lease", FUNDING_WAIT_MS);
    return topUpAnswer(this.#state, funding.salt);
  }

  async submit(
    as: Caller,
    id: JobId,
    request: JobRequest,
    clientId: string | null,
    waitMs: number,
    retryOf: JobId | null = null,
  ): Promise<Outcome<{ job: JobView; replayed: boolean }> | PaymentNeeded> {
    const asked = [{ job: id, clientId, retryOf, request }];
    const taken = await takeIn(this.#shell, as, asked, { together: false, mayWait: waitMs > 0 });
    if (!taken.ok) return taken;
    const [job] = await this.#answered([id], waitMs);
    return job === undefined
      ? { ok: false, code: "job_unknown" }
      : { ok: true, job, replayed: taken.replayed };
  }

  async submitAll(
    as: Caller,
    jobs: readonly { readonly id: JobId; readonly request: JobRequest }[],
    waitMs: number,
  ): Promise<Outcome<{ jobs: JobView[]; replayed: boolean }> | PaymentNeeded> {
    const asked = jobs.map(({ id, request }) => ({ job: id, clientId: null, request }));
    const taken = await takeIn(this.#shell, as, asked, { together: true, mayWait: waitMs > 0 });
    if (!taken.ok) return taken;
    const ids = jobs.map(({ id }) => id);
    return { ok: true, jobs: await this.#answered(ids, waitMs), replayed: taken.replayed };
  }

  /** In their order, when all have ended or after so long. */
  async #answered(ids: readonly JobId[], waitMs: number): Promise<JobView[]> {
    const jobs = await Promise.all(ids.map((id) => this.#ended(id, waitMs)));
    // ACK-1: who is told to come back finds the job, whatever happens meanwhile.
    if (jobs.some((job) => job !== null && !isTerminal(job))) this.#write();
    const state = this.#state;
    const now = Date.now();
    return jobs.flatMap((job) => (job === null || state === null ? [] : jobView(state, job, now)));
  }

  async retry(
    as: Caller,
    id: JobId,
    next: JobId,
    allowance: SignedAllowance | null,
    waitMs: number,
  ): Promise<Outcome<{ job: JobView; replayed: boolean }> | PaymentNeeded> {
    const refusal = this.#mayNot(as);
    if (refusal !== null) return refusal;
    const job = this.#job(id);
    if (job === null) return { ok: false, code: "job_unknown" };
    if (!isTerminal(job)) return { ok: false, code: "job_not_ended" };
    const { allowance: _spent, ...request } = job.request;
    const again = allowance === null ? request : { ...request, allowance };
    return this.submit(as, next, again, null, waitMs, id);
  }

  async job(as: Caller, id: JobId, waitMs: number): Promise<Outcome<{ job: JobView }>> {
    const refusal = this.#mayNot(as);
    if (this.#state === null || refusal !== null) return refusal ?? { ok: false, code: "lease_unknown" };
    this.#write();
    const job = await this.#ended(id, waitMs);
    if (job === null) return { ok: false, code: "job_unknown" };
    return { ok: true, job: jobView(this.#state, job, Date.now()) };
  }

  /** Resolves when it has ended, or after so long; of one that has ended already, when a voucher covers its receipt. */
  async #ended(id: JobId, waitMs: number): Promise<Job | null> {
    let job = this.#job(id);
    const isReceiptWanted = job !== null && isTerminal(job);
    const until = Date.now() + Math.min(waitMs, LONGEST_WAIT_MS);
    while (job !== null && !(isReceiptWanted ? isFinal(job) : isTerminal(job)) && Date.now() < until) {
      // A block that is under way may not have it: then it is in the next.
      if (isReceiptWanted && this.#state?.lease.block === null) this.#apply({ t: "settle" });
      await this.#waiters.change(isReceiptWanted ? "block" : id, until - Date.now());
      job = this.#job(id) ?? job;
    }
    return job;
  }

  async events(
    as: Caller,
    id: JobId,
    after: number,
    limit: number,
  ): Promise<Outcome<{ events: JobEvent[] }>> {
    const refusal = this.#mayNot(as);
    if (refusal !== null) return refusal;
    if (this.#job(id) === null) return { ok: false, code: "job_unknown" };
    this.#write();
    return { ok: true, events: this.#store.events(id, after, limit) };
  }

  async cancel(as: Caller, id: JobId): Promise<Outcome<{ job: JobView }>> {
    const refusal = this.#mayNot(as);
    if (refusal !== null) return refusal;
    const job = this.#job(id);
    if (job === null) return { ok: false, code: "job_unknown" };
    // Asking twice is asking once; only a job that ended otherwise cannot be canceled any more.
    if (job.status !== "canceled") {
      const result = isTerminal(job)
        ? { ok: false as const, code: "job_ended" as const }
        : this.#apply({ t: "cancel", job: id });
      if (!result.ok) return refusalOf(result);
    }
    return this.job(as, id, 0);
  }

  async close(as: Caller): Promise<Outcome<{ lease: LeaseView }>> {
    const refusal = this.#mayNot(as);
    if (this.#state === null || refusal !== null) return refusal ?? { ok: false, code: "lease_unknown" };
    const result = this.#apply({ t: "close" });
    return result.ok ? { ok: true, lease: leaseView(this.#state) } : refusalOf(result);
  }

  async view(as: Caller): Promise<Outcome<{ lease: LeaseView }>> {
    const refusal = this.#mayNot(as);
    if (this.#state === null || refusal !== null) return refusal ?? { ok: false, code: "lease_unknown" };
    return { ok: true, lease: leaseView(this.#state) };
  }

  async admitSession(session: SessionId, until: number, ceiling: bigint): Promise<Outcome> {
    if (this.#state === null) return { ok: false, code: "lease_unknown" };
    return this.#sessions.admit(session, until, ceiling, Date.now());
  }

  async trimSession(session: SessionId): Promise<bigint | null> {
    return this.#state === null ? null : this.#sessions.trim(session);
  }

  async revokeSession(session: SessionId, until: number): Promise<void> {
    // One that is not there (any more) is not to be filled for this.
    if (this.#state !== null) this.#sessions.revoke(session, until);
  }

  /** Socket upgrades: `/agent` (the data socket) and `/watch?job=&after=&as=` (a reader of events; without `job`, the lease's). */
  override async fetch(request: Request): Promise<Response> {
    const url = new URL(request.url);
    if (request.headers.get("upgrade") !== "websocket") return new Response(null, { status: 426 });
    if (url.pathname === "/agent") {
      // The agent forgets what is gone. A lost lease still takes its late signatures.
      if (this.#state === null || isSettled(this.#state.lease)) return new Response(null, { status: 410 });
      const upgrade = upgradeOf(request);
      if (upgrade?.signer !== this.#state.lease.terms.providerSigner)
        return new Response(null, { status: 403 });
      if (!takeNonce(this.ctx.storage.sql, upgrade, Date.now()))
        return new Response("signature_replayed", { status: 401 });
      return this.#agent.accept();
    }
    if (this.#state === null) return new Response(null, { status: 404 });
    const as = Address.safeParse(url.searchParams.get("as"));
    const after = z.coerce.number().int().min(0).catch(0).parse(url.searchParams.get("after"));
    if (!as.success || mayNot(this.#state, as.data) !== null) return new Response(null, { status: 403 });
    this.#write();
    const { lease } = this.#state;
    if (!url.searchParams.has("job"))
      return this.#watchers.acceptLease(this.#store.leaseEvents(lease.id, after), isSettled(lease));
    const job = JobId.safeParse(url.searchParams.get("job"));
    if (!job.success) return new Response(null, { status: 404 });
    const found = this.#job(job.data);
    if (found === null) return new Response(null, { status: 404 });
    return this.#watchers.accept(job.data, this.#store.events(job.data, after, 10_000), isTerminal(found));
  }

  override webSocketMessage(socket: WebSocket, raw: string | ArrayBuffer): void {
    if (!this.#agent.is(socket)) return socket.close(CLOSE.badFrame, "nothing is expected on this socket");
    const text = typeof raw === "string" && raw.length <= FRAME_LIMIT ? raw : "";
    const frame = FromLease.safeParse(parseJson(text));
    if (!frame.success) return socket.close(CLOSE.badFrame, "a frame does not fit the protocol");
    this.#inbox = this.#inbox
      .then(() => this.#receive(socket, frame.data))
      .catch((error: unknown) => {
        console.error(
          JSON.stringify({
            event: "frame_failed",
            lease: this.#state?.lease.id,
            frame: frame.data.t,
            error: String(error),
          }),
        );
      });
  }

  override webSocketClose(socket: WebSocket, code: number, reason: string): void {
    const isGone = this.#agent.closed(socket, code, reason);
    if (isGone && this.#state !== null) this.#apply({ t: "gone" });
  }

  override webSocketError(socket: WebSocket): void {
    this.webSocketClose(socket, 1006, "");
  }

  override async alarm(): Promise<void> {
    this.#alarmAt = Number.POSITIVE_INFINITY;
    try {
      if (this.#state !== null) this.#apply({ t: "tick" });
    } catch (error) {
      // The platform drops an alarm after six failures; a lease whose time-outs stopped would hold money for ever.
      console.error(
        JSON.stringify({ event: "alarm_failed", lease: this.#state?.lease.id, error: String(error) }),
      );
      await this.ctx.storage.setAlarm(Date.now() + ALARM_RETRY_MS);
    }
  }

  async #receive(socket: WebSocket, frame: FromLease): Promise<void> {
    if (this.#state === null || !this.#agent.is(socket)) return;
    // While a signature is being checked a time-out may end a job, and the frame then claims one more.
    const checked = new Set<string>();
    for (let claimed: State | null = null; claimed !== this.#state; ) {
      claimed = this.#state;
      for (const { digest, signature } of claimsOf(claimed, frame)) {
        if (checked.has(digest)) continue;
        if ((await recoverSigner(digest, signature)) !== claimed.lease.terms.providerSigner)
          return socket.close(CLOSE.forbidden, "a signature is not the provider's");
        checked.add(digest);
      }
      if (this.#state === null || !this.#agent.is(socket)) return;
    }
    if (frame.t === "accepted") await this.#restore(frame);
    else this.#apply({ t: "frame", frame }, HOT.has(frame.t));
  }

  /** ACK-5: of a job that the last life answered and did not come to write down. */
  async #restore(frame: Extract<FromLease, { t: "accepted" }>): Promise<void> {
    const { job, attempt, inputs } = frame;
    const secret = this.#state?.lease.secret ?? null;
    const ticket = secret === null ? null : redeem(secret, frame.ticket);
    if (ticket === null || ticket.job !== job || !sameAttempt(ticket.attempt, attempt)) return;
    const { max_price, timeouts, retries, priority } = ticket;
    const request: JobRequest = {
      kind: "function",
      function: frame.function,
      inputs,
      max_price,
      timeouts,
      retries,
      priority,
    };
    if ((await inputHash(request)) !== ticket.inputHash) return;
    if (this.#job(job) !== null) return;
    this.#apply({ t: "restore", ticket, request });
    if (ticket.session !== null && this.#job(job) !== null)
      this.#sessions.take(ticket.session, job, ticket.max_price);
  }

  /**
   * One event through the machine. With `mayWait` the rows may follow within {@link BEHIND_MS}, unless what follows
   * from it must not be taken back: a lease's new life, or a signature that is asked for.
   */
  #apply(event: Event, mayWait = false): Step {
    if (this.#state === null) throw new Error("a lease that is not there was told something");
    const now = Date.now();
    const before = this.#state;
    const woken = this.#asleep ? step(before, this.#wake(), now) : null;
    const result = step(woken?.ok ? woken.next : before, event, now);
    if (!result.ok) return result;
    const { lease } = result.next;
    const journal = [...(woken?.ok ? woken.journal : []), ...result.journal];
    this.#behind.note(before, result.next, journal, result.passing, now);
    this.#state = prune(result.next);
    const isHot = mayWait && woken === null && isRepeatable(before.lease, lease);
    if (isHot && result.frames.every(({ t }) => t === "run" || t === "runs" || t === "cancel"))
      this.#writeSoon();
    else this.#write();
    // Only now: had the store thrown, this life's epoch would be used without having been raised.
    this.#asleep = false;
    this.#arm();
    const told = [...(woken?.ok ? woken.events : []), ...result.events];
    if (told.length > 0)
      this.#watchers.tellLease(this.#store.appendLease(lease.id, told, now), isSettled(lease));
    // Waking is a step of its own, in which something may have fallen due: a block, a time-out.
    for (const frame of [...(woken?.ok ? woken.frames : []), ...result.frames])
      this.#agent.send(this.#ticketed(frame), this.#seen);
    for (const [id, job] of result.next.jobs) if (before.jobs.get(id) !== job) this.#waiters.changed(id);
    if (before.lease.block !== null && lease.block === null) this.#waiters.changed("block");
    const { status, topUps } = lease;
    if (before.lease.status !== status || before.lease.topUps !== topUps) this.#waiters.changed("lease");
    if (isSettled(lease)) this.#agent.end();
    return result;
  }

  #wake(): Event {
    const secret = bytesToHex(crypto.getRandomValues(new Uint8Array(32)));
    return { t: "wake", connected: this.#agent.connected, secret };
  }

  /** A job that is sent before it is written down takes with it what makes it known again. */
  #ticketed(frame: ToLease): ToLease {
    if (frame.t === "runs") return { ...frame, runs: frame.runs.map((run) => this.#withTicket(run)) };
    return frame.t === "run" ? this.#withTicket(frame) : frame;
  }

  #withTicket<Of extends Run>(run: Of): Of {
    if (!this.#behind.isUnborn(run.job)) return run;
    const job = this.#job(run.job);
    const secret = this.#state?.lease.secret ?? null;
    const ticket = job === null || secret === null ? null : issue(secret, job);
    return ticket === null ? run : { ...run, ticket };
  }

  #writeSoon(): void {
    if (this.#behind.isEmpty) return;
    this.#timer ??= setTimeout(() => {
      try {
        this.#write();
      } catch (error) {
        // Nothing of it was written, and nothing of it was promised but what the agent keeps: begin again from the rows.
        this.ctx.abort(`the rows cannot be written: ${error}`);
      }
    }, BEHIND_MS);
  }

  /** All that has changed, in one transaction; who watches hears of it, and the agent that it may forget. */
  #write(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#behind.isEmpty || this.#state === null) return;
    try {
      const events = this.#behind.write(this.ctx.storage, this.#store);
      this.#watchers.tell(events, (id) => this.#job(id));
      this.#seen = this.#state.lease.seen;
      this.#agent.acknowledge(this.#seen);
    } catch (error) {
      // Memory is ahead of the rows, of which none was written: another life begins from them.
      this.#behind = new WriteBehind();
      this.#asleep = true;
      this.#state = this.#store.load();
      throw error;
    }
  }

  /** Duties are begun, and the alarm set for whatever comes first: a time-out, or another try of a duty. */
  #arm(): void {
    const state = this.#state;
    if (state === null) return;
    const now = Date.now();
    const due = duties(state, now);
    const isPast = isForgotten(state, now);
    // What is still owed outlives the retention, however long the relayer is away.
    if (isPast && due.length === 0) return this.#forget();
    this.#errands.start(state.lease, due, now, (event) => {
      if (this.#state === null) return;
      if (event === null) this.#arm();
      else this.#apply(event);
    });
    const at = Math.max(
      now,
      Math.min(isPast ? Number.POSITIVE_INFINITY : wakeAt(state, now), this.#errands.nextTry(due, now)),
    );
    if (at < this.#alarmAt) {
      this.#alarmAt = at;
      void this.ctx.storage.setAlarm(at);
    }
  }

  #forget(): void {
    this.#state = null;
    this.#behind = new WriteBehind();
    this.#alarmAt = Number.POSITIVE_INFINITY;
    // Nobody may get in between: a new quote would be written and then deleted.
    void this.ctx.blockConcurrencyWhile(async () => {
      await this.ctx.storage.deleteAll();
      this.#store = new LeaseStore(this.ctx.storage.sql);
      this.#sessions = this.#openSessions();
    });
  }

  /** A lease is its parties', by their wallets or by sessions that their Account has vouched for. */
  #mayNot(as: Caller): Refused | null {
    return mayNot(this.#state, typeof as === "string" ? as : as.address) ?? this.#sessions.refusal(as);
  }

  #openSessions(): LeaseSessions {
    return new LeaseSessions(this.ctx.storage.sql, {
      find: (id) => this.#job(id),
      ofSession: (session) => {
        this.#write();
        return this.#store.jobsOfSession(session);
      },
    });
  }

  #job(id: JobId): Job | null {
    return this.#state?.jobs.get(id) ?? this.#behind.job(id) ?? this.#store.job(id);
  }
}

/** Whether nothing was promised to anybody in this step but what agent and caller would bring again. */
function isRepeatable(before: State["lease"], after: State["lease"]): boolean {
  return (
    before.status === after.status &&
    before.allowance === after.allowance &&
    before.capacity.turn === after.capacity.turn &&
    before.drainAt === after.drainAt &&
    before.block === after.block &&
    before.closing === after.closing
  );
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
