import { JobId, LeaseId, Sha256 } from "@gpux/protocol/ids";
import { QuoteText } from "@gpux/protocol/lease";
import { z } from "zod";
import { migrate } from "../migrations.ts";
import { NONCE_TABLE } from "../nonce-window.ts";
import { type AccountLease, type KeyEntry, RETENTION_MS } from "./machine.ts";
import { SESSION_TABLES } from "./sessions.ts";

const STEPS = [
  NONCE_TABLE,
  `CREATE TABLE keys (
    scope TEXT PRIMARY KEY,
    body_hash TEXT NOT NULL,
    state TEXT NOT NULL,
    job TEXT,
    lease TEXT,
    since INTEGER NOT NULL
  ) WITHOUT ROWID`,
  "CREATE INDEX keys_by_age ON keys (since)",
  `CREATE TABLE leases (
    id TEXT PRIMARY KEY,
    phase TEXT NOT NULL,
    text TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL
  ) WITHOUT ROWID`,
  "CREATE INDEX leases_by_phase ON leases (phase, expires_at)",
  ...SESSION_TABLES,
];

/** Results are kept this long, so client-made ids and leases are too. */
const JOB_RETENTION_MS = 7 * 24 * 3_600_000;

const KeyHead = { bodyHash: Sha256, since: z.int() };
const Chosen = z.strictObject({ job: JobId, lease: LeaseId });
const KeyRow = z.discriminatedUnion("state", [
  z.strictObject({ ...KeyHead, state: z.literal("pending"), chosen: Chosen.nullable() }),
  z.strictObject({ ...KeyHead, state: z.literal("done"), chosen: Chosen }),
]);
const LeaseRow = z.strictObject({
  id: LeaseId,
  phase: z.enum(["quoted", "open", "ended"]),
  text: z.string().transform((text) => QuoteText.parse(JSON.parse(text))),
  expiresAt: z.int(),
  createdAt: z.int(),
});

/** One account's tables; each read goes to SQL, because an account is asked seldom and remembers much. */
export class AccountStore {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    migrate(sql, STEPS);
    this.#sql = sql;
  }

  key(scope: string): KeyEntry | null {
    const row = this.#sql
      .exec<{ bodyHash: string; state: string; job: string | null; lease: string | null; since: number }>(
        "SELECT body_hash AS bodyHash, state, job, lease, since FROM keys WHERE scope = ?",
        scope,
      )
      .toArray()[0];
    if (row === undefined) return null;
    const { job, lease, ...head } = row;
    return KeyRow.parse({ ...head, chosen: job === null ? null : { job, lease } });
  }

  saveKey(scope: string, entry: KeyEntry | null): void {
    if (entry === null) {
      this.#sql.exec("DELETE FROM keys WHERE scope = ?", scope);
      return;
    }
    this.#sql.exec(
      "INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?, ?)",
      scope,
      entry.bodyHash,
      entry.state,
      entry.chosen?.job ?? null,
      entry.chosen?.lease ?? null,
      entry.since,
    );
  }

  lease(id: LeaseId): AccountLease | null {
    const row = this.#sql
      .exec(
        "SELECT id, phase, text, expires_at AS expiresAt, created_at AS createdAt FROM leases WHERE id = ?",
        id,
      )
      .toArray()[0];
    return row === undefined ? null : LeaseRow.parse(row);
  }

  /** Those that a quota or a job could ask for: quoted or open, not over by the clock. */
  liveLeases(now: number): AccountLease[] {
    return this.#sql
      .exec(
        `SELECT id, phase, text, expires_at AS expiresAt, created_at AS createdAt FROM leases
         WHERE phase IN ('quoted', 'open') AND expires_at > ? ORDER BY created_at DESC, id`,
        now,
      )
      .toArray()
      .map((row) => LeaseRow.parse(row));
  }

  saveLease(lease: AccountLease): void {
    this.#sql.exec(
      "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)",
      lease.id,
      lease.phase,
      JSON.stringify(lease.text),
      lease.expiresAt,
      lease.createdAt,
    );
  }

  endLease(id: LeaseId): void {
    this.#sql.exec("UPDATE leases SET phase = 'ended' WHERE id = ?", id);
  }

  /** What nobody can ask for any more; called where something is written anyway, so that no alarm is needed. */
  prune(now: number): void {
    this.#sql.exec(
      "DELETE FROM keys WHERE since <= ? AND (since <= ? OR scope NOT GLOB 'id:*')",
      now - RETENTION_MS,
      now - JOB_RETENTION_MS,
    );
    this.#sql.exec("DELETE FROM leases WHERE phase = 'quoted' AND expires_at <= ?", now - RETENTION_MS);
    this.#sql.exec("DELETE FROM leases WHERE expires_at <= ?", now - JOB_RETENTION_MS);
  }
}
