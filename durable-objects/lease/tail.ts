import type { JobId } from "@gpux/protocol/ids";
import { wireText } from "@gpux/protocol/wire";
import type { Entry } from "./draft.ts";
import { isFinal, type Job } from "./job-state.ts";
import type { Lease, Tick } from "./state.ts";

/**
 * What a lease has written and not put into its tables yet, a row for each write. A row of one table costs a statement
 * and the pages of its indexes; so a write is one row of text, and the text of many is folded into the tables at once,
 * by SQLite itself: a job that begins, ends and is settled meanwhile comes there once.
 */
export const TAIL_TABLE =
  "CREATE TABLE tail (id INTEGER PRIMARY KEY, status TEXT, lease TEXT, doc TEXT NOT NULL)";

const LEASE = `INSERT INTO lease (id, status, doc)
   SELECT 1, status, lease FROM tail WHERE lease IS NOT NULL ORDER BY id DESC LIMIT 1
   ON CONFLICT DO UPDATE SET status = excluded.status, doc = excluded.doc`;
const TICKS = `INSERT OR REPLACE INTO ticks (sequence, doc)
   SELECT value ->> 0, value -> 1 FROM tail, json_each(tail.doc, '$.ticks') ORDER BY tail.id`;
const EMPTY = "DELETE FROM tail";
const COLUMNS = "id, n, status, price, live, request, doc";
/** The request never changes: it comes with the first of a job's rows. */
const AGAIN = `ON CONFLICT (id) DO UPDATE
   SET status = excluded.status, price = excluded.price, live = excluded.live, doc = excluded.doc`;
const LINES = "INSERT INTO journal (id, job, at, type, data)";

/** In order: brings the tables up to what another life left in the tail. A later row says more than an earlier one. */
const RECOVER = [
  LEASE,
  `INSERT INTO jobs (${COLUMNS})
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value -> 5, value -> 6
     FROM tail, json_each(tail.doc, '$.jobs') WHERE true ORDER BY tail.id ${AGAIN}`,
  `${LINES} SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value -> 4
     FROM tail, json_each(tail.doc, '$.journal')`,
  TICKS,
  EMPTY,
] as const;

/** Rows and jobs that a fold brings at most: more than a block of receipts, few enough for milliseconds. */
const FOLD_ROWS = 64;
const FOLD_JOBS = 128;
/** Jobs in one statement, which takes 100 parameters at most. */
const JOBS_AT_ONCE = 14;
/** Characters of a row: the platform takes 2 MB at most, and a job has 100 KB at most. */
const ROW_LENGTH = 400_000;

/** A line of a job's journal with its number. */
export interface Numbered {
  readonly id: number;
  readonly at: number;
  readonly entry: Entry;
}

/** What one write brings. `fresh`: jobs that no write has brought before. */
export interface Batch {
  readonly lease: Lease | null;
  readonly jobs: readonly Job[];
  readonly fresh: ReadonlySet<JobId>;
  readonly journal: readonly Numbered[];
  readonly ticks: readonly Tick[];
}

/** As it stands in the table of jobs. */
interface JobRow {
  readonly id: JobId;
  readonly n: number;
  readonly status: string;
  readonly price: string;
  readonly live: 0 | 1;
  /** Null: it was brought before. */
  readonly request: string | null;
  readonly doc: string;
}

/** The tail of one lease's tables. Every method is synchronous: writes without an await between them commit together. */
export class Tail {
  readonly #sql: SqlStorage;
  #rows = 0;
  #hasTicks = false;
  /** Those that it brought, as they are by now, and their rows. */
  readonly #jobs = new Map<JobId, { readonly job: Job; readonly row: JobRow }>();
  #lines: string[] = [];

  /** What another life left is folded at once. */
  constructor(sql: SqlStorage) {
    this.#sql = sql;
    if (sql.exec<{ n: number }>("SELECT count(*) AS n FROM tail").one().n > 0)
      for (const statement of RECOVER) sql.exec(statement);
  }

  job(id: JobId): Job | null {
    return this.#jobs.get(id)?.job ?? null;
  }

  append({ lease, jobs, fresh, journal, ticks }: Batch): void {
    const rows = jobs.map((job) => rowOf(job, fresh.has(job.id)));
    const lines = journal.map(lineText);
    const [status, doc] = lease === null ? [null, null] : [lease.status, wireText(lease)];
    let isFirst = true;
    for (const text of textsOf(rows, lines, ticks.map(tickText))) {
      const head = isFirst ? [status, doc] : [null, null];
      this.#sql.exec("INSERT INTO tail (status, lease, doc) VALUES (?, ?, ?)", ...head, text);
      this.#rows += 1;
      isFirst = false;
    }
    for (const [i, job] of jobs.entries()) {
      const row = rows[i];
      const request = row?.request ?? this.#jobs.get(job.id)?.row.request ?? null;
      if (row !== undefined) this.#jobs.set(job.id, { job, row: { ...row, request } });
    }
    this.#lines.push(...lines);
    this.#hasTicks ||= ticks.length > 0;
  }

  /** Whether it has grown so long that it is to be folded. */
  get isLong(): boolean {
    return this.#rows >= FOLD_ROWS || this.#jobs.size >= FOLD_JOBS;
  }

  /**
   * Before the tables are read. From memory, whose rows are those of the tail but for what was overtaken. What it brings
   * has been written before: should it throw, nothing of that is lost.
   */
  fold(): void {
    if (this.#rows === 0) return;
    this.#sql.exec(LEASE);
    const rows = Array.from(this.#jobs.values(), ({ row }) => row);
    for (let from = 0; from < rows.length; from += JOBS_AT_ONCE) {
      const some = rows.slice(from, from + JOBS_AT_ONCE);
      const places = some.map(() => "(?, ?, ?, ?, ?, ?, ?)").join(", ");
      const values = some.flatMap(({ id, n, status, price, live, request, doc }) => [
        ...[id, n, status, price, live],
        ...[request ?? "null", doc],
      ]);
      this.#sql.exec(`INSERT INTO jobs (${COLUMNS}) VALUES ${places} ${AGAIN}`, ...values);
    }
    if (this.#lines.length > 0)
      this.#sql.exec(
        `${LINES} SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value -> 4 FROM json_each(?)`,
        `[${this.#lines}]`,
      );
    if (this.#hasTicks) this.#sql.exec(TICKS);
    this.#sql.exec(EMPTY);
    this.#rows = 0;
    this.#hasTicks = false;
    this.#jobs.clear();
    this.#lines = [];
  }
}

/** One row's text, or several when one could not hold it. */
function* textsOf(
  jobs: readonly JobRow[],
  journal: readonly string[],
  ticks: readonly string[],
): Generator<string> {
  let items: Record<"jobs" | "journal" | "ticks", string[]> = { jobs: [], journal: [], ticks: [] };
  let length = 0;
  const text = () => `{"jobs":[${items.jobs}],"journal":[${items.journal}],"ticks":[${items.ticks}]}`;
  function* add(to: keyof typeof items, item: string): Generator<string> {
    if (length > 0 && length + item.length > ROW_LENGTH) {
      yield text();
      items = { jobs: [], journal: [], ticks: [] };
      length = 0;
    }
    items[to].push(item);
    length += item.length;
  }
  for (const row of jobs) yield* add("jobs", jobText(row));
  for (const line of journal) yield* add("journal", line);
  for (const tick of ticks) yield* add("ticks", tick);
  yield text();
}

function rowOf({ request, ...job }: Job, isFresh: boolean): JobRow {
  return {
    id: job.id,
    n: job.n,
    status: job.status,
    price: job.price.toString(),
    live: isFinal({ ...job, request }) ? 0 : 1,
    request: isFresh ? wireText(request) : null,
    doc: wireText(job),
  };
}

function jobText({ id, n, status, price, live, request, doc }: JobRow): string {
  return `["${id}",${n},"${status}","${price}",${live},${request},${doc}]`;
}

function lineText({ id, at, entry: { job, type, data } }: Numbered): string {
  return `[${id},"${job}",${at},"${type}",${JSON.stringify(data)}]`;
}

function tickText(tick: Tick): string {
  return `[${tick.receipt.receipt.sequence},${wireText(tick)}]`;
}
