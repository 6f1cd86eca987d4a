import type { JobId } from "@gpux/protocol/ids";
import { Amount } from "@gpux/protocol/money";
import { SessionId } from "@gpux/protocol/session";
import { z } from "zod";
import type { Caller, Outcome, Refused } from "../interfaces.ts";
import { isTerminal, type Job } from "./state.ts";

/** Of sessions that this lease's Account has vouched for, or has revoked. Put this step into the migrations. */
export const SESSION_TABLE =
  "CREATE TABLE sessions (id TEXT PRIMARY KEY, ceiling TEXT NOT NULL, until INTEGER NOT NULL, revoked INTEGER NOT NULL) WITHOUT ROWID";

const Row = z.strictObject({
  id: SessionId,
  /** What the Account has set aside of the session's cap for this lease. */
  ceiling: Amount,
  /** Milliseconds: no token of the session counts after this, so neither does what is remembered here. */
  until: z.int(),
  revoked: z.int().transform((flag) => flag === 1),
});
type Row = z.output<typeof Row>;

/** Of a job, what a session's tally counts. */
export type CountedJob = Pick<Job, "id" | "status" | "price"> & {
  readonly request: Pick<Job["request"], "max_price">;
};

/** What a session's jobs on this lease have cost, and what those that have not ended may. */
interface Tally {
  spent: bigint;
  readonly open: Map<JobId, bigint>;
  /** The sum of `open`, which is asked for with every job. */
  reserved: bigint;
}

function reserve(tally: Tally, job: JobId, maxPrice: bigint): void {
  tally.reserved += maxPrice - (tally.open.get(job) ?? 0n);
  tally.open.set(job, maxPrice);
}

function spend(tally: Tally, { id, price }: Pick<Job, "id" | "price">): void {
  const maxPrice = tally.open.get(id);
  if (maxPrice === undefined) return;
  tally.open.delete(id);
  tally.reserved -= maxPrice;
  tally.spent += price;
}

/**
 * Sessions on one lease (SPEC SES-*). A session is nobody here until the Account has vouched for it, and the Account
 * tells those leases, and no other, of a revocation: so the warm path asks neither Account nor any store.
 */
export class LeaseSessions {
  readonly #sql: SqlStorage;
  readonly #ofSession: (session: SessionId) => readonly CountedJob[];
  readonly #rows: Map<SessionId, Row>;
  readonly #tallies = new Map<SessionId, Tally>();

  /** `ofSession`: every job that was asked for under a session, as the tables have them. */
  constructor(sql: SqlStorage, ofSession: (session: SessionId) => readonly CountedJob[]) {
    this.#sql = sql;
    this.#ofSession = ofSession;
    const rows = sql.exec("SELECT id, ceiling, until, revoked FROM sessions").toArray();
    this.#rows = new Map(rows.map((row) => Row.parse(row)).map((row) => [row.id, row]));
  }

  /** Why a caller that comes by a session may not be heard; null for wallets. */
  refusal(as: Caller): Refused | null {
    if (typeof as === "string") return null;
    const row = this.#rows.get(as.session);
    if (row === undefined) return { ok: false, code: "session_unknown" };
    return row.revoked ? { ok: false, code: "session_revoked" } : null;
  }

  /** When the session's grant ends, milliseconds; null when nobody has vouched for it here. */
  endOf(session: SessionId): number | null {
    return this.#rows.get(session)?.until ?? null;
  }

  /** The ceiling that another job of `maxPrice` needs; null when the one that is set aside is enough. */
  needs(session: SessionId, maxPrice: bigint): bigint | null {
    const ceiling = this.#rows.get(session)?.ceiling ?? 0n;
    const { spent, reserved } = this.#tally(session);
    const needed = spent + reserved + maxPrice;
    return needed <= ceiling ? null : needed;
  }

  /** A job was taken in under the session; it says so itself in its document. */
  take(session: SessionId, job: JobId, maxPrice: bigint): void {
    reserve(this.#tally(session), job, maxPrice);
  }

  /** One of its jobs has ended: what it did not use may be used by others. */
  ended(job: Pick<Job, "id" | "session" | "price">): void {
    // Of a session that has not asked since this life began, the rows are counted when it does.
    const tally = job.session === null ? undefined : this.#tallies.get(job.session);
    if (tally !== undefined) spend(tally, job);
  }

  /** The Account vouches for a session. A revocation that came first stands. */
  admit(session: SessionId, until: number, ceiling: bigint, now: number): Outcome {
    const known = this.#rows.get(session);
    if (known?.revoked) return { ok: false, code: "session_revoked" };
    for (const row of this.#rows.values()) if (row.until < now) this.#forget(row.id);
    this.#keep({ id: session, ceiling, until, revoked: false });
    return { ok: true };
  }

  /** Gives back what the session's jobs cannot use up any more; answers what they can. */
  trim(session: SessionId): bigint {
    const { spent, reserved } = this.#tally(session);
    const committed = spent + reserved;
    const row = this.#rows.get(session);
    if (row !== undefined && row.ceiling > committed) this.#keep({ ...row, ceiling: committed });
    return committed;
  }

  revoke(session: SessionId, until: number): void {
    this.#keep({ id: session, ceiling: 0n, until, revoked: true });
  }

  #tally(session: SessionId): Tally {
    const known = this.#tallies.get(session);
    if (known !== undefined) return known;
    const tally: Tally = { spent: 0n, open: new Map(), reserved: 0n };
    for (const job of this.#ofSession(session))
      if (isTerminal(job)) tally.spent += job.price;
      else reserve(tally, job.id, job.request.max_price);
    this.#tallies.set(session, tally);
    return tally;
  }

  #keep(row: Row): void {
    this.#rows.set(row.id, row);
    this.#sql.exec(
      "INSERT OR REPLACE INTO sessions (id, ceiling, until, revoked) VALUES (?, ?, ?, ?)",
      row.id,
      row.ceiling.toString(),
      row.until,
      row.revoked ? 1 : 0,
    );
  }

  #forget(session: SessionId): void {
    this.#rows.delete(session);
    this.#tallies.delete(session);
    this.#sql.exec("DELETE FROM sessions WHERE id = ?", session);
  }
}
