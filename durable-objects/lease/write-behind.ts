import type { JobId } from "@gpux/protocol/ids";
import type { JobEvent } from "@gpux/protocol/job";
import type { Entry } from "./draft.ts";
import { isSettledReceipt, type Job } from "./job-state.ts";
import { type State, type Tick, withoutSettled } from "./state.ts";
import { type Dated, eventOf, type LeaseStore } from "./store.ts";

interface Noted extends Dated {
  readonly isKept: boolean;
}

/**
 * What has changed and is not in the rows yet. A job that begins and ends within one batch is written once, and so is
 * the lease, however often they changed. Everything of a batch is written in one transaction.
 */
export class WriteBehind {
  readonly #jobs = new Map<JobId, Job>();
  #noted: Noted[] = [];
  #lease: State["lease"] | null = null;
  /** That a voucher covers now; by the receipt's sequence. */
  readonly #ticks = new Map<number, Tick>();
  /** Jobs that have no row yet. */
  readonly #unborn = new Set<JobId>();

  get isEmpty(): boolean {
    return this.#lease === null && this.#jobs.size === 0 && this.#noted.length === 0;
  }

  /** A step: `kept` entries go to the journal, `passing` ones only to who is watching, in the same order. */
  note(before: State | null, after: State, kept: readonly Entry[], passing: readonly Entry[], at: number) {
    if (before?.lease !== after.lease) this.#lease = withoutSettled(after.lease);
    for (const tick of after.lease.ticks)
      if (isSettledReceipt(tick.receipt)) this.#ticks.set(tick.receipt.receipt.sequence, tick);
    for (const job of after.jobs.values()) {
      const was = before?.jobs.get(job.id);
      if (was === job) continue;
      if (was === undefined) this.#unborn.add(job.id);
      this.#jobs.set(job.id, job);
    }
    for (const entry of kept) this.#noted.push({ entry, at, isKept: true });
    for (const entry of passing) this.#noted.push({ entry, at, isKept: false });
  }

  job(id: JobId): Job | null {
    return this.#jobs.get(id) ?? null;
  }

  /** Whether a crash now would take all that is known of the job. */
  isUnborn(id: JobId): boolean {
    return this.#unborn.has(id);
  }

  /** Writes all of it; answers the events of it for who is watching. What throws has written nothing, and stays. */
  write(storage: DurableObjectStorage, store: LeaseStore): JobEvent[] {
    if (this.isEmpty) return [];
    const events = storage.transactionSync(() => {
      const last = store.lastEvent;
      const kept = store.write(
        {
          lease: this.#lease,
          jobs: [...this.#jobs.values()],
          fresh: this.#unborn,
          ticks: [...this.#ticks.values()],
        },
        this.#noted.filter(({ isKept }) => isKept),
      );
      return this.#inOrder(kept, last);
    });
    this.#jobs.clear();
    this.#unborn.clear();
    this.#ticks.clear();
    this.#noted = [];
    this.#lease = null;
    return events;
  }

  /** The kept ones with their numbers, and between them what passes; each of that bears the number before it. */
  #inOrder(kept: JobEvent[], before: number): JobEvent[] {
    if (this.#noted.every(({ isKept }) => isKept)) return kept;
    const events = [...kept];
    let last = before;
    return this.#noted.flatMap(({ entry, at, isKept }) => {
      if (!isKept) return [eventOf(entry, last, at)];
      // One above the limit of log lines has no event of its own.
      const isNext = events[0]?.job === entry.job && events[0].type === entry.type;
      const event = isNext ? events.shift() : undefined;
      if (event === undefined) return [];
      last = event.id;
      return [event];
    });
  }
}
