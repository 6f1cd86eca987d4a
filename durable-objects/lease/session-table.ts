import { Amount } from "@gpux/protocol/money";
import { SessionId } from "@gpux/protocol/session";
import { z } from "zod";
import type { SessionRow, SessionRows } from "./sessions.ts";

/** Of sessions that this lease's Account has vouched for, or has revoked. Put all steps into the migrations. */
export const SESSION_TABLE =
  "CREATE TABLE sessions (id TEXT PRIMARY KEY, ceiling TEXT NOT NULL, until INTEGER NOT NULL, revoked INTEGER NOT NULL) WITHOUT ROWID";

export const SESSION_UNSURE = "ALTER TABLE sessions ADD COLUMN unsure TEXT NOT NULL DEFAULT '0'";

export const SESSION_TURN = "ALTER TABLE sessions ADD COLUMN turn INTEGER NOT NULL DEFAULT 0";

const Row = z.strictObject({
  id: SessionId,
  ceiling: Amount,
  until: z.int(),
  revoked: z.int().transform((flag) => flag === 1),
  unsure: Amount,
  turn: z.int(),
});

/** The lease's table of sessions. */
export class SessionTable implements SessionRows {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
  }

  all(): SessionRow[] {
    const rows = this.#sql.exec("SELECT id, ceiling, until, revoked, unsure, turn FROM sessions").toArray();
    return rows.map((row) => Row.parse(row));
  }

  keep(row: SessionRow): void {
    this.#sql.exec(
      "INSERT OR REPLACE INTO sessions (id, ceiling, until, revoked, unsure, turn) VALUES (?, ?, ?, ?, ?, ?)",
      row.id,
      row.ceiling.toString(),
      row.until,
      row.revoked ? 1 : 0,
      row.unsure.toString(),
      row.turn,
    );
  }

  forget(session: SessionId): void {
    this.#sql.exec("DELETE FROM sessions WHERE id = ?", session);
  }
}
