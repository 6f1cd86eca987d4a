import type { Entry } from "@gpux/durable-objects/lease/draft";
import type { Job } from "@gpux/durable-objects/lease/job-state";
import { prune } from "@gpux/durable-objects/lease/machine";
import type { SessionRow, SessionRows } from "@gpux/durable-objects/lease/sessions";
import type { State } from "@gpux/durable-objects/lease/state";
import type { JobId } from "@gpux/protocol/ids";
import type { SessionId } from "@gpux/protocol/session";
import type { Line } from "./seen.ts";

/** What a lease's object keeps through a crash: the tables of durable-objects/lease/store.ts, and the alarm. */
export interface Disk {
  state: State | null;
  readonly jobs: Map<JobId, Job>;
  readonly journal: Line[];
  /** Numbers above which the journal was to go on. */
  readonly skips: Set<number>;
  /** Other leases' jobs that this one would not have. */
  readonly declined: Set<JobId>;
  /** Written at once, never with what follows behind. */
  readonly sessions: Map<SessionId, SessionRow>;
  /** In ms; infinity while none is set. */
  alarm: number;
}

export function emptyDisk(): Disk {
  return {
    state: null,
    jobs: new Map(),
    journal: [],
    skips: new Set(),
    declined: new Set(),
    sessions: new Map(),
    alarm: Number.POSITIVE_INFINITY,
  };
}

export function save(disk: Disk, state: State, jobs: Iterable<Job>): void {
  disk.state = prune(state);
  for (const job of jobs) disk.jobs.set(job.id, job);
}

/** The highest number that the journal has, or is to go on above. */
export function lastEventOf({ journal, skips }: Disk): number {
  return Math.max(journal.at(-1)?.id ?? 0, ...skips);
}

/** Numbers the entries and keeps them; `isTwice`: they are one half written again, as only a planted bug does. */
export function append(disk: Disk, entries: readonly Entry[], isTwice: boolean): void {
  const after = lastEventOf(disk);
  const apart = isTwice ? entries.length / 2 : Number.POSITIVE_INFINITY;
  for (const [at, entry] of entries.entries())
    disk.journal.push({ ...entry, id: after + (at < apart ? at : at - apart) + 1 });
}

/** The rows of sessions, as durable-objects/lease/session-table.ts has them. */
export function sessionRows(disk: Disk): SessionRows {
  return {
    all: () => [...disk.sessions.values()],
    keep: (row) => void disk.sessions.set(row.id, row),
    forget: (session) => void disk.sessions.delete(session),
  };
}
