import { z } from "zod";

/** The tables of a RelayKey object, append-only; see docs/storage-schema.md. Wei and money are TEXT: SQLite would make them floats. */
export const steps = [
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
  // One transaction now carries several intents, and one nonce several transactions. Step 0 was never deployed, so
  // there are no rows to take over.
  `DROP TABLE transactions;
   DROP TABLE intents;
   ALTER TABLE key ADD COLUMN confirm_at INTEGER;
   ALTER TABLE key ADD COLUMN watch_at INTEGER;
   ALTER TABLE key ADD COLUMN watched_to INTEGER NOT NULL DEFAULT 0;
   ALTER TABLE key ADD COLUMN plan_at INTEGER;
   ALTER TABLE key ADD COLUMN balance TEXT;
   CREATE TABLE intents (
     key TEXT PRIMARY KEY,
     intent TEXT NOT NULL,
     state TEXT NOT NULL,
     life TEXT NOT NULL,
     misses INTEGER NOT NULL,
     alone INTEGER NOT NULL,
     dislodged INTEGER NOT NULL,
     failures INTEGER NOT NULL,
     due_at INTEGER,
     anchor_number INTEGER,
     anchor_hash TEXT,
     confirmation TEXT
   );
   CREATE INDEX intents_due ON intents (due_at) WHERE due_at IS NOT NULL;
   CREATE INDEX intents_state ON intents (state);
   CREATE INDEX intents_anchor ON intents (anchor_hash) WHERE anchor_hash IS NOT NULL;
   CREATE TABLE flights (
     nonce INTEGER PRIMARY KEY,
     entries TEXT NOT NULL,
     sent_at INTEGER,
     sent_block INTEGER,
     underpriced INTEGER NOT NULL,
     gone_since INTEGER,
     failures INTEGER NOT NULL,
     outcome TEXT NOT NULL CHECK (outcome IN ('open', 'landed', 'displaced')),
     due_at INTEGER,
     hash TEXT,
     purpose TEXT,
     succeeded INTEGER,
     block_number INTEGER,
     block_hash TEXT,
     block_timestamp INTEGER,
     gas_used TEXT,
     effective_gas_price TEXT,
     l1_fee TEXT,
     calldata_bytes INTEGER,
     confirmation TEXT
   );
   CREATE INDEX flights_open ON flights (due_at) WHERE outcome = 'open';
   CREATE INDEX flights_block ON flights (block_number);
   CREATE TABLE attempts (
     nonce INTEGER NOT NULL,
     n INTEGER NOT NULL,
     doc TEXT NOT NULL,
     PRIMARY KEY (nonce, n)
   );
   CREATE TABLE allowances (
     account TEXT PRIMARY KEY,
     minute INTEGER NOT NULL,
     in_minute INTEGER NOT NULL,
     day INTEGER NOT NULL,
     gas_in_day INTEGER NOT NULL
   );
   CREATE TABLE counters (name TEXT PRIMARY KEY, value TEXT NOT NULL);`,
  "CREATE INDEX flights_given_up ON flights (gone_since) WHERE outcome = 'displaced'",
];

/** A TEXT column that holds JSON of the given schema. */
export const json = <T extends z.ZodType>(schema: T) =>
  z
    .string()
    .transform((text): unknown => JSON.parse(text))
    .pipe(schema);

/** SQLite has no booleans. */
export const flag = z.union([z.literal(0), z.literal(1)]).transform((value) => value === 1);
