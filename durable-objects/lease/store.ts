import { JobId, type LeaseId } from "@gpux/protocol/ids";
import { JobEvent, JobStatus } from "@gpux/protocol/job";
import { LeaseEvent } from "@gpux/protocol/lease-event";
import { Amount } from "@gpux/protocol/money";
import type { SessionId } from "@gpux/protocol/session";
import { z } from "zod";
import { migrate } from "../migrations.ts";
import { NONCE_TABLE } from "../nonce-window.ts";
import type { Entry } from "./draft.ts";
import { isKept, type LeaseEntry } from "./events.ts";
import { Job } from "./job-state.ts";
import { SESSION_TABLE, SESSION_TURN, SESSION_UNSURE } from "./session-table.ts";
import type { CountedJob } from "./sessions.ts";
import { Lease, type State, Tick } from "./state.ts";
import { type Batch, TAIL_TABLE, Tail } from "./tail.ts";

/** Described in docs/storage-schema.md. Amounts are TEXT, inside the documents too: SQLite's numbers would round them. */
const MIGRATIONS = [
  "CREATE TABLE lease (id INTEGER PRIMARY KEY CHECK (id = 1), status TEXT NOT NULL, doc TEXT NOT NULL)",
  `CREATE TABLE jobs (id TEXT PRIMARY KEY, n INTEGER NOT NULL, status TEXT NOT NULL, price TEXT NOT NULL,
     live INTEGER NOT NULL, request TEXT NOT NULL, doc TEXT NOT NULL) WITHOUT ROWID`,
  "CREATE INDEX jobs_live ON jobs (live) WHERE live = 1",
  `CREATE TABLE journal (id INTEGER PRIMARY KEY, job TEXT NOT NULL, at INTEGER NOT NULL, type TEXT NOT NULL,
     data TEXT NOT NULL)`,
  "CREATE INDEX journal_job ON journal (job, id)",
  NONCE_TABLE,
  SESSION_TABLE,
  "CREATE TABLE events (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, type TEXT NOT NULL, data TEXT NOT NULL)",
  "CREATE TABLE ticks (sequence INTEGER PRIMARY KEY, doc TEXT NOT NULL)",
  TAIL_TABLE,
  SESSION_UNSURE,
  SESSION_TURN,
  "CREATE TABLE declined (job TEXT PRIMARY KEY) WITHOUT ROWID",
] as const;

/** Entries of the lease's own journal; past it only its status is written, however often its node comes and goes. */
const EVENT_LIMIT = 10_000;

/** Ids of jobs that are kept in memory, to know a new one without asking the disk. */
const MOST_REMEMBERED = 20_000;

/** Log lines kept per job; the rest are passed on to who is watching, and gone. */
const LOG_LIMIT = 2_000;

const CountedRow = z.strictObject({
  id: JobId,
  status: JobStatus,
  price: Amount,
  max_price: Amount,
  move: z
    .string()
    .nullable()
    .transform((text) => Job.shape.move.parse(text === null ? null : JSON.parse(text))),
});

interface JobRow extends Record<string, SqlStorageValue> {
  readonly request: string;
  readonly doc: string;
}

interface LeaseEventRow extends Record<string, SqlStorageValue> {
  readonly id: number;
  readonly at: number;
  readonly type: string;
  readonly data: string;
}

interface EventRow extends LeaseEventRow {
  readonly job: string;
}

/** An entry and when it was made. */
export interface Dated {
  readonly entry: Entry;
  readonly at: number;
}

/**
 * The tables of one lease, and their tail (tail.ts), which is folded into them before they are read. Every method is
 * synchronous: writes without an await between them commit together.
 */
export class LeaseStore {
  readonly #sql: SqlStorage;
  readonly #tail: Tail;
  /** The journal's highest number. */
  #last: number;
  /** Of all jobs that there are; null: too many. Read when the first job is asked for. */
  #ids: Set<string> | null | undefined;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    migrate(sql, MIGRATIONS);
    this.#tail = new Tail(sql);
    this.#last = sql.exec<{ id: number | null }>("SELECT max(id) AS id FROM journal").one().id ?? 0;
  }

  /** The lease and its live jobs; `null` in a fresh (or forgotten) object. */
  load(): State | null {
    this.#tail.fold();
    const [row] = this.#sql.exec<{ doc: string }>("SELECT doc FROM lease").toArray();
    if (row === undefined) return null;
    const jobs = this.#sql.exec<JobRow>("SELECT request, doc FROM jobs WHERE live = 1").toArray().map(jobOf);
    return { lease: Lease.parse(JSON.parse(row.doc)), jobs: new Map(jobs.map((job) => [job.id, job])) };
  }

  job(id: JobId): Job | null {
    const recent = this.#tail.job(id);
    if (recent !== null) return recent;
    // Most that are asked for are new.
    if (this.#isNew(id)) return null;
    const [row] = this.#sql.exec<JobRow>("SELECT request, doc FROM jobs WHERE id = ?", id).toArray();
    return row === undefined ? null : jobOf(row);
  }

  #isNew(id: JobId): boolean {
    if (this.#ids === undefined) {
      this.#tail.fold();
      const rows = this.#sql
        .exec<{ id: string }>("SELECT id FROM jobs LIMIT ?", MOST_REMEMBERED + 1)
        .toArray();
      this.#ids = rows.length > MOST_REMEMBERED ? null : new Set(rows.map((row) => row.id));
    }
    return this.#ids !== null && !this.#ids.has(id);
  }

  /** Every job that was asked for under a session, ended or not: of thousands, so no more of each than is counted. */
  jobsOfSession(session: SessionId): CountedJob[] {
    this.#tail.fold();
    return this.#sql
      .exec<Record<string, SqlStorageValue>>(
        `SELECT id, status, price, request ->> '$.max_price' AS max_price, doc -> '$.move' AS move
         FROM jobs WHERE doc ->> '$.session' = ?`,
        session,
      )
      .toArray()
      .map((row) => {
        const { max_price, ...job } = CountedRow.parse(row);
        return { ...job, request: { max_price } };
      });
  }

  /**
   * Writes all of it, with the entries in the journal; answers those as the events that readers get. Jobs never leave
   * the tables with their lease alive.
   */
  write(batch: Omit<Batch, "journal">, entries: readonly Dated[]): JobEvent[] {
    const kept = this.#withinLogLimit(entries);
    const first = this.#last + 1;
    const journal = kept.map(({ entry, at }, i) => ({ id: first + i, at, entry }));
    this.#tail.append({ ...batch, journal });
    if (this.#tail.isLong) this.#tail.fold();
    this.#last += journal.length;
    if (this.#ids) {
      for (const id of batch.fresh) this.#ids.add(id);
      if (this.#ids.size > MOST_REMEMBERED) this.#ids = null;
    }
    return journal.map(({ id, at, entry }) => eventOf(entry, id, at));
  }

  /** Of a dedicated lease: billed time that a voucher covers. */
  ticks(after: number, limit: number): Tick[] {
    this.#tail.fold();
    return this.#sql
      .exec<{ doc: string }>(
        "SELECT doc FROM ticks WHERE sequence > ? ORDER BY sequence LIMIT ?",
        after,
        limit,
      )
      .toArray()
      .map(({ doc }) => Tick.parse(JSON.parse(doc)));
  }

  #withinLogLimit(entries: readonly Dated[]): readonly Dated[] {
    if (entries.every(({ entry }) => entry.type !== "log")) return entries;
    const lines = new Map<JobId, number>();
    return entries.filter(({ entry: { job, type } }) => {
      if (type !== "log") return true;
      const before = lines.get(job) ?? this.#logLines(job);
      lines.set(job, before + 1);
      return before < LOG_LIMIT;
    });
  }

  #logLines(job: JobId): number {
    this.#tail.fold();
    return this.#sql
      .exec<{ n: number }>("SELECT count(*) AS n FROM journal WHERE job = ? AND type = 'log'", job)
      .one().n;
  }

  events(job: JobId, after: number, limit: number): JobEvent[] {
    this.#tail.fold();
    return this.#sql
      .exec<EventRow>("SELECT * FROM journal WHERE job = ? AND id > ? ORDER BY id LIMIT ?", job, after, limit)
      .toArray()
      .map((row) =>
        JobEvent.parse({
          id: row.id,
          job: row.job,
          at: new Date(row.at).toISOString(),
          type: row.type,
          data: JSON.parse(row.data),
        }),
      );
  }

  /** As {@link write} does with a job's, for the lease itself; an entry that is not kept bears the last number. */
  appendLease(lease: LeaseId, entries: readonly LeaseEntry[], now: number): LeaseEvent[] {
    return entries.flatMap((entry) => {
      const at = new Date(now).toISOString();
      const last = isKept(entry) && entry.type === "status" ? 0 : this.#lastLeaseEvent();
      if (last >= EVENT_LIMIT) return [];
      if (!isKept(entry)) return [{ id: last, lease, at, ...entry, data: { ...entry.data } }];
      const { id } = this.#sql
        .exec<{ id: number }>(
          "INSERT INTO events (at, type, data) VALUES (?, ?, ?) RETURNING id",
          now,
          entry.type,
          JSON.stringify(entry.data),
        )
        .one();
      return [{ id, lease, at, ...entry, data: { ...entry.data } }];
    });
  }

  leaseEvents(lease: LeaseId, after: number): LeaseEvent[] {
    return this.#sql
      .exec<LeaseEventRow>("SELECT * FROM events WHERE id > ? ORDER BY id", after)
      .toArray()
      .map(({ id, at, type, data }) =>
        LeaseEvent.parse({ id, lease, at: new Date(at).toISOString(), type, data: JSON.parse(data) }),
      );
  }

  #lastLeaseEvent(): number {
    return this.#sql.exec<{ id: number | null }>("SELECT max(id) AS id FROM events").one().id ?? 0;
  }

  get lastEvent(): number {
    return this.#last;
  }

  /** The journal goes on above this number. */
  skipTo(last: number): void {
    this.#last = Math.max(this.#last, last);
  }

  /** Another lease's job that this one would not have. */
  decline(job: JobId): void {
    this.#sql.exec("INSERT OR IGNORE INTO declined VALUES (?)", job);
  }

  hasDeclined(job: JobId): boolean {
    return this.#sql.exec("SELECT 1 FROM declined WHERE job = ?", job).toArray().length > 0;
  }
}

function jobOf(row: JobRow): Job {
  return Job.parse({ ...JSON.parse(row.doc), request: JSON.parse(row.request) });
}

export function eventOf(entry: Entry, id: number, now: number): JobEvent {
  return { id, job: entry.job, at: new Date(now).toISOString(), type: entry.type, data: { ...entry.data } };
}
