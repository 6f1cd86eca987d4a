import type { JobId } from "@gpux/protocol/ids";
import type { JobEvent } from "@gpux/protocol/job";
import type { SessionId } from "@gpux/protocol/session";
import { bytesToHex } from "viem/utils";
import type { ObjectEnv } from "../bindings.ts";
import type { Caller, Carried, Refused } from "../interfaces.ts";
import { mayNot } from "./answers.ts";
import { ClientSockets } from "./clients.ts";
import { BEHIND_MS, mayFollow } from "./deferral.ts";
import { duties } from "./duties.ts";
import { Errands } from "./errands.ts";
import { isGone, isTerminal, type Job } from "./job-state.ts";
import { type Event, prune, type Step, step } from "./machine.ts";
import { SessionTable } from "./session-table.ts";
import { LeaseSessions, mayBringBack } from "./sessions.ts";
import { AgentSocket, Watchers, watchEnd } from "./sockets.ts";
import { isSettled, type State, type Tick } from "./state.ts";
import { LeaseStore } from "./store.ts";
import type { Shell } from "./submission.ts";
import { issue, withTickets } from "./tickets.ts";
import { isForgotten, wakeAt } from "./timers.ts";
import { jobView } from "./view.ts";
import { Waiters } from "./waiters.ts";
import { WriteBehind } from "./write-behind.ts";

/** Calls that wait for something at this lease: from so many on each would rather share a commit than have its own. */
const MANY_WAITING = 8;

/** More than the cap of a job's journal. */
const ALL_EVENTS = 10_000;

/**
 * One life of a lease's object, from its rows to its eviction: load, step, write state, journal and alarm in one
 * synchronous block, then send frames, wake who waits, and carry out duties. On the warm path the rows follow within
 * milliseconds (write-behind.ts): nothing of it waits for the disk.
 */
export class Life implements Shell {
  readonly #ctx: DurableObjectState;
  readonly agent: AgentSocket;
  readonly watchers: Watchers;
  readonly clients: ClientSockets;
  readonly waiters = new Waiters();
  readonly #errands: Errands;
  #store: LeaseStore;
  #state: State | null;
  #sessions: LeaseSessions;
  #behind = new WriteBehind();
  #timer: ReturnType<typeof setTimeout> | null = null;
  #recording: Promise<void> | null = null;
  /** The agent's highest seq whose effect is in the rows. */
  #seen: number;
  #asleep = true;
  #alarmAt = Number.POSITIVE_INFINITY;

  constructor(ctx: DurableObjectState, env: ObjectEnv) {
    this.#ctx = ctx;
    this.agent = new AgentSocket(ctx);
    this.watchers = new Watchers(ctx);
    this.#store = new LeaseStore(ctx.storage.sql);
    this.#state = this.#store.load();
    this.clients = new ClientSockets(ctx, this.#state?.lease.id ?? null);
    this.#errands = new Errands(env, {
      awaited: () => this.clients.awaited(),
      lastEvent: () => this.#store.lastEvent,
    });
    this.#seen = this.#state?.lease.seen ?? 0;
    this.#sessions = this.#openSessions();
    // Its agent was there, and with the connection may be gone what was answered last (SPEC ACK-5).
    if (this.#state?.lease.awayAt === null && !this.agent.connected) this.#sessions.doubt();
  }

  get state(): State | null {
    return this.#state;
  }

  get sessions(): LeaseSessions {
    return this.#sessions;
  }

  /** A lease begins: nothing has been told of it yet. */
  begin(state: State, now: number): void {
    this.#state = state;
    this.#behind.note(null, state, [], [], now);
    this.write();
    this.arm();
  }

  /** The platform's alarm has gone off: the next one is to be set. */
  ring(): void {
    this.#alarmAt = Number.POSITIVE_INFINITY;
    this.clients.expire(Date.now());
    if (this.#state !== null) this.apply({ t: "tick" });
  }

  /** The job's events after `after`, all that have happened. */
  events(id: JobId, after: number, limit: number): JobEvent[] {
    this.write();
    return this.#store.events(id, after, limit);
  }

  /** Billed time after receipt number `after`, `limit` of it at most, whether or not a voucher covers it yet. */
  ticks(after: number, limit: number): Tick[] {
    this.write();
    const settled = this.#store.ticks(after, limit);
    const others = this.#state?.lease.ticks.filter(({ receipt }) => receipt.receipt.sequence > after) ?? [];
    return [...settled, ...others].slice(0, limit);
  }

  /** A reader joins, of one job's events or of the lease's own; null: there is no such thing. */
  watch(id: JobId | null, after: number): Response | null {
    if (this.#state === null) return null;
    this.write();
    const { lease } = this.#state;
    if (id === null)
      return this.watchers.acceptLease(this.#store.leaseEvents(lease.id, after), isSettled(lease));
    const job = this.job(id);
    if (job === null) return null;
    const missed = this.#store.events(id, after, ALL_EVENTS);
    return this.watchers.accept(id, missed, isTerminal(job) ? watchEnd(job) : null);
  }

  /**
   * One event through the machine. With `mayWait` the rows may follow within {@link BEHIND_MS}, unless what follows
   * from it must not be taken back: a lease's new life, or a signature that is asked for.
   */
  apply(event: Event, mayWait = false): Step {
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
    if (mayWait && woken === null && mayFollow(before, result.next, result.frames)) this.#writeSoon();
    else this.write();
    // Only now: had the store thrown, this life's epoch would be used without having been raised.
    this.#asleep = false;
    this.arm();
    const told = [...(woken?.ok ? woken.events : []), ...result.events];
    if (told.length > 0)
      this.watchers.tellLease(this.#store.appendLease(lease.id, told, now), isSettled(lease));
    // Waking is a step of its own, in which something may have fallen due: a block, a time-out.
    for (const frame of [...(woken?.ok ? woken.frames : []), ...result.frames])
      this.agent.send(
        withTickets(frame, (id) => this.#ticketOf(id)),
        this.#seen,
      );
    for (const [id, job] of result.next.jobs) {
      if (before.jobs.get(id) === job) continue;
      if (isTerminal(job)) this.#sessions.ended(job);
      this.waiters.changed(id);
      this.clients.changed(job, (each) => jobView(result.next, each, now));
      if (isGone(job)) this.watchers.end(job);
    }
    if (before.lease.block !== null && lease.block === null) this.waiters.changed("block");
    const { status, topUps } = lease;
    if (before.lease.status !== status || before.lease.topUps !== topUps) this.waiters.changed("lease");
    if (isSettled(lease)) {
      this.agent.end();
      this.clients.end();
    }
    return result;
  }

  /** Of jobs that their clients sent again: that they are on record, or how they have ended. */
  tellClients(): void {
    const state = this.#state;
    if (state === null) return;
    this.clients.recorded(
      (id) => (this.#behind.isUnborn(id) ? null : this.job(id)),
      (job) => jobView(state, job, Date.now()),
    );
    this.clients.keep();
  }

  #wake(): Event {
    const secret = bytesToHex(crypto.getRandomValues(new Uint8Array(32)));
    return { t: "wake", connected: this.agent.connected, secret };
  }

  /** A job that is sent before it is written down takes with it what makes it known again. */
  #ticketOf(id: JobId): string | null {
    if (!this.#behind.isUnborn(id)) return null;
    const job = this.job(id);
    const secret = this.#state?.lease.secret ?? null;
    return job === null || secret === null ? null : issue(secret, job);
  }

  #writeSoon(): void {
    if (this.#behind.isEmpty) return;
    this.#timer ??= setTimeout(() => {
      try {
        this.write();
      } catch (error) {
        // Nothing of it was written, and nothing of it was promised but what the agent keeps: begin again from the rows.
        this.#ctx.abort(`the rows cannot be written: ${error}`);
      }
    }, BEHIND_MS);
  }

  /**
   * Resolves when all that has happened is in the rows; the reply that follows waits for the disk by itself. Calls that
   * come together share one commit: those that are there already, and while many wait those of {@link BEHIND_MS} too.
   */
  recorded(): Promise<void> {
    if (this.#behind.isEmpty) return Promise.resolve();
    const isBusy = this.waiters.count >= MANY_WAITING;
    this.#recording ??= scheduler.wait(isBusy ? BEHIND_MS : 0).then(() => {
      this.#recording = null;
      this.write();
    });
    return this.#recording;
  }

  /** All that has changed, in one transaction; who watches hears of it, and the agent that it may forget. */
  write(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#behind.isEmpty || this.#state === null) return;
    try {
      const events = this.#behind.write(this.#ctx.storage, this.#store);
      this.watchers.tell(events, (id) => this.job(id));
      this.#seen = this.#state.lease.seen;
      this.agent.acknowledge(this.#seen);
      this.clients.tell(events, (id) => this.job(id));
      this.tellClients();
    } catch (error) {
      // Memory is ahead of the rows, of which none was written: another life begins from them.
      this.#behind = new WriteBehind();
      this.#asleep = true;
      this.#store = new LeaseStore(this.#ctx.storage.sql);
      this.#state = this.#store.load();
      throw error;
    }
  }

  /** Duties are begun, and the alarm set for whatever comes first: a time-out, or another try of a duty. */
  arm(): void {
    const state = this.#state;
    if (state === null) return;
    const now = Date.now();
    const due = duties(state, now);
    const isPast = isForgotten(state, now);
    // What is still owed outlives the retention, however long the relayer is away.
    if (isPast && due.length === 0) return this.#forget();
    this.#errands.start(state.lease, due, now, (event) => {
      if (this.#state === null) return;
      if (event === null) this.arm();
      else this.apply(event);
    });
    const at = Math.max(
      now,
      Math.min(
        isPast ? Number.POSITIVE_INFINITY : wakeAt(state, now),
        this.#errands.nextTry(due, now),
        this.clients.firstEnd,
      ),
    );
    if (at < this.#alarmAt) {
      this.#alarmAt = at;
      void this.#ctx.storage.setAlarm(at);
    }
  }

  #forget(): void {
    this.#state = null;
    this.clients.end();
    this.#behind = new WriteBehind();
    this.#alarmAt = Number.POSITIVE_INFINITY;
    // Nobody may get in between: a new quote would be written and then deleted.
    void this.#ctx.blockConcurrencyWhile(async () => {
      await this.#ctx.storage.deleteAll();
      this.#store = new LeaseStore(this.#ctx.storage.sql);
      this.#sessions = this.#openSessions();
    });
  }

  /** A lease is its parties', by their wallets or by sessions that their Account has vouched for. */
  mayNot(as: Caller): Refused | null {
    return mayNot(this.#state, typeof as === "string" ? as : as.address) ?? this.#sessions.refusal(as);
  }

  #openSessions(): LeaseSessions {
    const ofSession = (session: SessionId) => {
      this.write();
      return this.#store.jobsOfSession(session);
    };
    const isSure = () => this.#state === null || !mayBringBack(this.#state, this.agent.connected, Date.now());
    return new LeaseSessions(new SessionTable(this.#ctx.storage.sql), ofSession, isSure);
  }

  /**
   * Another lease's job. Its lines, which go on here, are numbered above those that it has: `lastEvent`. An answer is for
   * good: the other lease may ask again, long after.
   */
  adopt(carried: Carried, lastEvent: number): boolean {
    if (this.#state === null || this.#store.hasDeclined(carried.job)) return false;
    if (this.job(carried.job) !== null) return true;
    this.#store.skipTo(lastEvent);
    if (this.#sessions.mayAdopt(carried) && this.apply({ t: "adopt", carried }).ok) {
      this.#sessions.adopted(carried);
      return true;
    }
    this.#store.decline(carried.job);
    return false;
  }

  /** It has no row yet: should a crash take it, its agent's ticket brings it back. */
  isUnborn(id: JobId): boolean {
    return this.#behind.isUnborn(id);
  }

  job(id: JobId): Job | null {
    return this.#state?.jobs.get(id) ?? this.#behind.job(id) ?? this.#store.job(id);
  }
}
