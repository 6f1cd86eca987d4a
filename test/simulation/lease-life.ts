import type { Carried } from "@gpux/durable-objects/interfaces";
import { mayFollow } from "@gpux/durable-objects/lease/deferral";
import { isTerminal, type Job } from "@gpux/durable-objects/lease/job-state";
import { type Event, prune, type Step } from "@gpux/durable-objects/lease/machine";
import { type LeaseSessions, mayBringBack } from "@gpux/durable-objects/lease/sessions";
import { isSettled, type State } from "@gpux/durable-objects/lease/state";
import { issue, withTickets } from "@gpux/durable-objects/lease/tickets";
import { CLOSE, FRAME_VERSION, type ToLease } from "@gpux/protocol/frames";
import type { JobId, LeaseId } from "@gpux/protocol/ids";
import type { SessionId } from "@gpux/protocol/session";
import type { Actor } from "./actor.ts";
import { Behind } from "./behind.ts";
import { Bell } from "./bell.ts";
import { emptyDisk, lastEventOf, sessionRows } from "./disk.ts";
import { Errands } from "./errands.ts";
import type { LeaseConnection, Setting } from "./setting.ts";

/** How late a write is that a planted bug does not wait for. */
const LATE_MS = 2_000;

/**
 * The lives of a lease's object as durable-objects/lease/life.ts has them: state and what is behind are memory, the disk
 * is what a crash leaves.
 */
export class LeaseLife {
  readonly #id: LeaseId;
  readonly #object: Actor;
  readonly #setting: Setting;
  disk = emptyDisk();
  connection: LeaseConnection | null = null;
  #state: State | null = null;
  #behind = new Behind();
  #isWritingSoon = false;
  /** The agent's highest seq whose effect is on the disk, and the last that it was told of; null before a welcome. */
  #seen = 0;
  #told: number | null = null;
  #errands: Errands;
  #changed: Bell;
  #sessions: LeaseSessions;
  #asleep = true;
  /** Its memory is gone and nothing has woken it yet. */
  #unloaded = false;
  #alarmAt = Number.POSITIVE_INFINITY;

  constructor(id: LeaseId, object: Actor, setting: Setting) {
    this.#id = id;
    this.#object = object;
    this.#setting = setting;
    this.#errands = this.#newErrands();
    this.#changed = new Bell(setting.schedule);
    this.#sessions = this.#openSessions();
  }

  #newErrands(): Errands {
    return new Errands(this.#object, this.#setting, () => lastEventOf(this.disk));
  }

  get sessions(): LeaseSessions {
    return this.#sessions;
  }

  #openSessions(): LeaseSessions {
    const ofSession = (session: SessionId) => {
      this.write();
      return [...this.disk.jobs.values()].filter((job) => job.session === session);
    };
    const { machines, schedule } = this.#setting;
    const isSure = () =>
      this.#state === null || !mayBringBack(this.#state, this.connection !== null, schedule.now);
    return machines.sessions.ofLease(sessionRows(this.disk), ofSession, isSure);
  }

  get state(): State | null {
    return this.#state;
  }

  /** A platform puts nothing to sleep that has a timer running. */
  get isBusy(): boolean {
    return !this.#behind.isEmpty;
  }

  /** The memory goes; `isCut`: and the data socket with it. */
  end(isCut: boolean): void {
    this.#behind = new Behind();
    this.#isWritingSoon = false;
    this.#setting.watch.leaseRewound(this.#id, this.disk);
    this.#unloaded = true;
    this.#changed = new Bell(this.#setting.schedule);
    if (!isCut) return;
    this.connection?.lostByObject(this.#setting.random.int(5, 2_000));
    this.connection = null;
  }

  /** A new life begins with the first thing that happens to it. */
  wake(): void {
    if (!this.#unloaded) return;
    this.#unloaded = false;
    this.#state = this.disk.state;
    this.#seen = this.#state?.lease.seen ?? 0;
    this.#sessions = this.#openSessions();
    this.#errands = this.#newErrands();
    this.#asleep = true;
    this.#alarmAt = Number.POSITIVE_INFINITY;
    if (this.connection !== null && !this.connection.objectOpen) this.connection = null;
    const { doubtsAfterCrash } = this.#setting.machines.shell;
    if (this.#state?.lease.awayAt === null && this.connection === null && doubtsAfterCrash)
      this.#sessions.doubt();
  }

  /** Pauses until something has changed, or until a time in ms. */
  change(until: number) {
    return this.#changed.wait(until);
  }

  begin(state: State): void {
    this.#state = state;
    this.#behind.note(null, state, [], false);
    this.write();
    this.#arm();
  }

  accepted(connection: LeaseConnection): void {
    this.connection?.closeByObject(CLOSE.replaced);
    this.connection = connection;
    this.#told = null;
  }

  /** `mayWait`: what follows from it agent and caller would bring again, so the disk may have it a moment later. */
  apply(event: Event, mayWait = false): Step {
    if (this.#state === null) throw new Error("a lease that is not there was told something");
    const { machines, schedule, watch, random } = this.#setting;
    const { now } = schedule;
    const before = this.#state;
    const wake = (): Event => ({
      t: "wake",
      connected: this.connection !== null,
      secret: random.bytes32(),
    });
    const woken = this.#asleep ? machines.lease.step(before, wake(), now) : null;
    const result = machines.lease.step(woken?.ok ? woken.next : before, event, now);
    if (!result.ok) return result;
    const entries = [...(woken?.ok ? woken.journal : []), ...result.journal];
    const isTwice = !machines.shell.journalsOnce && this.#asleep;
    this.#behind.note(before, result.next, isTwice ? [...entries, ...entries] : entries, isTwice);
    this.#state = prune(result.next);
    watch.leaseStepped(this.#id, { before, event, after: result.next, entries });
    const isHot = mayWait && woken === null && mayFollow(before, result.next, result.frames);
    if (isHot) this.#writeSoon(this.#setting.behindMs);
    else if (machines.shell.storesFirst) this.write();
    else this.#writeSoon(LATE_MS);
    this.#asleep = false;
    this.#arm();
    const first = woken?.ok && machines.shell.speaksOnWaking ? woken.frames : [];
    for (const frame of [...first, ...result.frames])
      this.#say(
        withTickets(frame, (id) => this.#ticketOf(id)),
        this.#durable(),
      );
    for (const [id, job] of result.next.jobs)
      if (before.jobs.get(id) !== job && isTerminal(job)) this.#sessions.ended(job);
    if (!machines.shell.acknowledgesDurable) this.#acknowledge();
    this.#changed.ring();
    if (isSettled(result.next.lease)) {
      this.connection?.closeByObject(CLOSE.gone);
      this.connection = null;
    }
    return result;
  }

  /** All that has changed, at once; the agent hears what it may forget. */
  write(): void {
    this.#isWritingSoon = false;
    if (this.#behind.isEmpty) return;
    this.#behind.write(this.disk);
    this.#setting.watch.journal(this.#id, this.disk);
    this.#acknowledge();
  }

  /** It is not on the disk at all: should a crash take it, its agent's ticket brings it back. */
  isUnborn(id: JobId): boolean {
    return this.#behind.isUnborn(id);
  }

  /** A job in memory or of the table. */
  job(id: JobId): Job | null {
    return this.#state?.jobs.get(id) ?? this.#behind.job(id) ?? this.disk.jobs.get(id) ?? null;
  }

  /** As in durable-objects/lease/life.ts. */
  adopt(carried: Carried, lastEvent: number): boolean {
    const { numbersOn } = this.#setting.machines.shell;
    if (this.#state === null || this.disk.declined.has(carried.job)) return false;
    if (this.job(carried.job) !== null) return true;
    if (numbersOn && lastEvent > lastEventOf(this.disk)) this.disk.skips.add(lastEvent);
    if (this.#sessions.mayAdopt(carried) && this.apply({ t: "adopt", carried }).ok) {
      this.#sessions.adopted(carried);
      return true;
    }
    this.disk.declined.add(carried.job);
    return false;
  }

  ring(at: number): void {
    if (this.disk.alarm !== at) return;
    this.wake();
    this.disk.alarm = Number.POSITIVE_INFINITY;
    // A planted bug: the alarm that rang counts as armed still.
    if (this.#setting.machines.shell.rearmsAlarms) this.#alarmAt = Number.POSITIVE_INFINITY;
    if (this.#state !== null) this.apply({ t: "tick" });
  }

  /** Whether nothing more will happen to it but being forgotten. */
  isQuiet(): boolean {
    this.wake();
    if (this.#state === null) return true;
    const { machines, schedule } = this.#setting;
    const { lease, jobs } = this.#state;
    return (
      (isSettled(lease) || lease.status === "lost") &&
      // What the provider of a lease that is over has not signed, nobody can settle.
      [...jobs.values()].every(isTerminal) &&
      machines.lease.duties(this.#state, schedule.now).length === 0
    );
  }

  #writeSoon(ms: number): void {
    if (this.#isWritingSoon) return;
    this.#isWritingSoon = true;
    const { schedule } = this.#setting;
    const { life } = this.#object;
    const write = () => {
      if (this.#object.life === life && this.#isWritingSoon) this.write();
    };
    schedule.at(schedule.now + ms, `${this.#object.name} writes`, write, ms === LATE_MS);
  }

  #durable(): number {
    const { acknowledgesDurable, storesFirst } = this.#setting.machines.shell;
    const seen = this.#state?.lease.seen ?? 0;
    if (this.#behind.isEmpty || !acknowledgesDurable || !storesFirst) this.#seen = seen;
    return this.#seen;
  }

  #acknowledge(): void {
    const ack = this.#durable();
    if (this.#told !== null && ack > this.#told) this.#say({ v: FRAME_VERSION, t: "ack", seq: 0, ack }, ack);
  }

  #say(frame: ToLease, ack: number): void {
    if (this.connection === null) return;
    this.connection.down({ ...frame, ack }, frame.t);
    this.#told = ack;
  }

  /** A job that is sent before it is written down takes with it what makes it known again. */
  #ticketOf(id: JobId): string | null {
    if (!this.#setting.machines.shell.sendsTickets || !this.#behind.isUnborn(id)) return null;
    const job = this.job(id);
    const secret = this.#state?.lease.secret ?? null;
    return job === null || secret === null ? null : issue(secret, job);
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
      else this.apply(event);
    });
    const wake = isPast ? Number.POSITIVE_INFINITY : machines.lease.wakeAt(state, now);
    const at = Math.max(now, Math.min(wake, this.#errands.nextTry(due, now)));
    if (at >= this.#alarmAt) return;
    this.#alarmAt = at;
    this.disk.alarm = at;
    schedule.at(at, `${this.#object.name} alarm`, () => this.ring(at));
  }

  #forget(): void {
    this.#setting.watch.leaseForgotten(this.#id, this.disk.jobs.values());
    this.#state = null;
    this.#behind = new Behind();
    this.#alarmAt = Number.POSITIVE_INFINITY;
    this.disk = emptyDisk();
    this.#sessions = this.#openSessions();
  }
}
