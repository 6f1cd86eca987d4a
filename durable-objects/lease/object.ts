import { DurableObject } from "cloudflare:workers";
import { CLOSE } from "@gpux/protocol/frames";
import { type AutoTopUp, fundingKey, type LeaseFunding } from "@gpux/protocol/funding";
import type { JobId } from "@gpux/protocol/ids";
import type { JobEvent, JobRequest, JobView, SignedAllowance } from "@gpux/protocol/job";
import type { LeaseView, TickView } from "@gpux/protocol/lease";
import type { FundingPlan } from "@gpux/protocol/order";
import { placeOf } from "@gpux/protocol/place";
import type { SessionId } from "@gpux/protocol/session";
import type { ObjectEnv } from "../bindings.ts";
import type { Caller, Carried, HoldRequest, LeaseRpc, Outcome, PaymentNeeded } from "../interfaces.ts";
import type { Moved } from "../moved.ts";
import { allocationFault } from "./allocation.ts";
import { fundingAnswer, isLanding, refusalOf, topUpAnswer } from "./answers.ts";
import { ClientInbox } from "./client-inbox.ts";
import { fundingFault, topUpFault } from "./funding.ts";
import { Inbox } from "./inbox.ts";
import { isFinal, isLeaving, isTerminal, type Job } from "./job-state.ts";
import { Life } from "./life.ts";
import { Outputs } from "./outputs.ts";
import { quotedLease } from "./quoted.ts";
import { takeIn } from "./submission.ts";
import { accept } from "./upgrades.ts";
import { jobView, leaseView, tickView } from "./view.ts";

const LONGEST_WAIT_MS = 60_000;
/** Of those that nobody comes back for, so many are remembered. */
const MOST_AWAITED = 10_000;
const FUNDING_WAIT_MS = 3_000;
/** A job that is offered to another lease is soon there, or back. */
const MOVING_WAIT_MS = 5_000;
/** How long a quote stands for its order once its node is reserved: until all others are, and the order is decided. */
const RESERVED_MS = 60_000;
const ALARM_RETRY_MS = 10_000;
/** The longest that a landed funding may take to become as hard as its amount asks; `safe` takes minutes. */
const CONFIRM_MS = 30 * 60_000;

/**
 * One lease; its name is the lease's id. What callers may ask of it, and the platform's events, each
 * turned into an event of the machine (life.ts).
 */
export class LeaseObject extends DurableObject<ObjectEnv> implements LeaseRpc {
  readonly #life = new Life(this.ctx, this.env);
  readonly #inbox = new Inbox(this.#life);
  readonly #clientInbox = new ClientInbox(this.#life, this.env, (as, job) => this.cancel(as, job));
  readonly #outputs = new Outputs(this.#life, this.env.OBJECTS);
  /** Jobs whose caller was told that they have not ended, and not yet that they have. */
  readonly #awaited = new Set<JobId>();

  async quote(request: HoldRequest & { amount: bigint }): Promise<Outcome> {
    if (this.#life.state !== null) return { ok: true };
    const now = Date.now();
    this.#life.begin(quotedLease(request, placeOf(this.env), now), now);
    return { ok: true };
  }

  async reserve(validBefore: number): Promise<Outcome> {
    if (this.#life.state === null) return { ok: false, code: "quote_unknown" };
    const { id, terms } = this.#life.state.lease;
    const until = validBefore * 1_000 + CONFIRM_MS;
    const reserved = await this.env.NODE.getByName(terms.providerSigner).reserve(id, until);
    if (!reserved.ok) return reserved;
    if (this.#life.state === null) return { ok: false, code: "quote_expired" };
    const result = this.#life.apply({ t: "reserve", until: Date.now() + RESERVED_MS });
    return result.ok ? { ok: true } : refusalOf(result);
  }

  async fund(funding: LeaseFunding, plan: FundingPlan | null = null): Promise<Outcome<{ lease: LeaseView }>> {
    if (this.#life.state === null) return { ok: false, code: "quote_unknown" };
    const { lease } = this.#life.state;
    if (lease.status === "quoted" && plan === null) {
      const fault = fundingFault(funding, Date.now());
      if (fault !== null) return refusalOf(fault);
      const unsigned = await allocationFault(lease, funding);
      if (unsigned !== null) return unsigned;
      // A reservation outlives every block in which the funding could still land, and what it is waited for on top.
      const node = this.env.NODE.getByName(lease.terms.providerSigner);
      const reserved = await node.reserve(lease.id, funding.valid_before * 1_000 + CONFIRM_MS);
      if (!reserved.ok) return reserved;
    }
    return this.#fundNow(funding, plan);
  }

  /** After whatever had to be asked first: meanwhile the quote may have lapsed and been forgotten. */
  async #fundNow(funding: LeaseFunding, plan: FundingPlan | null): Promise<Outcome<{ lease: LeaseView }>> {
    if (this.#life.state === null) return { ok: false, code: "quote_expired" };
    const result = this.#life.apply({ t: "fund", funding, plan });
    if (!result.ok) return refusalOf(result);
    // A slow chain is no refusal.
    if (this.#life.state.lease.status === "funding")
      await this.#life.waiters.change("lease", FUNDING_WAIT_MS);
    return fundingAnswer(this.#life.state);
  }

  async topUp(as: Caller, funding: LeaseFunding): Promise<Outcome<{ lease: LeaseView }>> {
    const refusal = this.#life.mayNot(as);
    if (this.#life.state === null || refusal !== null) return refusal ?? { ok: false, code: "lease_unknown" };
    const fault = topUpFault(funding, Date.now());
    if (fault !== null) return refusalOf(fault);
    const unsigned = await allocationFault(this.#life.state.lease, funding);
    if (unsigned !== null) return unsigned;
    const result = this.#life.apply({ t: "top_up", funding });
    if (!result.ok) return refusalOf(result);
    const key = fundingKey(funding);
    const isTried = this.#life.state.lease.status === "active" && isLanding(this.#life.state, key);
    if (isTried) await this.#life.waiters.change("lease", FUNDING_WAIT_MS);
    return topUpAnswer(this.#life.state, key);
  }

  async autoTopUp(as: Caller, auto: AutoTopUp | null): Promise<Outcome<{ lease: LeaseView }>> {
    const refusal = this.#life.mayNot(as);
    if (this.#life.state === null || refusal !== null) return refusal ?? { ok: false, code: "lease_unknown" };
    for (const allocation of auto?.allocations ?? []) {
      const fault = topUpFault(allocation, Date.now());
      if (fault !== null) return refusalOf(fault);
      const unsigned = await allocationFault(this.#life.state.lease, allocation);
      if (unsigned !== null) return unsigned;
    }
    const result = this.#life.apply({ t: "auto_top_up", auto });
    return result.ok ? { ok: true, lease: leaseView(this.#life.state) } : refusalOf(result);
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
    const taken = await takeIn(this.#life, as, asked, false);
    if (!taken.ok) return taken;
    const [job] = await this.#answered([id], waitMs);
    if (job === undefined) return { ok: false, code: "job_unknown" };
    return this.#moved(id) ?? { ok: true, job, replayed: taken.replayed };
  }

  async submitAll(
    as: Caller,
    jobs: readonly { readonly id: JobId; readonly request: JobRequest }[],
    waitMs: number,
  ): Promise<Outcome<{ jobs: JobView[]; replayed: boolean }> | PaymentNeeded> {
    const asked = jobs.map(({ id, request }) => ({ job: id, clientId: null, request }));
    const taken = await takeIn(this.#life, as, asked, true);
    if (!taken.ok) return taken;
    const ids = jobs.map(({ id }) => id);
    return { ok: true, jobs: await this.#answered(ids, waitMs), replayed: taken.replayed };
  }

  /** In their order, when all have ended or after so long. */
  async #answered(ids: readonly JobId[], waitMs: number): Promise<JobView[]> {
    const jobs = await Promise.all(ids.map((id) => this.#ended(id, waitMs)));
    // ACK-1: who is told to come back finds the job, whatever happens meanwhile. ACK-5: an end is told before its row is
    // written only when its agent has the job's ticket; of one whose row was there already, nothing else would know.
    if (jobs.some((job) => job !== null && !(isTerminal(job) && this.#life.isUnborn(job.id))))
      await this.#life.recorded();
    for (const job of jobs)
      if (job !== null && isTerminal(job)) this.#awaited.delete(job.id);
      else if (job !== null && this.#awaited.size < MOST_AWAITED) this.#awaited.add(job.id);
    const state = this.#life.state;
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
    const refusal = this.#life.mayNot(as);
    if (refusal !== null) return refusal;
    const job = this.#life.job(id);
    if (job === null) return { ok: false, code: "job_unknown" };
    const moved = this.#moved(id);
    if (moved !== null) return moved;
    if (!isTerminal(job)) return { ok: false, code: "job_not_ended" };
    const { allowance: _spent, ...request } = job.request;
    const again = allowance === null ? request : { ...request, allowance };
    return this.submit(as, next, again, null, waitMs, id);
  }

  async job(as: Caller, id: JobId, waitMs: number): Promise<Outcome<{ job: JobView }>> {
    const refusal = this.#life.mayNot(as);
    if (this.#life.state === null || refusal !== null) return refusal ?? { ok: false, code: "lease_unknown" };
    const [job] = await this.#answered([id], waitMs);
    if (job === undefined) return { ok: false, code: "job_unknown" };
    return this.#moved(id) ?? { ok: true, job };
  }

  async adopt(
    jobs: readonly Carried[],
    lastEvent: number,
  ): Promise<{ readonly taken: JobId[]; readonly declined: JobId[] }> {
    const taken = jobs.filter((each) => this.#life.adopt(each, lastEvent)).map(({ job }) => job);
    return { taken, declined: jobs.map(({ job }) => job).filter((job) => !taken.includes(job)) };
  }

  /** Null: the job is here, or nowhere. */
  #moved(id: JobId): Moved | null {
    const move = this.#life.job(id)?.move;
    return move?.gone ? { ok: false, code: "job_moved", lease: move.to } : null;
  }

  /**
   * Resolves when it has ended, or after so long; of one whose end was told already, when a voucher covers its receipt:
   * to settle for every job that ends before its caller is back would cost more than the jobs.
   */
  async #ended(id: JobId, waitMs: number): Promise<Job | null> {
    let job = this.#life.job(id);
    const isReceiptWanted = job !== null && isTerminal(job) && !this.#awaited.has(id);
    const until = Date.now() + Math.min(waitMs, LONGEST_WAIT_MS);
    while (job !== null && !(isReceiptWanted ? isFinal(job) : isTerminal(job)) && Date.now() < until) {
      // A block that is under way may not have it: then it is in the next.
      if (isReceiptWanted && this.#life.state?.lease.block === null) this.#life.apply({ t: "settle" });
      await this.#life.waiters.change(isReceiptWanted ? "block" : id, until - Date.now());
      job = this.#life.job(id) ?? job;
    }
    return job;
  }

  async events(
    as: Caller,
    id: JobId,
    after: number,
    limit: number,
  ): Promise<Outcome<{ events: JobEvent[] }>> {
    const refusal = this.#life.mayNot(as);
    if (refusal !== null) return refusal;
    if (this.#life.job(id) === null) return { ok: false, code: "job_unknown" };
    return { ok: true, events: this.#life.events(id, after, limit) };
  }

  async cancel(as: Caller, id: JobId): Promise<Outcome<{ job: JobView }>> {
    const refusal = this.#life.mayNot(as);
    if (refusal !== null) return refusal;
    const job = this.#life.job(id);
    if (job === null) return { ok: false, code: "job_unknown" };
    if (isLeaving(job)) await this.#life.waiters.change(id, MOVING_WAIT_MS);
    const moved = this.#moved(id);
    if (moved !== null) return moved;
    // Asking twice is asking once; only a job that ended otherwise cannot be canceled any more.
    if (job.status !== "canceled") {
      const result = isTerminal(job)
        ? { ok: false as const, code: "job_ended" as const }
        : this.#life.apply({ t: "cancel", job: id });
      if (!result.ok) return refusalOf(result);
    }
    return this.job(as, id, 0);
  }

  async close(as: Caller): Promise<Outcome<{ lease: LeaseView }>> {
    const refusal = this.#life.mayNot(as);
    if (this.#life.state === null || refusal !== null) return refusal ?? { ok: false, code: "lease_unknown" };
    const result = this.#life.apply({ t: "close" });
    return result.ok ? { ok: true, lease: leaseView(this.#life.state) } : refusalOf(result);
  }

  async extend(
    as: Caller,
    extendedS: number,
    funding: LeaseFunding | null,
  ): Promise<Outcome<{ lease: LeaseView }>> {
    const refusal = this.#life.mayNot(as);
    if (this.#life.state === null || refusal !== null) return refusal ?? { ok: false, code: "lease_unknown" };
    const result = this.#life.apply({ t: "extend", extendedS });
    if (!result.ok) return refusalOf(result);
    return funding === null ? { ok: true, lease: leaseView(this.#life.state) } : this.topUp(as, funding);
  }

  async letGo(): Promise<void> {
    if (this.#life.state !== null) this.#life.apply({ t: "let_go" });
  }

  async view(as: Caller): Promise<Outcome<{ lease: LeaseView }>> {
    const refusal = this.#life.mayNot(as);
    if (this.#life.state === null || refusal !== null) return refusal ?? { ok: false, code: "lease_unknown" };
    return { ok: true, lease: leaseView(this.#life.state) };
  }

  async ticks(
    as: Caller,
    after: number,
    limit: number,
  ): Promise<Outcome<{ ticks: TickView[]; hasMore: boolean }>> {
    const refusal = this.#life.mayNot(as);
    if (refusal !== null) return refusal;
    const ticks = this.#life.ticks(after, limit + 1).map(tickView);
    return { ok: true, ticks: ticks.slice(0, limit), hasMore: ticks.length > limit };
  }

  async admitSession(session: SessionId, until: number, ceiling: bigint, turn: number): Promise<Outcome> {
    if (this.#life.state === null) return { ok: false, code: "lease_unknown" };
    return this.#life.sessions.admit(session, until, ceiling, turn, Date.now());
  }

  async trimSession(session: SessionId, until: number, turn: number): Promise<bigint | null> {
    if (this.#life.state === null) return null;
    // What is given back is used elsewhere: no crash may take the ends by which it came free (ACK-5).
    this.#life.write();
    return this.#life.sessions.trim(session, until, turn);
  }

  async revokeSession(session: SessionId, until: number): Promise<void> {
    // One that is not there (any more) is not to be filled for this.
    if (this.#life.state === null) return;
    this.#life.sessions.revoke(session, until);
    this.#life.clients.revoke(session);
  }

  /** Large outputs on their way (`/output`), and socket upgrades (upgrades.ts). */
  override async fetch(request: Request): Promise<Response> {
    if (new URL(request.url).pathname === "/output") return this.#outputs.answer(request);
    return accept(this.#life, this.ctx.storage.sql, request);
  }

  override webSocketMessage(socket: WebSocket, raw: string | ArrayBuffer): void | Promise<void> {
    const client = this.#life.clients.of(socket);
    if (client !== null) return this.#clientInbox.take(client, raw);
    if (!this.#life.agent.is(socket))
      return socket.close(CLOSE.badFrame, "nothing is expected on this socket");
    this.#inbox.take(socket, raw);
  }

  override webSocketClose(socket: WebSocket, code: number, reason: string): void {
    this.#life.clients.closed(socket);
    const isGone = this.#life.agent.closed(socket, code, reason);
    if (isGone && this.#life.state !== null) this.#life.apply({ t: "gone" });
  }

  override webSocketError(socket: WebSocket): void {
    this.webSocketClose(socket, 1006, "");
  }

  override async alarm(): Promise<void> {
    try {
      this.#life.ring();
    } catch (error) {
      // The platform drops an alarm after six failures; a lease whose time-outs stopped would hold money for ever.
      console.error(
        JSON.stringify({ event: "alarm_failed", lease: this.#life.state?.lease.id, error: String(error) }),
      );
      await this.ctx.storage.setAlarm(Date.now() + ALARM_RETRY_MS);
    }
  }
}
