import { Address, Bytes32 } from "@gpux/protocol/ids";
import { Intent, IntentKey, RelayedTransaction } from "@gpux/protocol/intent";
import { z } from "zod";
import { migrate } from "../migrations.ts";
import type { Block, Receipt } from "./chain.ts";
import { type IntentState, Life, type SignedTransaction } from "./machine.ts";

const steps = [
  `CREATE TABLE key (
     id INTEGER PRIMARY KEY CHECK (id = 1),
     address TEXT NOT NULL,
     next_nonce INTEGER NOT NULL
   );
   CREATE TABLE intents (
     key TEXT PRIMARY KEY,
     intent TEXT NOT NULL,
     life TEXT NOT NULL,
     misses INTEGER NOT NULL,
     failures INTEGER NOT NULL,
     due_at INTEGER
   );
   CREATE INDEX intents_due ON intents (due_at) WHERE due_at IS NOT NULL;
   CREATE TABLE transactions (
     hash TEXT PRIMARY KEY,
     intent_key TEXT NOT NULL REFERENCES intents (key),
     nonce INTEGER NOT NULL,
     raw TEXT NOT NULL,
     calldata_bytes INTEGER NOT NULL,
     max_cost TEXT NOT NULL,
     outcome TEXT NOT NULL CHECK (outcome IN ('open', 'succeeded', 'reverted', 'displaced')),
     block_number INTEGER,
     block_timestamp INTEGER,
     gas_used TEXT,
     effective_gas_price TEXT,
     l1_fee TEXT
   );
   CREATE INDEX transactions_open ON transactions (nonce) WHERE outcome = 'open';
   CREATE INDEX transactions_block ON transactions (block_number);`,
];

const json = <T extends z.ZodType>(schema: T) =>
  z
    .string()
    .transform((text): unknown => JSON.parse(text))
    .pipe(schema);

const IntentRow = z
  .strictObject({
    intent: json(Intent),
    life: json(Life),
    misses: z.number(),
    failures: z.number(),
    due_at: z.number().nullable(),
  })
  .transform(({ intent, due_at, ...rest }): { intent: Intent; state: IntentState } => ({
    intent,
    state: { ...rest, dueAt: due_at },
  }));

const LandedRow = z
  .strictObject({
    hash: Bytes32,
    intent_key: IntentKey,
    calldata_bytes: z.number(),
    outcome: z.enum(["succeeded", "reverted"]),
    block_number: z.number(),
    block_timestamp: z.number(),
    gas_used: z.string(),
    effective_gas_price: z.string(),
    l1_fee: z.string(),
    address: Address,
  })
  .transform((row) =>
    RelayedTransaction.parse({
      hash: row.hash,
      key: row.intent_key,
      kind: row.intent_key.slice(0, row.intent_key.indexOf(":")),
      from: row.address,
      succeeded: row.outcome === "succeeded",
      blockNumber: row.block_number,
      blockTimestamp: row.block_timestamp,
      cost: {
        gasUsed: row.gas_used,
        effectiveGasPrice: row.effective_gas_price,
        l1Fee: row.l1_fee,
        calldataBytes: row.calldata_bytes,
      },
    }),
  );

/** The tables of a RelayKey object; see docs/storage-schema.md. Wei and money are TEXT: SQLite would make them floats. */
export function openStore(sql: SqlStorage) {
  migrate(sql, steps);
  return {
    /** Which key this object speaks for; kept, because an alarm's object may not know its own name. */
    address(): Address | null {
      const row = sql.exec<{ address: string }>("SELECT address FROM key").toArray()[0];
      return row === undefined ? null : Address.parse(row.address);
    },
    adopt(address: Address): void {
      sql.exec("INSERT OR IGNORE INTO key VALUES (1, ?, 0)", address);
    },
    nextNonce(): number {
      return z.number().parse(sql.exec("SELECT next_nonce FROM key").one().next_nonce);
    },
    read(key: IntentKey): { intent: Intent; state: IntentState } | null {
      const rows = sql.exec("SELECT intent, life, misses, failures, due_at FROM intents WHERE key = ?", key);
      const row = rows.toArray()[0];
      return row === undefined ? null : IntentRow.parse(row);
    },
    write(key: IntentKey, intent: Intent, state: IntentState): void {
      sql.exec(
        "INSERT OR REPLACE INTO intents VALUES (?, ?, ?, ?, ?, ?)",
        key,
        JSON.stringify(z.encode(Intent, intent)),
        JSON.stringify(state.life),
        state.misses,
        state.failures,
        state.dueAt,
      );
    },
    /** The nonce is spent with the row that carries its transaction, or not at all. */
    writeSigned(key: IntentKey, transaction: SignedTransaction): void {
      sql.exec(
        "INSERT INTO transactions (hash, intent_key, nonce, raw, calldata_bytes, max_cost, outcome) VALUES (?, ?, ?, ?, ?, ?, 'open')",
        transaction.hash,
        key,
        transaction.nonce,
        transaction.raw,
        transaction.calldataBytes,
        transaction.maxCost,
      );
      sql.exec("UPDATE key SET next_nonce = ?", transaction.nonce + 1);
    },
    writeLanded(receipt: Receipt, block: Block): void {
      sql.exec(
        `UPDATE transactions SET outcome = ?, block_number = ?, block_timestamp = ?, gas_used = ?,
           effective_gas_price = ?, l1_fee = ? WHERE hash = ?`,
        receipt.status === "0x1" ? "succeeded" : "reverted",
        block.number,
        block.timestamp,
        receipt.gasUsed.toString(),
        receipt.effectiveGasPrice.toString(),
        (receipt.l1Fee ?? 0n).toString(),
        receipt.transactionHash.toLowerCase(),
      );
    },
    writeDisplaced(hash: Bytes32): void {
      sql.exec("UPDATE transactions SET outcome = 'displaced' WHERE hash = ?", hash);
    },
    /** What the key's balance must still pay for, in wei. */
    reserved(): bigint {
      const rows = sql.exec("SELECT max_cost FROM transactions WHERE outcome = 'open'").toArray();
      return rows.reduce((sum, row) => sum + BigInt(z.string().parse(row.max_cost)), 0n);
    },
    due(now: number, limit: number): IntentKey[] {
      const rows = sql.exec("SELECT key FROM intents WHERE due_at <= ? ORDER BY due_at LIMIT ?", now, limit);
      return rows.toArray().map((row) => IntentKey.parse(row.key));
    },
    nextDue(): number | null {
      const row = sql.exec("SELECT MIN(due_at) AS at FROM intents WHERE due_at IS NOT NULL").one();
      return z.number().nullable().parse(row.at);
    },
    landed(sinceBlock: number): RelayedTransaction[] {
      const rows = sql.exec(
        `SELECT hash, intent_key, calldata_bytes, outcome, block_number, block_timestamp, gas_used,
           effective_gas_price, l1_fee, address
         FROM transactions, key WHERE block_number >= ? ORDER BY block_number, nonce LIMIT 1000`,
        sinceBlock,
      );
      return z.array(LandedRow).parse(rows.toArray());
    },
  };
}
