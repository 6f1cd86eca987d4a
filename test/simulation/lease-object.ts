import type {
  Caller,
  Carried,
  HoldRequest,
  Outcome,
  PaymentNeeded,
  Refused,
} from "@gpux/durable-objects/interfaces";
import { isLanding, mayNot, refusalOf, topUpAnswer } from "@gpux/durable-objects/lease/answers";
import { HOT } from "@gpux/durable-objects/lease/deferral";
import { fundingFault, topUpFault } from "@gpux/durable-objects/lease/funding";
import { isLeaving, isTerminal, type Job } from "@gpux/durable-objects/lease/job-state";
import { quotedLease } from "@gpux/durable-objects/lease/quoted";
import { claimsOf } from "@gpux/durable-objects/lease/signatures";
import { isSettled, type State } from "@gpux/durable-objects/lease/state";
import { judge, type Shell, take } from "@gpux/durable-objects/lease/submission";
import { broughtBack } from "@gpux/durable-objects/lease/tickets";
import type { Moved } from "@gpux/durable-objects/moved";
import { CLOSE, type FromLease, type ToLease } from "@gpux/protocol/frames";
import { type AutoTopUp, fundingKey, isFromCredit, type LeaseFunding } from "@gpux/protocol/funding";
import type { Address, JobId, LeaseId } from "@gpux/protocol/ids";
import type { JobRequest, SignedAllowance } from "@gpux/protocol/job";
import type { LeaseStatus } from "@gpux/protocol/lease";
import type { FundingPlan } from "@gpux/protocol/order";
import type { SessionId } from "@gpux/protocol/session";
import { Actor, type Flow } from "./actor.ts";
import type { Disk } from "./disk.ts";
import { LeaseLife } from "./lease-life.ts";
import { Connection, type End } from "./network.ts";
import type { JobSeen, Line } from "./seen.ts";
import {
  type Asked,
  type LeaseConnection,
  type LeaseDoor,
  PLACE,
  type Setting,
  type Upgrade,
} from "./setting.ts";
import { batchHashOf, inputHashOf } from "./truth.ts";

/** As in durable-objects/lease/object.ts. */
const CONFIRM_MS = 30 * 60_000;
const RESERVED_MS = 60_000;
const MOVING_WAIT_MS = 5_000;

/** The shell of durable-objects/lease/object.ts and inbox.ts over the same machine, in virtual time. */
export class LeaseObject extends Actor implements LeaseDoor {
  readonly id: LeaseId;
  readonly #setting: Setting;
  readonly #life: LeaseLife;
  #isTrapped = false;

  constructor(id: LeaseId, setting: Setting) {
    super(id.slice(0, 9));
    this.id = id;
    this.#setting = setting;
    this.#life = new LeaseLife(id, this, setting);
  }

  get disk(): Disk {
    return this.#life.disk;
  }

  /** A crash now would take something. */
  get isBehind(): boolean {
    return this.#life.isBusy;
  }

  /** From now on it may die whenever it has answered something that is not on its disk. */
  trap(): void {
    this.#isTrapped = true;
  }

  #spring(): void {
    if (!this.#isTrapped || !this.#life.isBusy || this.#setting.random.chance(0.3)) return;
    const { life } = this;
    const after = this.#setting.random.int(1, 60);
    this.#setting.network.later(after, `${this.name} dies`, () => this.life === life && this.crash());
  }

  /** `keepsSocket`: it was only put to sleep, unless what it could not say any more was lost with it. */
  override crash(keepsSocket = false): void {
    if (keepsSocket && this.#life.isBusy && !this.doomed) return;
    const isCut = !keepsSocket || this.doomed;
    super.crash();
    this.#life.end(isCut);
  }

  *quote(request: HoldRequest): Flow<Outcome> {
    yield* [];
    if (this.state() !== null) return { ok: true };
    const state = quotedLease(request, PLACE, this.#setting.schedule.now);
    this.#setting.watch.leaseQuoted(state);
    this.#setting.relayer.leaseNames.set(request.terms, this.id);
    this.#life.begin(state);
    return { ok: true };
  }

  *reserve(validBefore: number): Flow<Outcome> {
    const state = this.state();
    if (state === null) return { ok: false, code: "quote_unknown" };
    const reserved = yield* this.#reserved(state, validBefore);
    if (!reserved.ok) return reserved;
    if (this.state() === null) return { ok: false, code: "quote_expired" };
    const result = this.#life.apply({ t: "reserve", until: this.#setting.schedule.now + RESERVED_MS });
    return result.ok ? { ok: true } : refusalOf(result);
  }

  *fund(
    funding: LeaseFunding,
    plan: FundingPlan | null = null,
  ): Flow<Outcome<{ status: LeaseStatus; expiry: number }>> {
    const state = this.state();
    if (state === null) return { ok: false, code: "quote_unknown" };
    if (state.lease.status === "quoted" && plan === null) {
      const fault = fundingFault(funding, this.#setting.schedule.now);
      if (fault !== null) return refusalOf(fault);
      if (!this.#isSigned(state, funding)) return { ok: false, code: "funding_invalid" };
      const reserved = yield* this.#reserved(state, funding.valid_before);
      if (!reserved.ok) return reserved;
      if (this.state() === null) return { ok: false, code: "quote_expired" };
    }
    const result = this.#life.apply({ t: "fund", funding, plan });
    if (!result.ok) return refusalOf(result);
    const { status, terms } = result.next.lease;
    return { ok: true, status, expiry: terms.expiry };
  }

  *#reserved({ lease }: State, validBefore: number): Flow<Outcome> {
    const node = this.#setting.node(lease.terms.providerSigner);
    const until = validBefore * 1_000 + CONFIRM_MS;
    const ask = () => node.reserve(lease.id, until);
    return yield* this.#setting.network.call(this, node, "reserve", ask, true);
  }

  *topUp(as: Address, funding: LeaseFunding): Flow<Outcome> {
    const before = this.state();
    const refusal = mayNot(before, as);
    if (before === null || refusal !== null) return refusal ?? { ok: false, code: "lease_unknown" };
    const fault = topUpFault(funding, this.#setting.schedule.now);
    if (fault !== null) return refusalOf(fault);
    if (!this.#isSigned(before, funding)) return { ok: false, code: "funding_invalid" };
    const result = this.#life.apply({ t: "top_up", funding });
    if (!result.ok) return refusalOf(result);
    const key = fundingKey(funding);
    if (isLanding(result.next, key)) yield* this.#life.change(this.#setting.schedule.now + 3_000);
    const state = this.state();
    if (state === null) return { ok: false, code: "lease_unknown" };
    const answer = topUpAnswer(state, key);
    return answer.ok ? { ok: true } : answer;
  }

  *autoTopUp(as: Address, auto: AutoTopUp | null): Flow<Outcome> {
    yield* [];
    const state = this.state();
    const refusal = mayNot(state, as);
    if (state === null || refusal !== null) return refusal ?? { ok: false, code: "lease_unknown" };
    for (const allocation of auto?.allocations ?? []) {
      const fault = topUpFault(allocation, this.#setting.schedule.now);
      if (fault !== null) return refusalOf(fault);
      if (!this.#isSigned(state, allocation)) return { ok: false, code: "funding_invalid" };
    }
    const result = this.#life.apply({ t: "auto_top_up", auto });
    return result.ok ? { ok: true } : refusalOf(result);
  }

  /** As durable-objects/lease/allocation.ts: a wallet's the token judges. */
  #isSigned({ lease }: State, funding: LeaseFunding): boolean {
    if (!isFromCredit(funding)) return true;
    const { hasher, keyring } = this.#setting;
    const { funded_to, valid_before: validBefore, signature } = funding;
    const digest = hasher.allocate({ leaseIds: [lease.hash], fundedTo: [funded_to], validBefore });
    return keyring.isSigned(lease.terms.consumerSigner, digest, signature);
  }

  *submit(
    as: Caller,
    id: JobId,
    request: JobRequest,
    waitMs: number,
  ): Flow<Outcome<{ job: JobSeen; replayed: boolean }> | PaymentNeeded> {
    const taken = this.#takeIn(as, [{ id, request }], false);
    if (!taken.ok) return taken;
    const job = yield* this.#answered(id, waitMs);
    if (job === null) return { ok: false, code: "job_unknown" };
    return this.#moved(id) ?? { ok: true, job, replayed: taken.replayed };
  }

  *submitAll(
    as: Caller,
    asked: readonly Asked[],
    waitMs: number,
  ): Flow<Outcome<{ jobs: readonly JobSeen[]; replayed: boolean }> | PaymentNeeded> {
    const taken = this.#takeIn(as, asked, true);
    if (!taken.ok) return taken;
    const until = this.#setting.schedule.now + waitMs;
    const jobs: JobSeen[] = [];
    for (const { id } of asked) {
      const job = yield* this.#answered(id, until - this.#setting.schedule.now);
      if (job === null) return { ok: false, code: "job_unknown" };
      jobs.push(job);
    }
    return { ok: true, jobs, replayed: taken.replayed };
  }

  *adopt(
    jobs: readonly Carried[],
    lastEvent: number,
  ): Flow<{ readonly taken: JobId[]; readonly declined: JobId[] }> {
    yield* [];
    this.#life.wake();
    const taken = jobs.filter((each) => this.#life.adopt(each, lastEvent)).map(({ job }) => job);
    return { taken, declined: jobs.map(({ job }) => job).filter((job) => !taken.includes(job)) };
  }

  #moved(id: JobId): Moved | null {
    const move = this.#life.job(id)?.move;
    return move?.gone ? { ok: false, code: "job_moved", lease: move.to } : null;
  }

  /** As in durable-objects/lease/submission.ts, without its waits for hashes and curves. */
  #takeIn(
    as: Caller,
    asked: readonly Asked[],
    together: boolean,
  ): Outcome<{ replayed: boolean }> | PaymentNeeded {
    const session = typeof as === "string" ? null : as.session;
    const batch = together ? batchHashOf(asked.map(({ request }) => request)) : null;
    const arrivals = asked.map(({ id, request }) => ({
      ...{ job: id, clientId: null, request, inputHash: inputHashOf(request), batch, session },
    }));
    const shell = this.#shell();
    const judged = judge(shell, as, arrivals);
    if (!judged.ok) return judged;
    if (judged.fresh.length === 0) return { ok: true, replayed: true };
    if (judged.offered !== null && !this.#isAllowed(judged.offered.allowance))
      return { ok: false, code: "allowance_invalid" };
    const taken = take(shell, as, arrivals, judged, together);
    return taken.ok ? { ok: true, replayed: false } : taken;
  }

  #shell(): Shell {
    const life = this.#life;
    return {
      state: this.state(),
      sessions: life.sessions,
      mayNot: (as) => this.#mayNot(as),
      job: (id) => life.job(id),
      apply: (event, mayWait) => life.apply(event, mayWait),
    };
  }

  #isAllowed({ cumulative, signature }: SignedAllowance): boolean {
    const lease = this.state()?.lease;
    if (lease === undefined) return false;
    const { hasher, keyring } = this.#setting;
    const digest = hasher.allowance({ leaseId: lease.hash, cumulative });
    return keyring.isSigned(lease.terms.consumerSigner, digest, signature);
  }

  /** ACK-1: who is told to come back finds the job; who hears of its end may hear it before the disk does (ACK-5). */
  *#answered(id: JobId, waitMs: number): Flow<JobSeen | null> {
    const until = this.#setting.schedule.now + waitMs;
    let job = this.#life.job(id);
    while (job !== null && !isTerminal(job) && this.#setting.schedule.now < until) {
      yield* this.#life.change(until);
      job = this.#life.job(id) ?? job;
    }
    if (job !== null && !(isTerminal(job) && this.#life.isUnborn(id))) this.#life.write();
    this.#spring();
    return job === null ? null : this.#seen(job);
  }

  #mayNot(as: Caller): Refused | null {
    const refusal = mayNot(this.state(), typeof as === "string" ? as : as.address);
    return refusal ?? this.#life.sessions.refusal(as);
  }

  *job(as: Caller, id: JobId): Flow<Outcome<{ job: JobSeen }>> {
    yield* [];
    const refusal = this.#mayNot(as);
    if (refusal !== null) return refusal;
    this.#life.write();
    const job = this.#life.job(id);
    if (job === null) return { ok: false, code: "job_unknown" };
    return this.#moved(id) ?? { ok: true, job: this.#seen(job) };
  }

  *events(as: Address, id: JobId, after: number): Flow<Outcome<{ events: readonly Line[] }>> {
    yield* [];
    const refusal = mayNot(this.state(), as);
    if (refusal !== null) return refusal;
    this.#life.write();
    return { ok: true, events: this.disk.journal.filter((line) => line.job === id && line.id > after) };
  }

  *cancel(as: Address, id: JobId): Flow<Outcome<{ job: JobSeen }>> {
    const refusal = mayNot(this.state(), as);
    if (refusal !== null) return refusal;
    const job = this.#life.job(id);
    if (job === null) return { ok: false, code: "job_unknown" };
    if (isLeaving(job)) yield* this.#life.change(this.#setting.schedule.now + MOVING_WAIT_MS);
    const moved = this.#moved(id);
    if (moved !== null) return moved;
    if (job.status !== "canceled") {
      if (isTerminal(job)) return { ok: false, code: "job_ended" };
      const result = this.#life.apply({ t: "cancel", job: id });
      if (!result.ok) return refusalOf(result);
    }
    return yield* this.job(as, id);
  }

  *close(as: Address): Flow<Outcome> {
    yield* [];
    const refusal = mayNot(this.state(), as);
    if (refusal !== null) return refusal;
    const result = this.#life.apply({ t: "close" });
    return result.ok ? { ok: true } : refusalOf(result);
  }

  *admitSession(session: SessionId, until: number, ceiling: bigint, turn: number): Flow<Outcome> {
    yield* [];
    if (this.state() === null) return { ok: false, code: "lease_unknown" };
    const admitted = this.#life.sessions.admit(session, until, ceiling, turn, this.#setting.schedule.now);
    if (admitted.ok) this.#setting.watch.sessions.vouched(this.id, session);
    return admitted;
  }

  *trimSession(session: SessionId, until: number, turn: number): Flow<bigint | null> {
    yield* [];
    if (this.state() === null) return null;
    this.#life.write();
    return this.#life.sessions.trim(session, until, turn);
  }

  *revokeSession(session: SessionId, until: number): Flow<void> {
    yield* [];
    this.#setting.watch.sessions.revoked(this.id, session);
    if (this.state() !== null) this.#life.sessions.revoke(session, until);
  }

  *letGo(): Flow<void> {
    yield* [];
    if (this.#life.state !== null) this.#life.apply({ t: "let_go" });
  }

  accept(by: Address, agent: End<ToLease>): Upgrade<LeaseConnection> {
    const state = this.state();
    if (state === null || isSettled(state.lease)) return { ok: false, status: 410 };
    if (by !== state.lease.terms.providerSigner) return { ok: false, status: 403 };
    const end = (connection: LeaseConnection): End<FromLease> => ({
      hear: (frame) => this.#hear(connection, frame),
      closed: () => {
        this.#life.wake();
        if (this.#life.connection === connection) this.#life.connection = null;
        if (this.#life.connection === null && this.#life.state !== null) this.#life.apply({ t: "gone" });
      },
    });
    const connection: LeaseConnection = new Connection(this.#setting.network, agent, { actor: this, end });
    this.#life.accepted(connection);
    return { ok: true, connection };
  }

  #hear(connection: LeaseConnection, frame: FromLease): void {
    const state = this.state();
    if (state === null || this.#life.connection !== connection) return;
    for (const { digest, signature } of claimsOf(state, frame))
      if (!this.#setting.keyring.isSigned(state.lease.terms.providerSigner, digest, signature)) {
        connection.closeByObject(CLOSE.forbidden);
        return;
      }
    if (frame.t === "accepted") this.#restore(state, frame);
    else this.#life.apply({ t: "frame", frame }, HOT.has(frame.t));
  }

  /** ACK-5: of a job that the last life answered and did not come to write down. */
  #restore({ lease }: State, frame: Extract<FromLease, { t: "accepted" }>): void {
    const brought = broughtBack(lease.secret, frame);
    if (brought === null) return;
    const { ticket, request } = brought;
    if (inputHashOf(request) !== ticket.inputHash || this.#life.job(frame.job) !== null) return;
    this.#life.apply({ t: "restore", ticket, request }, true);
    if (ticket.session !== null && this.#life.job(frame.job) !== null)
      this.#life.sessions.takeBack(ticket.session, frame.job, ticket.max_price);
  }

  /** A live job or one of the table. */
  job_(id: JobId): Job | null {
    return this.#life.job(id);
  }

  isQuiet(): boolean {
    return this.#life.isQuiet();
  }

  /** What it thinks now. */
  state(): State | null {
    this.#life.wake();
    return this.#life.state;
  }

  #seen(job: Job): JobSeen {
    return { id: job.id, lease: this.id, status: job.status, at: this.#setting.schedule.now };
  }
}
