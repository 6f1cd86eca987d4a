import type { HoldRequest, Outcome, PaymentNeeded } from "@gpux/durable-objects/interfaces";
import {
  isLanding,
  mayNot,
  paymentNeeded,
  refusalOf,
  topUpAnswer,
} from "@gpux/durable-objects/lease/answers";
import { fundingFault } from "@gpux/durable-objects/lease/funding";
import { type Event, prune, type Step } from "@gpux/durable-objects/lease/machine";
import { quotedLease } from "@gpux/durable-objects/lease/quoted";
import { claimsOf } from "@gpux/durable-objects/lease/signatures";
import { isFinal, isSettled, isTerminal, type Job, type State } from "@gpux/durable-objects/lease/state";
import { CLOSE, FRAME_VERSION, type FromLease, type ToLease } from "@gpux/protocol/frames";
import type { Address, JobId, LeaseId } from "@gpux/protocol/ids";
import type { JobRequest } from "@gpux/protocol/job";
import type { FundingAuthorization, LeaseStatus } from "@gpux/protocol/lease";
import { Actor, type Flow } from "./actor.ts";
import { Bell } from "./bell.ts";
import { append, emptyDisk, save } from "./disk.ts";
import { Errands } from "./errands.ts";
import { Connection, type End } from "./network.ts";
import type { JobSeen, Line } from "./seen.ts";
import { type LeaseConnection, type LeaseDoor, PLACE, type Setting, type Upgrade } from "./setting.ts";
import { inputHashOf } from "./truth.ts";

/** As in durable-objects/lease/object.ts. */
const CONFIRM_MS = 30 * 60_000;

/** The shell of durable-objects/lease/object.ts over the same machine, in virtual time. */
export class LeaseObject extends Actor implements LeaseDoor {
  readonly id: LeaseId;
  readonly #setting: Setting;
  disk = emptyDisk();
  #state: State | null = null;
  #connection: LeaseConnection | null = null;
  #errands: Errands;
  #asleep = true;
  /** Its memory is gone and nothing has woken it yet. */
  #unloaded = false;
  #alarmAt = Number.POSITIVE_INFINITY;
  #changed: Bell;

  constructor(id: LeaseId, setting: Setting) {
    super(id.slice(0, 9));
    this.id = id;
    this.#setting = setting;
    this.#errands = new Errands(this, setting);
    this.#changed = new Bell(setting.schedule);
  }

  /** The memory goes; the data socket of one that was only put to sleep stays. */
  override crash(keepsSocket = false): void {
    // What it could not say any more, no living socket has lost.
    const isCut = !keepsSocket || this.doomed;
    super.crash();
    this.#unloaded = true;
    this.#changed = new Bell(this.#setting.schedule);
    if (isCut) {
      this.#connection?.lostByObject(this.#setting.random.int(5, 2_000));
      this.#connection = null;
    }
  }

  /** A new life begins with the first thing that happens to it. */
  #wake(): void {
    if (!this.#unloaded) return;
    this.#unloaded = false;
    this.#state = this.disk.state;
    this.#errands = new Errands(this, this.#setting);
    this.#asleep = true;
    this.#alarmAt = Number.POSITIVE_INFINITY;
    if (this.#connection !== null && !this.#connection.objectOpen) this.#connection = null;
  }

  *quote(request: HoldRequest): Flow<Outcome> {
    this.#wake();
    yield* [];
    if (this.#state !== null) return { ok: true };
    const state = quotedLease(request, PLACE, this.#setting.schedule.now);
    this.#setting.watch.leaseQuoted(state);
    this.#setting.relayer.leaseNames.set(request.terms, this.id);
    this.#keep(null, state);
    return { ok: true };
  }

  *fund(funding: FundingAuthorization): Flow<Outcome<{ status: LeaseStatus; expiry: number }>> {
    this.#wake();
    if (this.#state === null) return { ok: false, code: "quote_unknown" };
    const { lease } = this.#state;
    if (lease.status === "quoted") {
      const fault = fundingFault(funding, this.#setting.schedule.now);
      if (fault !== null) return refusalOf(fault);
      const node = this.#setting.node(lease.terms.providerSigner);
      const until = funding.valid_before * 1_000 + CONFIRM_MS;
      const reserved = yield* this.#setting.network.call(
        this,
        node,
        "reserve",
        () => node.reserve(lease.id, until),
        true,
      );
      if (!reserved.ok) return reserved;
    }
    const result = this.#apply({ t: "fund", funding });
    if (!result.ok) return refusalOf(result);
    const { status, terms } = this.#state.lease;
    return { ok: true, status, expiry: terms.expiry };
  }

  *topUp(as: Address, funding: FundingAuthorization): Flow<Outcome> {
    this.#wake();
    const refusal = mayNot(this.#state, as);
    if (this.#state === null || refusal !== null) return refusal ?? { ok: false, code: "lease_unknown" };
    const fault = fundingFault(funding, this.#setting.schedule.now);
    if (fault !== null) return refusalOf(fault);
    const result = this.#apply({ t: "top_up", funding });
    if (!result.ok) return refusalOf(result);
    if (isLanding(this.#state, funding.salt)) yield* this.#changed.wait(this.#setting.schedule.now + 3_000);
    if (this.#state === null) return { ok: false, code: "lease_unknown" };
    const answer = topUpAnswer(this.#state, funding.salt);
    return answer.ok ? { ok: true } : answer;
  }

  *submit(
    as: Address,
    id: JobId,
    request: JobRequest,
    clientId: string | null,
  ): Flow<Outcome<{ job: JobSeen; replayed: boolean }> | PaymentNeeded> {
    this.#wake();
    yield* [];
    const { hasher, keyring } = this.#setting;
    const hash = inputHashOf(request);
    const refusal = mayNot(this.#state, as);
    if (this.#state === null || refusal !== null) return refusal ?? { ok: false, code: "lease_unknown" };
    const known = this.job_(id);
    if (known !== null && known.inputHash !== hash) return { ok: false, code: "idempotency_key_reused" };
    if (known === null) {
      const { lease } = this.#state;
      const { allowance } = request;
      if (allowance !== undefined && allowance.cumulative > (lease.allowance?.cumulative ?? 0n)) {
        const digest = hasher.allowance({ leaseId: lease.hash, cumulative: allowance.cumulative });
        if (!keyring.isSigned(lease.terms.consumerSigner, digest, allowance.signature))
          return { ok: false, code: "allowance_invalid" };
      }
      const result = this.#apply({ t: "submit", job: id, clientId, request, inputHash: hash });
      if (!result.ok) return paymentNeeded(this.#state, result);
    }
    const job = this.job_(id);
    return job === null
      ? { ok: false, code: "job_unknown" }
      : { ok: true, job: this.#seen(job), replayed: known !== null };
  }

  *job(as: Address, id: JobId): Flow<Outcome<{ job: JobSeen }>> {
    this.#wake();
    yield* [];
    const refusal = mayNot(this.#state, as);
    if (refusal !== null) return refusal;
    const job = this.job_(id);
    return job === null ? { ok: false, code: "job_unknown" } : { ok: true, job: this.#seen(job) };
  }

  *events(as: Address, id: JobId, after: number): Flow<Outcome<{ events: readonly Line[] }>> {
    this.#wake();
    yield* [];
    const refusal = mayNot(this.#state, as);
    if (refusal !== null) return refusal;
    return { ok: true, events: this.disk.journal.filter((line) => line.job === id && line.id > after) };
  }

  *cancel(as: Address, id: JobId): Flow<Outcome<{ job: JobSeen }>> {
    this.#wake();
    yield* [];
    const refusal = mayNot(this.#state, as);
    if (refusal !== null) return refusal;
    const job = this.job_(id);
    if (job === null) return { ok: false, code: "job_unknown" };
    if (job.status !== "canceled") {
      if (isTerminal(job)) return { ok: false, code: "job_ended" };
      const result = this.#apply({ t: "cancel", job: id });
      if (!result.ok) return refusalOf(result);
    }
    return { ok: true, job: this.#seen(this.job_(id) ?? job) };
  }

  *close(as: Address): Flow<Outcome> {
    this.#wake();
    yield* [];
    const refusal = mayNot(this.#state, as);
    if (this.#state === null || refusal !== null) return refusal ?? { ok: false, code: "lease_unknown" };
    const result = this.#apply({ t: "close" });
    return result.ok ? { ok: true } : refusalOf(result);
  }

  accept(by: Address, agent: End<ToLease>): Upgrade<LeaseConnection> {
    this.#wake();
    if (this.#state === null || isSettled(this.#state.lease)) return { ok: false, status: 410 };
    if (by !== this.#state.lease.terms.providerSigner) return { ok: false, status: 403 };
    const end = (connection: LeaseConnection): End<FromLease> => ({
      hear: (frame) => this.#hear(connection, frame),
      closed: () => {
        this.#wake();
        if (this.#connection === connection) this.#connection = null;
        if (this.#connection === null && this.#state !== null) this.#apply({ t: "gone" });
      },
    });
    const connection: LeaseConnection = new Connection(this.#setting.network, agent, { actor: this, end });
    this.#connection?.closeByObject(CLOSE.replaced);
    this.#connection = connection;
    return { ok: true, connection };
  }

  #hear(connection: LeaseConnection, frame: FromLease): void {
    this.#wake();
    if (this.#state === null || this.#connection !== connection) return;
    for (const { digest, signature } of claimsOf(this.#state, frame))
      if (!this.#setting.keyring.isSigned(this.#state.lease.terms.providerSigner, digest, signature)) {
        connection.closeByObject(CLOSE.forbidden);
        return;
      }
    const result = this.#apply({ t: "frame", frame });
    if (!result.ok || frame.seq === 0 || result.frames.length > 0) return;
    connection.down({ v: FRAME_VERSION, t: "ack", seq: 0, ack: result.next.lease.seen }, "ack");
  }

  #apply(event: Event): Step {
    if (this.#state === null) throw new Error("a lease that is not there was told something");
    const { machines, schedule, watch } = this.#setting;
    const { now } = schedule;
    const before = this.#state;
    const woken = this.#asleep
      ? machines.lease.step(before, { t: "wake", connected: this.#connection !== null }, now)
      : null;
    const awake = woken?.ok ? woken.next : before;
    const result = machines.lease.step(awake, event, now);
    if (!result.ok) return result;
    const entries = [...(woken?.ok ? woken.journal : []), ...result.journal];
    const isTwice = !machines.shell.journalsOnce && this.#asleep;
    append(this.disk, isTwice ? [...entries, ...entries] : entries, isTwice);
    this.#keep(before, result.next);
    watch.leaseStepped(this.id, { before, event, after: result.next, entries });
    watch.journal(this.id, this.disk.journal);
    this.#asleep = false;
    const first = woken?.ok && machines.shell.speaksOnWaking ? woken.frames : [];
    for (const frame of [...first, ...result.frames]) this.#connection?.down(frame, frame.t);
    this.#changed.ring();
    if (isSettled(result.next.lease)) {
      this.#connection?.closeByObject(CLOSE.gone);
      this.#connection = null;
    }
    return result;
  }

  #keep(before: State | null, after: State): void {
    const { disk } = this;
    const write = () => save(disk, before, after);
    if (this.#setting.machines.shell.storesFirst) write();
    else {
      const { life } = this;
      this.#setting.network.later(2_000, "late write", () => this.life === life && write());
    }
    this.#state = prune(after);
    this.#arm();
  }

  #arm(): void {
    const state = this.#state;
    if (state === null) return;
    const { machines, schedule } = this.#setting;
    const { now } = schedule;
    const due = machines.lease.duties(state, now);
    const isPast = machines.lease.isForgotten(state, now);
    if (isPast && due.length === 0) return this.#forget();
    this.#errands.start(state.lease, due, (event) => {
      if (this.#state === null) return;
      if (event === null) this.#arm();
      else this.#apply(event);
    });
    const wake = isPast ? Number.POSITIVE_INFINITY : machines.lease.wakeAt(state, now);
    const at = Math.max(now, Math.min(wake, this.#errands.nextTry(due, now)));
    if (at >= this.#alarmAt) return;
    this.#alarmAt = at;
    this.disk.alarm = at;
    schedule.at(at, `${this.name} alarm`, () => this.#ring(at));
  }

  #ring(at: number): void {
    if (this.disk.alarm !== at) return;
    this.#wake();
    this.disk.alarm = Number.POSITIVE_INFINITY;
    // A planted bug: the alarm that rang counts as armed still.
    if (this.#setting.machines.shell.rearmsAlarms) this.#alarmAt = Number.POSITIVE_INFINITY;
    if (this.#state !== null) this.#apply({ t: "tick" });
  }

  #forget(): void {
    this.#setting.watch.leaseForgotten(this.id, this.disk.jobs.values());
    this.#state = null;
    this.#alarmAt = Number.POSITIVE_INFINITY;
    this.disk = emptyDisk();
  }

  /** A live job or one of the table. */
  job_(id: JobId): Job | null {
    return this.#state?.jobs.get(id) ?? this.disk.jobs.get(id) ?? null;
  }

  /** Whether nothing more will happen to it but being forgotten. */
  isQuiet(): boolean {
    this.#wake();
    if (this.#state === null) return true;
    const { machines, schedule } = this.#setting;
    const { lease, jobs } = this.#state;
    return (
      (isSettled(lease) || lease.status === "lost") &&
      // What the provider of a lease that is over has not signed, nobody can settle.
      [...jobs.values()].every((job) => isFinal(job) || (isTerminal(job) && job.receipt?.settled === null)) &&
      machines.lease.duties(this.#state, schedule.now).length === 0
    );
  }

  /** What it thinks now, for the invariants. */
  state(): State | null {
    this.#wake();
    return this.#state;
  }

  #seen(job: Job): JobSeen {
    return { id: job.id, lease: this.id, status: job.status };
  }
}
