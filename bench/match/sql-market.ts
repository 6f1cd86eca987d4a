import { DatabaseSync } from "node:sqlite";
import type { BookEntry } from "@gpux/durable-objects/interfaces";
import { standingOf } from "@gpux/durable-objects/presence";
import { weightOf } from "@gpux/durable-objects/score";
import { type Demand, isolationRank } from "@gpux/protocol/resources";
import { NOW } from "./population.ts";

/**
 * The same market in one SQLite table, in memory, with the index that serves it best: in the order of the answer and
 * covering all that is compared, so that a search stops at the first row that fits.
 */
export interface SqlMarket {
  /** The best node, or null. */
  find(demand: Demand): string | null;
  setFree(node: string, free: number): void;
  close(): void;
}

export function openSqlMarket(entries: Iterable<BookEntry>): SqlMarket {
  const database = new DatabaseSync(":memory:");
  database.exec(`CREATE TABLE offers (
    node TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    region TEXT NOT NULL,
    weighted INTEGER NOT NULL,
    gpus INTEGER NOT NULL,
    vram INTEGER NOT NULL,
    cpu INTEGER NOT NULL,
    memory INTEGER NOT NULL,
    isolation INTEGER NOT NULL
  ) WITHOUT ROWID`);
  database.exec("BEGIN");
  const insert = database.prepare("INSERT INTO offers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)");
  for (const { node, offer, free, presence } of entries) {
    const [gpu] = offer.gpus;
    if (gpu === undefined) continue;
    // No node here asks for cores and memory, so the order of rates is the order of GPU prices.
    const weighted = offer.prices.gpu_hour * BigInt(weightOf(standingOf(presence, true, NOW).score));
    const { cpu, memory_gb, region, isolation } = offer;
    insert.run(
      node,
      gpu.model,
      region,
      weighted,
      free,
      gpu.vram_mb,
      cpu,
      memory_gb,
      isolationRank(isolation),
    );
  }
  database.exec("COMMIT");
  // After equal prices the order is that of Book: more GPUs, then the lower address.
  database.exec(
    "CREATE INDEX best ON offers (model, region, weighted, gpus DESC, node, vram, cpu, memory, isolation) WHERE gpus > 0",
  );
  database.exec("ANALYZE");
  const search = database.prepare(`SELECT node FROM offers INDEXED BY best
    WHERE model = ? AND region = ? AND gpus > 0 AND gpus >= ? AND vram >= ? AND cpu >= ? AND memory >= ? AND isolation >= ?
    ORDER BY weighted, gpus DESC, node LIMIT 1`);
  const update = database.prepare("UPDATE offers SET gpus = ? WHERE node = ?");
  return {
    find({ gpu_model = "", region = "", resources, min_vram_mb = 0, isolation = "process" }) {
      const { gpus, cpu, memory_gb } = resources;
      const row = search.get(gpu_model, region, gpus, min_vram_mb, cpu, memory_gb, isolationRank(isolation));
      return typeof row?.node === "string" ? row.node : null;
    },
    setFree: (node, free) => void update.run(free, node),
    close: () => database.close(),
  };
}
