import { Address } from "@gpux/protocol/ids";
import { Offer } from "@gpux/protocol/resources";
import { z } from "zod";
import { migrate } from "../migrations.ts";
import type { BookState } from "./machine.ts";

const STEPS = ["CREATE TABLE entries (node TEXT PRIMARY KEY, entry TEXT NOT NULL) WITHOUT ROWID"];

const EntryRow = z.strictObject({
  node: Address,
  offer: Offer,
  free: z.int(),
  provider: Address,
  agentVersion: z.string(),
  status: z.enum(["offline", "online", "draining", "quarantined"]),
  lastSeen: z.int(),
});

/** The Book's rows, one per node. */
export class BookStore {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    migrate(sql, STEPS);
    this.#sql = sql;
  }

  load(): BookState {
    const rows = this.#sql.exec<{ entry: string }>("SELECT entry FROM entries").toArray();
    return new Map(
      rows.map((row) => {
        const entry = EntryRow.parse(JSON.parse(row.entry));
        return [entry.node, entry];
      }),
    );
  }

  save(state: BookState, node: Address): void {
    const entry = state.get(node);
    if (entry === undefined) this.#sql.exec("DELETE FROM entries WHERE node = ?", node);
    else {
      const wire = JSON.stringify(z.encode(EntryRow, entry));
      this.#sql.exec("INSERT OR REPLACE INTO entries VALUES (?, ?)", node, wire);
    }
  }
}
