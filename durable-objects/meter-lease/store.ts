import { Bytes32 } from "@gpux/protocol/ids";
import { Frontier } from "@gpux/protocol/merkle";
import { z } from "zod";
import { migrate } from "../migrations.ts";
import type { MeterState, NumberedDigest } from "./machine.ts";

const steps = [
  `CREATE TABLE meter (
     id INTEGER PRIMARY KEY CHECK (id = 1),
     first_seen INTEGER NOT NULL,
     opened_at INTEGER,
     cumulative TEXT NOT NULL,
     evidence TEXT NOT NULL,
     frontier TEXT NOT NULL,
     closed_at TEXT
   );
   CREATE TABLE receipts (sequence INTEGER PRIMARY KEY, digest TEXT NOT NULL);`,
  "CREATE TABLE promise (id INTEGER PRIMARY KEY CHECK (id = 1), funded_to TEXT NOT NULL)",
];

const Row = z
  .strictObject({
    id: z.literal(1),
    first_seen: z.number(),
    opened_at: z.number().nullable(),
    cumulative: z.string(),
    evidence: Bytes32,
    frontier: z.string(),
    closed_at: z.string().nullable(),
  })
  .transform(
    (row): MeterState => ({
      firstSeen: row.first_seen,
      openedAt: row.opened_at,
      cumulative: BigInt(row.cumulative),
      evidence: row.evidence,
      frontier: Frontier.parse(JSON.parse(row.frontier)),
      closedAt: row.closed_at === null ? null : BigInt(row.closed_at),
    }),
  );

/** The tables of a MeterLease object; see docs/storage-schema.md. Money is TEXT: SQLite would make it a float. */
export function openStore(sql: SqlStorage) {
  migrate(sql, steps);
  return {
    read(): MeterState | null {
      const row = sql.exec("SELECT * FROM meter").toArray()[0];
      return row === undefined ? null : Row.parse(row);
    },
    /** What was attested under these sequences. */
    digests(sequences: readonly number[]): Map<number, Bytes32> {
      const rows = sql.exec(
        "SELECT sequence, digest FROM receipts WHERE sequence IN (SELECT value FROM json_each(?))",
        JSON.stringify(sequences),
      );
      const parsed = z.array(z.strictObject({ sequence: z.number(), digest: Bytes32 })).parse(rows.toArray());
      return new Map(parsed.map((row) => [row.sequence, row.digest]));
    },
    /** The highest target from credit that was co-signed; beside the meter's row, whose clock must not begin with it. */
    promised(): bigint {
      const row = sql.exec<{ funded_to: string }>("SELECT funded_to FROM promise").toArray()[0];
      return BigInt(row?.funded_to ?? 0);
    },
    writePromised(target: bigint): void {
      sql.exec("INSERT OR REPLACE INTO promise VALUES (1, ?)", target.toString());
    },
    write(state: MeterState, added: readonly NumberedDigest[]): void {
      sql.exec(
        "INSERT OR REPLACE INTO meter VALUES (1, ?, ?, ?, ?, ?, ?)",
        state.firstSeen,
        state.openedAt,
        state.cumulative.toString(),
        state.evidence,
        JSON.stringify(state.frontier),
        state.closedAt?.toString() ?? null,
      );
      for (const { sequence, digest } of added) {
        sql.exec("INSERT INTO receipts VALUES (?, ?)", sequence, digest);
      }
    },
  };
}
