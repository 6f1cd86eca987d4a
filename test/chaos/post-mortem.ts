import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { Address } from "@gpux/protocol/ids";
import { createPublicClient, http } from "viem";
import { z } from "zod";

const Key = z.object({
  address: Address,
  next_nonce: z.number(),
  plan_at: z.number().nullable(),
  confirm_at: z.number().nullable(),
});
const SHOWN = 8;

/**
 * Reads what a killed relayer left behind and says what is stuck: per key the chain's next nonce against ours, the
 * clocks, the intents by state, and the oldest intents and nonces that have not ended. Times are seconds from now.
 */
export async function postMortem(storage: string, rpcUrl: string): Promise<string> {
  // Only who has something to explain needs it.
  const { DatabaseSync } = await import("node:sqlite");
  const client = createPublicClient({ transport: http(rpcUrl), cacheTime: 0 });
  const folder = join(storage, "do", "gpux-relayer-RelayKeyObject");
  const files = (await readdir(folder)).filter((file) => /^[0-9a-f]{64}\.sqlite$/.test(file));
  const now = Date.now();
  const from = (at: number | null) => (at === null ? "never" : `${((at - now) / 1_000).toFixed(1)} s`);
  const parts: string[] = [];
  for (const file of files) {
    const database = new DatabaseSync(join(folder, file), { readOnly: true });
    const rows = (query: string) =>
      database
        .prepare(query)
        .all()
        .map((row) => `  ${JSON.stringify(row)}`);
    const key = Key.parse(database.prepare("SELECT * FROM key").get());
    const count = await client.getTransactionCount({ address: key.address });
    parts.push(
      `${key.address}: the chain awaits nonce ${count}, ours is ${key.next_nonce}; plans ${from(key.plan_at)}, confirms ${from(key.confirm_at)}`,
      ...rows("SELECT state, confirmation, COUNT(*) AS n FROM intents GROUP BY state, confirmation"),
      ...rows(
        `SELECT key, life, misses, alone, dislodged, failures, (due_at - ${now}) / 1000.0 AS due_s FROM intents
         WHERE state NOT IN ('included', 'superseded') ORDER BY rowid LIMIT ${SHOWN}`,
      ),
      ...rows(
        `SELECT nonce, outcome, json_array_length(entries) AS entries, failures, underpriced,
           (sent_at - ${now}) / 1000.0 AS sent_s, (gone_since - ${now}) / 1000.0 AS gone_s,
           (due_at - ${now}) / 1000.0 AS due_s, block_number, confirmation,
           (SELECT COUNT(*) FROM attempts WHERE attempts.nonce = flights.nonce) AS attempts
         FROM flights WHERE outcome <> 'landed' OR nonce >= ${count} ORDER BY nonce LIMIT ${SHOWN}`,
      ),
    );
    database.close();
  }
  return parts.join("\n");
}
