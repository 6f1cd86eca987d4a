import { LeaseId } from "@gpux/protocol/ids";
import { Amount } from "@gpux/protocol/money";
import {
  type SessionGrant,
  SessionId,
  SessionKey,
  SessionScope,
  type SessionView,
} from "@gpux/protocol/session";
import { z } from "zod";
import type { LeaseRpc, Outcome, Principal, Refused } from "../interfaces.ts";
import { freeOf, missingAt, type Place, sessionRefusal, setAside, untoldLeases } from "./session-cap.ts";

/** Steps for the Account's migrations. Amounts are TEXT. */
export const SESSION_TABLES = [
  `CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    scopes TEXT NOT NULL,
    cap TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER
  ) WITHOUT ROWID`,
  `CREATE TABLE session_leases (
    session TEXT NOT NULL,
    lease TEXT NOT NULL,
    reserved TEXT NOT NULL,
    told INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (session, lease)
  ) WITHOUT ROWID`,
] as const;

/** See {@link AccountSessions}: rises with each word to the lease about the session. */
export const SESSION_TURN = "ALTER TABLE session_leases ADD COLUMN turn INTEGER NOT NULL DEFAULT 0";

/** Sessions that have not ended: whoever needs more has lost count of them. */
export const MAX_SESSIONS = 64;
/** Over sessions are shown so long. */
const KEEP_MS = 24 * 3_600_000;
const FIRST_RETRY_MS = 2_000;
const LAST_RETRY_MS = 300_000;

const json = <Schema extends z.ZodType>(schema: Schema) =>
  z.string().transform((text) => schema.parse(JSON.parse(text)));
const Row = z.strictObject({
  id: SessionId,
  key: json(SessionKey),
  scopes: json(z.array(SessionScope)),
  cap: Amount,
  createdAt: z.int(),
  expiresAt: z.int(),
  revokedAt: z.int().nullable(),
});
type Row = z.output<typeof Row>;
const PlaceRow = z.strictObject({
  lease: LeaseId,
  reserved: Amount,
  told: z.int().transform((flag) => flag === 1),
});

/** What is asked of leases here. */
interface Leases {
  getByName(id: LeaseId): Pick<LeaseRpc, "admitSession" | "trimSession" | "revokeSession">;
}

/**
 * The sessions of one wallet (SPEC SES-*). What a session may spend is set aside here per lease before the lease lets
 * it spend, so that all leases together never pass the cap; a revocation is told to every lease that was told of the
 * session. Each word to a lease about what is set aside bears a higher number than the one before, kept first: a call
 * may arrive long after the life that made it, and would raise again what a later life took back.
 */
export class AccountSessions {
  readonly #sql: SqlStorage;
  readonly #leases: Leases;
  /** Reservations are made one after another: each reads what the others have set aside. */
  #turn: Promise<unknown> = Promise.resolve();
  #retryMs = FIRST_RETRY_MS;

  constructor(sql: SqlStorage, leases: Leases) {
    this.#sql = sql;
    this.#leases = leases;
  }

  open(grant: SessionGrant, now: number): Outcome<{ session: SessionView }> {
    this.#sql.exec(
      "DELETE FROM session_leases WHERE session IN (SELECT id FROM sessions WHERE expires_at <= ?)",
      now - KEEP_MS,
    );
    this.#sql.exec("DELETE FROM sessions WHERE expires_at <= ?", now - KEEP_MS);
    const live = this.#rows().filter((row) => row.expiresAt > now && row.revokedAt === null);
    if (live.length >= MAX_SESSIONS) return { ok: false, code: "too_many_sessions" };
    this.#sql.exec(
      "INSERT INTO sessions (id, key, scopes, cap, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
      grant.id,
      JSON.stringify(grant.key),
      JSON.stringify(grant.scopes),
      grant.cap.toString(),
      now,
      grant.expires * 1_000,
    );
    return this.view(grant.id);
  }

  view(id: SessionId): Outcome<{ session: SessionView }> {
    const row = this.#row(id);
    return row === null ? { ok: false, code: "session_unknown" } : { ok: true, session: this.#viewOf(row) };
  }

  list(): SessionView[] {
    return this.#rows().map((row) => this.#viewOf(row));
  }

  /** Why the principal's session may do nothing any more; null when it stands, and for the wallet itself. */
  refusal({ session }: Principal, now: number): Refused | null {
    return session === undefined ? null : sessionRefusal(this.#row(session.id), now);
  }

  /** See AccountRpc. */
  admit(by: Principal, lease: LeaseId, needs: bigint, now = Date.now()): Promise<Outcome> {
    const admitted = this.#turn.then(() => this.#admit(by, lease, needs, now));
    this.#turn = admitted.catch(() => undefined);
    return admitted;
  }

  async #admit(by: Principal, lease: LeaseId, needs: bigint, now: number): Promise<Outcome> {
    const refused = this.refusal(by, now);
    const row = by.session === undefined ? null : this.#row(by.session.id);
    if (refused !== null || row === null) return refused ?? { ok: false, code: "session_unknown" };
    const places = this.#places(row.id);
    if (missingAt(lease, places, needs) > freeOf(row, places)) await this.#trim(row, lease);
    // It may have been revoked meanwhile, and those leases told that were known then.
    const late = this.refusal(by, now);
    if (late !== null) return late;
    const aside = setAside(row, this.#places(row.id), lease, needs);
    if (!aside.ok) return aside;
    const { reserved } = aside;
    // Before the lease hears of it: whatever happens between, no more than this can be spent there.
    const turn = this.#reserve(row.id, lease, reserved);
    const admitted = await this.#leases.getByName(lease).admitSession(row.id, row.expiresAt, reserved, turn);
    // An RPC's answer carries a disposer. Handed on, it would keep this object from leaving memory until called.
    return structuredClone(admitted);
  }

  /** Takes back from the other leases what was set aside there and is not used. */
  async #trim(row: Row, besides: LeaseId): Promise<void> {
    for (const { lease, reserved } of this.#places(row.id)) {
      if (lease === besides || reserved === 0n) continue;
      const turn = this.#reserve(row.id, lease, reserved);
      const used = await this.#leases.getByName(lease).trimSession(row.id, row.expiresAt, turn);
      if (used !== null && used < reserved) this.#reserve(row.id, lease, used);
    }
  }

  /** False when there is none. The leases are yet to be told ({@link tell}). */
  revoke(id: SessionId, now: number): boolean {
    if (this.#row(id) === null) return false;
    this.#sql.exec("UPDATE sessions SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", now, id);
    this.#retryMs = FIRST_RETRY_MS;
    return true;
  }

  /** Tells leases of revocations; answers when to try again (ms from now), null when all have heard. */
  async tell(now: number): Promise<number | null> {
    const untold = this.#untold(now);
    await Promise.all(
      untold.map(async ({ session, until, lease }) => {
        try {
          await this.#leases.getByName(lease).revokeSession(session, until);
          this.#sql.exec(
            "UPDATE session_leases SET told = 1 WHERE session = ? AND lease = ?",
            session,
            lease,
          );
        } catch (error) {
          console.error(JSON.stringify({ event: "revocation_untold", session, lease, error: String(error) }));
        }
      }),
    );
    if (this.#untold(now).length === 0) return null;
    const wait = this.#retryMs;
    this.#retryMs = Math.min(this.#retryMs * 2, LAST_RETRY_MS);
    return wait;
  }

  /** When leases must be told of a revocation again, milliseconds; null when all have heard. */
  dueAt(now: number): number | null {
    return this.#untold(now).length === 0 ? null : now + this.#retryMs;
  }

  #untold(now: number): { session: SessionId; until: number; lease: LeaseId }[] {
    return this.#rows().flatMap((row) =>
      untoldLeases(row, this.#places(row.id), now).map((lease) => ({
        session: row.id,
        until: row.expiresAt,
        lease,
      })),
    );
  }

  /** Answers the number of what the lease is to be told of it. */
  #reserve(session: SessionId, lease: LeaseId, reserved: bigint): number {
    const { turn } = this.#sql
      .exec(
        `INSERT INTO session_leases (session, lease, reserved, turn) VALUES (?, ?, ?, 1)
         ON CONFLICT DO UPDATE SET reserved = excluded.reserved, turn = turn + 1 RETURNING turn`,
        session,
        lease,
        reserved.toString(),
      )
      .one();
    return z.int().parse(turn);
  }

  #viewOf(row: Row): SessionView {
    const places = this.#places(row.id);
    return {
      id: row.id,
      object: "session",
      key: row.key,
      scopes: row.scopes,
      cap: row.cap,
      reserved: places.reduce((sum, place) => sum + place.reserved, 0n),
      created_at: new Date(row.createdAt).toISOString(),
      expires_at: new Date(row.expiresAt).toISOString(),
      revoked_at: row.revokedAt === null ? null : new Date(row.revokedAt).toISOString(),
      untold_leases: row.revokedAt === null ? 0 : places.filter(({ told }) => !told).length,
    };
  }

  #row(id: SessionId): Row | null {
    return this.#rows().find((row) => row.id === id) ?? null;
  }

  #rows(): Row[] {
    return this.#sql
      .exec(
        `SELECT id, key, scopes, cap, created_at AS createdAt, expires_at AS expiresAt, revoked_at AS revokedAt
         FROM sessions ORDER BY created_at DESC, id`,
      )
      .toArray()
      .map((row) => Row.parse(row));
  }

  #places(session: SessionId): Place[] {
    return this.#sql
      .exec("SELECT lease, reserved, told FROM session_leases WHERE session = ?", session)
      .toArray()
      .map((place) => PlaceRow.parse(place));
  }
}
