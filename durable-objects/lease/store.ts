import type { JobId, LeaseId } from "@gpux/protocol/ids";
import { JobEvent } from "@gpux/protocol/job";
import { LeaseEvent } from "@gpux/protocol/lease-event";
import type { SessionId } from "@gpux/protocol/session";
import { migrate } from "../migrations.ts";
import { NONCE_TABLE } from "../nonce-window.ts";
import { documentOf } from "./document.ts";
import type { Entry } from "./draft.ts";
import { isKept, type LeaseEntry } from "./events.ts";
import { SESSION_TABLE, SESSION_UNSURE } from "./session-table.ts";
import { isFinal, Job, Lease, type State, Tick } from "./state.ts";

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
  SESSION_UNSURE,
] as const;

/** Entries of the lease's own journal; past it only its status is written, however often its node comes and goes. */
const EVENT_LIMIT = 10_000;

/** Log lines kept per job; the rest are passed on to who is watching, and gone. */
const LOG_LIMIT = 2_000;

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

/** The tables of one lease. Every method is synchronous: writes without an await between them commit together. */
export class LeaseStore {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    migrate(sql, MIGRATIONS);
  }

  /** The lease and its live jobs; `null` in a fresh (or forgotten) object. */
  load(): State | null {
    const [row] = this.#sql.exec<{ doc: string }>("SELECT doc FROM lease").toArray();
    if (row === undefined) return null;
    const jobs = this.#sql.exec<JobRow>("SELECT request, doc FROM jobs WHERE live = 1").toArray().map(jobOf);
    return { lease: Lease.parse(JSON.parse(row.doc)), jobs: new Map(jobs.map((job) => [job.id, job])) };
  }

  job(id: JobId): Job | null {
    const [row] = this.#sql.exec<JobRow>("SELECT request, doc FROM jobs WHERE id = ?", id).toArray();
    return row === undefined ? null : jobOf(row);
  }

  /** Every job that was asked for under a session, ended or not. */
  jobsOfSession(session: SessionId): Job[] {
    return this.#sql
      .exec<JobRow>("SELECT request, doc FROM jobs WHERE json_extract(doc, '$.session') = ?", session)
      .toArray()
      .map(jobOf);
  }

  saveLease(lease: Lease): void {
    this.#sql.exec(
      "INSERT INTO lease (id, status, doc) VALUES (1, ?, ?) ON CONFLICT DO UPDATE SET status = excluded.status, doc = excluded.doc",
      lease.status,
      documentOf(lease),
    );
  }

  /** Of a dedicated lease: billed time that a voucher covers. */
  saveTick(tick: Tick): void {
    const { sequence } = tick.receipt.receipt;
    this.#sql.exec("INSERT OR REPLACE INTO ticks (sequence, doc) VALUES (?, ?)", sequence, documentOf(tick));
  }

  ticks(after: number, limit: number): Tick[] {
    return this.#sql
      .exec<{ doc: string }>(
        "SELECT doc FROM ticks WHERE sequence > ? ORDER BY sequence LIMIT ?",
        after,
        limit,
      )
      .toArray()
      .map(({ doc }) => Tick.parse(JSON.parse(doc)));
  }

  /** Jobs never leave the table with their lease alive. */
  saveJob(job: Job, isNew: boolean): void {
    // The request never changes, so it is written once; the rest of the job whenever it has.
    const { request, ...rest } = job;
    const doc = documentOf(rest);
    const live = isFinal(job) ? 0 : 1;
    if (isNew)
      this.#sql.exec(
        "INSERT INTO jobs (id, n, status, price, live, request, doc) VALUES (?, ?, ?, ?, ?, ?, ?)",
        job.id,
        job.n,
        job.status,
        job.price.toString(),
        live,
        documentOf(request),
        doc,
      );
    else
      this.#sql.exec(
        "UPDATE jobs SET status = ?, price = ?, live = ?, doc = ? WHERE id = ?",
        job.status,
        job.price.toString(),
        live,
        doc,
        job.id,
      );
  }

  /** Numbers the entries and keeps them, in one statement; answers them as the events that readers get. */
  append(entries: readonly Dated[]): JobEvent[] {
    const kept = this.#withinLogLimit(entries);
    const last = this.lastEvent();
    if (kept.length === 0) return [];
    this.#sql.exec(
      `INSERT INTO journal (id, job, at, type, data)
         SELECT ? + key + 1, value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?)`,
      last,
      JSON.stringify(kept.map(({ entry, at }) => [entry.job, at, entry.type, JSON.stringify(entry.data)])),
    );
    return kept.map(({ entry, at }, i) => eventOf(entry, last + i + 1, at));
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
    return this.#sql
      .exec<{ n: number }>("SELECT count(*) AS n FROM journal WHERE job = ? AND type = 'log'", job)
      .one().n;
  }

  events(job: JobId, after: number, limit: number): JobEvent[] {
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

  /** As {@link append}, for the lease itself; an entry that is not kept bears the last number. */
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

  lastEvent(): number {
    return this.#sql.exec<{ id: number | null }>("SELECT max(id) AS id FROM journal").one().id ?? 0;
  }
}

function jobOf(row: JobRow): Job {
  return Job.parse({ ...JSON.parse(row.doc), request: JSON.parse(row.request) });
}

export function eventOf(entry: Entry, id: number, now: number): JobEvent {
  return { id, job: entry.job, at: new Date(now).toISOString(), type: entry.type, data: { ...entry.data } };
}
