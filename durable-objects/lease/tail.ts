import type { JobId } from "@gpux/protocol/ids";
import { documentOf } from "./document.ts";
import type { Entry } from "./draft.ts";
import { isFinal, type Job, type Lease, type Tick } from "./state.ts";

/**
 * What a lease has written and not put into its tables yet, a row for each write. A row of one table costs a statement
 * and the pages of its indexes; so a write is one row of text, and the text of many is folded into the tables at once,
 * by SQLite itself: a job that begins, ends and is settled meanwhile comes there once.
 */
export const TAIL_TABLE =
  "CREATE TABLE tail (id INTEGER PRIMARY KEY, status TEXT, lease TEXT, doc TEXT NOT NULL)";

/** In order: brings the tables up to what the tail says, and empties it. A later row says more than an earlier one. */
export const FOLD = [
  `INSERT INTO lease (id, status, doc)
     SELECT 1, status, lease FROM tail WHERE lease IS NOT NULL ORDER BY id DESC LIMIT 1
   ON CONFLICT DO UPDATE SET status = excluded.status, doc = excluded.doc`,
  `INSERT INTO jobs (id, n, status, price, live, request, doc)
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value -> 5, value -> 6
     FROM tail, json_each(tail.doc, '$.jobs') WHERE true ORDER BY tail.id
   ON CONFLICT (id) DO UPDATE
     SET status = excluded.status, price = excluded.price, live = excluded.live, doc = excluded.doc`,
  `INSERT INTO journal (id, job, at, type, data)
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value -> 4
     FROM tail, json_each(tail.doc, '$.journal')`,
  `INSERT OR REPLACE INTO ticks (sequence, doc)
     SELECT value ->> 0, value -> 1 FROM tail, json_each(tail.doc, '$.ticks') ORDER BY tail.id`,
  "DELETE FROM tail",
] as const;

/** Rows and jobs that a fold brings at most: more than a block of receipts, few enough for milliseconds. */
const FOLD_ROWS = 64;
const FOLD_JOBS = 128;
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

/** The tail of one lease's tables. Every method is synchronous: writes without an await between them commit together. */
export class Tail {
  readonly #sql: SqlStorage;
  #rows: number;
  /** Those that it brought, as they are by now. */
  readonly #jobs = new Map<JobId, Job>();

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    this.#rows = sql.exec<{ n: number }>("SELECT count(*) AS n FROM tail").one().n;
  }

  job(id: JobId): Job | null {
    return this.#jobs.get(id) ?? null;
  }

  append(batch: Batch): void {
    let lease = batch.lease;
    for (const text of textsOf(batch)) {
      const [status, doc] = lease === null ? [null, null] : [lease.status, documentOf(lease)];
      this.#sql.exec("INSERT INTO tail (status, lease, doc) VALUES (?, ?, ?)", status, doc, text);
      this.#rows += 1;
      lease = null;
    }
    for (const job of batch.jobs) this.#jobs.set(job.id, job);
  }

  /** Whether it has grown so long that it is to be folded. */
  get isLong(): boolean {
    return this.#rows >= FOLD_ROWS || this.#jobs.size >= FOLD_JOBS;
  }

  /** Before the tables are read. What it brings has been written before: should it throw, nothing of that is lost. */
  fold(): void {
    if (this.#rows === 0) return;
    for (const statement of FOLD) this.#sql.exec(statement);
    this.#rows = 0;
    this.#jobs.clear();
  }
}

/** One row's text, or several when one could not hold it. */
function* textsOf({ jobs, fresh, journal, ticks }: Batch): Generator<string> {
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
  for (const job of jobs) yield* add("jobs", jobText(job, fresh.has(job.id)));
  for (const line of journal) yield* add("journal", lineText(line));
  for (const tick of ticks) yield* add("ticks", `[${tick.receipt.receipt.sequence},${documentOf(tick)}]`);
  yield text();
}

/** The request never changes, so it is brought once. */
function jobText({ request, ...job }: Job, isFresh: boolean): string {
  const { id, n, status, price } = job;
  const live = isFinal({ ...job, request }) ? 0 : 1;
  return `["${id}",${n},"${status}","${price}",${live},${isFresh ? documentOf(request) : "null"},${documentOf(job)}]`;
}

function lineText({ id, at, entry: { job, type, data } }: Numbered): string {
  return `[${id},"${job}",${at},"${type}",${JSON.stringify(data)}]`;
}
