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

/** What a session's jobs on this lease have cost, and what those that have not ended may. */
interface Tally {
  spent: bigint;
  readonly open: Map<JobId, bigint>;
}

/** Where the lease's jobs are looked up: in memory or in its tables. */
export interface SessionJobs {
  find(id: JobId): Job | null;
  ofSession(session: SessionId): Job[];
}

/**
 * Sessions on one lease (SPEC SES-*). A session is nobody here until the Account has vouched for it, and the Account
 * tells those leases, and no other, of a revocation: so the warm path asks neither Account nor any store.
 */
export class LeaseSessions {
  readonly #sql: SqlStorage;
  readonly #jobs: SessionJobs;
  readonly #rows: Map<SessionId, Row>;
  readonly #tallies = new Map<SessionId, Tally>();

  constructor(sql: SqlStorage, jobs: SessionJobs) {
    this.#sql = sql;
    this.#jobs = jobs;
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
    if (this.#committed(session) + maxPrice <= ceiling) return null;
    // Only now, since most jobs cost less than they might have.
    this.#settle(session);
    const needed = this.#committed(session) + maxPrice;
    return needed <= ceiling ? null : needed;
  }

  /** A job was taken in under the session; it says so itself in its document. */
  take(session: SessionId, job: JobId, maxPrice: bigint): void {
    this.#tally(session).open.set(job, maxPrice);
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
    this.#settle(session);
    const committed = this.#committed(session);
    const row = this.#rows.get(session);
    if (row !== undefined && row.ceiling > committed) this.#keep({ ...row, ceiling: committed });
    return committed;
  }

  revoke(session: SessionId, until: number): void {
    this.#keep({ id: session, ceiling: 0n, until, revoked: true });
  }

  #committed(session: SessionId): bigint {
    const { spent, open } = this.#tally(session);
    return open.values().reduce((sum, maxPrice) => sum + maxPrice, spent);
  }

  #settle(session: SessionId): void {
    const tally = this.#tally(session);
    for (const id of tally.open.keys()) {
      const job = this.#jobs.find(id);
      if (job === null || !isTerminal(job)) continue;
      tally.open.delete(id);
      tally.spent += job.price;
    }
  }

  #tally(session: SessionId): Tally {
    const known = this.#tallies.get(session);
    if (known !== undefined) return known;
    const tally: Tally = { spent: 0n, open: new Map() };
    for (const job of this.#jobs.ofSession(session))
      if (isTerminal(job)) tally.spent += job.price;
      else tally.open.set(job.id, job.request.max_price);
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
