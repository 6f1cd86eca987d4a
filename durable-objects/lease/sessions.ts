import type { JobId } from "@gpux/protocol/ids";
import type { SessionId } from "@gpux/protocol/session";
import type { Caller, Carried, Outcome, Refused } from "../interfaces.ts";
import { SILENT_MS } from "./ending.ts";
import { isTerminal, type Job } from "./job-state.ts";
import { isOver, type State } from "./state.ts";

/** A session that this lease's Account has vouched for, or has revoked. */
export interface SessionRow {
  readonly id: SessionId;
  /** What the Account has set aside of the session's cap for this lease. */
  readonly ceiling: bigint;
  /** Milliseconds: no token of the session counts after this, so neither does what is remembered here. */
  readonly until: number;
  readonly revoked: boolean;
  /** Of the ceiling, what jobs may have used that a crash took and their agent may yet bring back. */
  readonly unsure: bigint;
  /** The number of the Account's last word on the ceiling; what comes with a lower one is late. */
  readonly turn: number;
}

/** Where they are kept: what was kept is there after a crash. */
export interface SessionRows {
  all(): readonly SessionRow[];
  keep(row: SessionRow): void;
  forget(session: SessionId): void;
}

/**
 * Whether the agent may yet bring back a job by its ticket that a crash took (SPEC ACK-5). `isConnected`: it is, to this
 * life; the rows of one that has just begun may still say so of the life before.
 */
export function mayBringBack({ lease }: State, isConnected: boolean, now: number): boolean {
  if (isOver(lease)) return false;
  return !isConnected || lease.awayAt !== null || now < (lease.metAt ?? 0) + SILENT_MS;
}

/** Of a job, what a session's tally counts. */
export type CountedJob = Pick<Job, "id" | "status" | "price" | "move"> & {
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
  readonly #kept: SessionRows;
  readonly #ofSession: (session: SessionId) => readonly CountedJob[];
  readonly #rows: Map<SessionId, SessionRow>;
  readonly #tallies = new Map<SessionId, Tally>();
  readonly #isSure: () => boolean;

  /**
   * `ofSession`: every job that was asked for under a session, as the tables have them. `isSure`: the agent has brought
   * back all that it will ({@link mayBringBack}).
   */
  constructor(
    kept: SessionRows,
    ofSession: (session: SessionId) => readonly CountedJob[],
    isSure: () => boolean,
  ) {
    this.#kept = kept;
    this.#ofSession = ofSession;
    this.#isSure = isSure;
    this.#rows = new Map(kept.all().map((row) => [row.id, row]));
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

  /**
   * A life has ended in which jobs may have been answered and not written down: all that was set aside counts as used,
   * until they are back or can come no more. Else others would be taken in for the same money, here or elsewhere.
   */
  doubt(): void {
    for (const row of this.#rows.values()) {
      const { spent, reserved } = this.#tally(row.id);
      const unsure = row.ceiling - spent - reserved;
      if (!row.revoked && unsure > 0n) this.#keep({ ...row, unsure });
    }
  }

  /** The ceiling that another job of `maxPrice` needs; null when the one that is set aside is enough. */
  needs(session: SessionId, maxPrice: bigint): bigint | null {
    const ceiling = this.#rows.get(session)?.ceiling ?? 0n;
    const { spent, reserved } = this.#tally(session);
    const needed = spent + reserved + this.#unsure(session) + maxPrice;
    return needed <= ceiling ? null : needed;
  }

  /** A job was taken in under the session; it says so itself in its document. */
  take(session: SessionId, job: JobId, maxPrice: bigint): void {
    reserve(this.#tally(session), job, maxPrice);
  }

  /** Whether another lease's job may come here under its session: vouched for already, with enough set aside. */
  mayAdopt({ session, request, past }: Carried): boolean {
    if (session === null) return true;
    const row = this.#rows.get(session);
    return row?.revoked === false && this.needs(session, request.max_price - past.price) === null;
  }

  adopted({ session, job, request, past }: Carried): void {
    if (session !== null) this.take(session, job, request.max_price - past.price);
  }

  /** As {@link take}, of one that a crash took and its agent brought back. */
  takeBack(session: SessionId, job: JobId, maxPrice: bigint): void {
    this.take(session, job, maxPrice);
    const row = this.#rows.get(session);
    if (row === undefined || row.unsure === 0n) return;
    this.#keep({ ...row, unsure: row.unsure > maxPrice ? row.unsure - maxPrice : 0n });
  }

  /** One of its jobs has ended: what it did not use may be used by others. */
  ended(job: Pick<Job, "id" | "session" | "price">): void {
    // Of a session that has not asked since this life began, the rows are counted when it does.
    const tally = job.session === null ? undefined : this.#tallies.get(job.session);
    if (tally !== undefined) spend(tally, job);
  }

  /**
   * The Account vouches for a session. A revocation that came first stands, and so does a later word of the Account
   * ({@link trim}): it has set aside no more than that says.
   */
  admit(session: SessionId, until: number, ceiling: bigint, turn: number, now: number): Outcome {
    const known = this.#rows.get(session);
    if (known?.revoked) return { ok: false, code: "session_revoked" };
    if (turn < (known?.turn ?? 0))
      return { ok: false, code: "session_cap_exceeded", detail: "it was taken back meanwhile" };
    for (const row of this.#rows.values()) if (row.until < now) this.#forget(row.id);
    this.#keep({ id: session, ceiling, until, revoked: false, unsure: known?.unsure ?? 0n, turn });
    return { ok: true };
  }

  /** Gives back what the session's jobs cannot use up any more; answers what they can. */
  trim(session: SessionId, until: number, turn: number): bigint {
    const { spent, reserved } = this.#tally(session);
    const committed = spent + reserved + this.#unsure(session);
    const row = this.#rows.get(session) ?? {
      id: session,
      ceiling: 0n,
      until,
      revoked: false,
      unsure: 0n,
      turn: 0,
    };
    if (!row.revoked && turn >= row.turn)
      this.#keep({ ...row, ceiling: row.ceiling > committed ? committed : row.ceiling, turn });
    return committed;
  }

  revoke(session: SessionId, until: number): void {
    const turn = this.#rows.get(session)?.turn ?? 0;
    this.#keep({ id: session, ceiling: 0n, until, revoked: true, unsure: 0n, turn });
  }

  #unsure(session: SessionId): bigint {
    const row = this.#rows.get(session);
    if (row === undefined || row.unsure === 0n) return 0n;
    if (!this.#isSure()) return row.unsure;
    this.#keep({ ...row, unsure: 0n });
    return 0n;
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

  #keep(row: SessionRow): void {
    this.#rows.set(row.id, row);
    this.#kept.keep(row);
  }

  #forget(session: SessionId): void {
    this.#rows.delete(session);
    this.#tallies.delete(session);
    this.#kept.forget(session);
  }
}
