import { readdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { z } from "zod";

const Rows = z.array(z.strictObject({ id: z.string(), live: z.int(), journal: z.string() }));

export interface JobRow {
  readonly id: string;
  /** Whether the Lease still keeps it in memory. */
  readonly live: boolean;
  /** Types of its journal entries, in order. */
  readonly journal: readonly string[];
}

/**
 * What the Lease of this id has on disk of its jobs. The file's name is a hash that only the runtime can make, so it
 * is found by what stands in it.
 */
export function jobRows(storage: string, lease: string): JobRow[] {
  const files = readdirSync(storage, { recursive: true, encoding: "utf8" });
  for (const file of files.filter((name) => name.endsWith(".sqlite"))) {
    const database = new DatabaseSync(join(storage, file), { readOnly: true });
    try {
      const has = database.prepare(
        "SELECT count(*) AS n FROM sqlite_master WHERE name IN ('lease', 'journal')",
      );
      if (has.get()?.n !== 2) continue;
      const finds = database.prepare(
        "SELECT 1 FROM lease WHERE doc LIKE :id UNION SELECT 1 FROM tail WHERE lease LIKE :id",
      );
      if (finds.get({ id: `%"${lease}"%` }) === undefined) continue;
      const rows = database.prepare(
        // The tables, and what is not folded into them yet (durable-objects/lease/tail.ts).
        `WITH said AS (
           SELECT id, n, live, 0 AS at FROM jobs
           UNION ALL SELECT value ->> 0, value ->> 1, value ->> 4, tail.id
             FROM tail, json_each(tail.doc, '$.jobs')),
         lines AS (
           SELECT id, job, type FROM journal
           UNION ALL SELECT value ->> 0, value ->> 1, value ->> 3 FROM tail, json_each(tail.doc, '$.journal'))
         SELECT id, live, coalesce((SELECT group_concat(type) FROM
           (SELECT type FROM lines WHERE job = said.id ORDER BY lines.id)), '') AS journal
         FROM said WHERE at = (SELECT max(at) FROM said AS later WHERE later.id = said.id) ORDER BY n`,
      );
      return Rows.parse(rows.all().map((row) => ({ ...row }))).map((row) => ({
        id: row.id,
        live: row.live === 1,
        journal: row.journal.split(","),
      }));
    } finally {
      database.close();
    }
  }
  throw new Error(`no Durable Object under ${storage} holds ${lease}`);
}
