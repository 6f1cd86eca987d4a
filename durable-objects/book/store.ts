import { Verdict } from "@gpux/protocol/challenge/verdict";
import { Address } from "@gpux/protocol/ids";
import { Offer } from "@gpux/protocol/resources";
import { z } from "zod";
import type { BookEntry } from "../interfaces.ts";
import { migrate } from "../migrations.ts";
import { NEVER_SEEN, Presence } from "../presence.ts";
import { Sale } from "../sales.ts";

const STEPS = [
  "CREATE TABLE entries (node TEXT PRIMARY KEY, entry TEXT NOT NULL) WITHOUT ROWID",
  "CREATE TABLE filled (id INTEGER PRIMARY KEY CHECK (id = 1), at INTEGER NOT NULL)",
];

const EntryRow = z.strictObject({
  node: Address,
  offer: Offer,
  free: z.int(),
  provider: Address,
  agentVersion: z.string(),
  status: z.enum(["offline", "online", "draining", "quarantined"]),
  lastSeen: z.int(),
  presence: Presence.default(NEVER_SEEN),
  sales: z.array(Sale).default([]),
  challenge: Verdict.nullable().default(null),
});

/** The Book's rows, one per node, and whether they are all there. */
export class BookStore {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    migrate(sql, STEPS);
    this.#sql = sql;
  }

  load(): BookEntry[] {
    const rows = this.#sql.exec<{ entry: string }>("SELECT entry FROM entries").toArray();
    return rows.map(({ entry }) => EntryRow.parse(JSON.parse(entry)));
  }

  /** Whether the rows were ever taken from the directory, since this storage is there. */
  isFilled(): boolean {
    return this.#sql.exec("SELECT 1 FROM filled").toArray().length > 0;
  }

  markFilled(at: number): void {
    this.#sql.exec("INSERT OR REPLACE INTO filled VALUES (1, ?)", at);
  }

  save(node: Address, entry: BookEntry | null): void {
    if (entry === null) this.#sql.exec("DELETE FROM entries WHERE node = ?", node);
    else {
      const wire = JSON.stringify(z.encode(EntryRow, { ...entry, sales: [...entry.sales] }));
      this.#sql.exec("INSERT OR REPLACE INTO entries VALUES (?, ?)", node, wire);
    }
  }
}
