import { Address, Bytes32 } from "@gpux/protocol/ids";
import { Confirmation, IntentKey, RelayedTransaction, type TransactionCost } from "@gpux/protocol/intent";
import { z } from "zod";
import type { Block, Receipt } from "./chain.ts";
import type { Anchor } from "./confirm.ts";
import { Attempt, type FlightState } from "./flight.ts";
import { flag, json } from "./schema.ts";

/** The nonces of a key: what was signed for each, whom it carries, and what it cost. After the migrations of store.ts. */
export interface Flight {
  readonly state: FlightState;
  /** In the order of the calls; none when it only fills a gap. */
  readonly entries: readonly IntentKey[];
}

const FlightRow = z.strictObject({
  nonce: z.number(),
  entries: json(z.array(IntentKey)),
  sent_at: z.number().nullable(),
  sent_block: z.number().nullable(),
  underpriced: flag,
  gone_since: z.number().nullable(),
  failures: z.number(),
  outcome: z.enum(["open", "landed", "displaced"]),
  due_at: z.number().nullable(),
});
const COLUMNS = "nonce, entries, sent_at, sent_block, underpriced, gone_since, failures, outcome, due_at";

const LandedRow = z
  .strictObject({
    nonce: z.number(),
    entries: json(z.array(IntentKey)),
    hash: Bytes32,
    purpose: z.enum(["call", "cancel"]),
    succeeded: flag,
    block_number: z.number(),
    block_timestamp: z.number(),
    gas_used: z.string(),
    effective_gas_price: z.string(),
    l1_fee: z.string(),
    calldata_bytes: z.number(),
    confirmation: Confirmation,
    address: Address,
  })
  .transform(
    (row): RelayedTransaction => ({
      hash: row.hash,
      nonce: row.nonce,
      intents: row.entries,
      purpose: row.purpose,
      from: row.address,
      succeeded: row.succeeded,
      blockNumber: row.block_number,
      blockTimestamp: row.block_timestamp,
      confirmation: row.confirmation,
      cost: {
        gasUsed: row.gas_used,
        effectiveGasPrice: row.effective_gas_price,
        l1Fee: row.l1_fee,
        calldataBytes: row.calldata_bytes,
      },
    }),
  );

const AnchorRow = z
  .strictObject({ number: z.number(), hash: Bytes32, confirmation: Confirmation })
  .transform((row): Anchor => row);

export function openFlights(sql: SqlStorage) {
  const attemptsOf = (nonce: number): [Attempt, ...Attempt[]] => {
    const rows = sql.exec("SELECT doc FROM attempts WHERE nonce = ? ORDER BY n", nonce).toArray();
    const [first, ...rest] = rows.map((row) => json(Attempt).parse(row.doc));
    if (first === undefined) throw new Error(`nothing was signed for nonce ${nonce}`);
    return [first, ...rest];
  };
  const flightOf = (row: unknown): Flight => {
    const { nonce, entries, sent_at, sent_block, underpriced, gone_since, failures, outcome, due_at } =
      FlightRow.parse(row);
    const sent = sent_at === null || sent_block === null ? null : { at: sent_at, block: sent_block };
    const attempts = attemptsOf(nonce);
    const state = {
      nonce,
      attempts,
      sent,
      underpriced,
      goneSince: gone_since,
      failures,
      outcome,
      dueAt: due_at,
    };
    return { state, entries };
  };
  const many = (where: string, ...values: (string | number)[]) =>
    sql
      .exec(`SELECT ${COLUMNS} FROM flights WHERE ${where}`, ...values)
      .toArray()
      .map(flightOf);
  const numbers = (query: string, ...values: (string | number)[]) =>
    sql
      .exec(query, ...values)
      .toArray()
      .map((row) => z.number().parse(row.value));
  const addAttempt = (nonce: number, n: number, attempt: Attempt) =>
    sql.exec("INSERT INTO attempts VALUES (?, ?, ?)", nonce, n, JSON.stringify(attempt));

  return {
    nextNonce(): number {
      return numbers("SELECT next_nonce AS value FROM key")[0] ?? 0;
    },
    /** The nonce is spent with the row that carries its first transaction, or not at all. */
    open(nonce: number, entries: readonly IntentKey[], first: Attempt, now: number): void {
      sql.exec(
        `INSERT INTO flights (nonce, entries, underpriced, failures, outcome, due_at)
         VALUES (?, ?, 0, 0, 'open', ?)`,
        nonce,
        JSON.stringify(entries),
        now,
      );
      addAttempt(nonce, 0, first);
      sql.exec("UPDATE key SET next_nonce = MAX(next_nonce, ?)", nonce + 1);
    },
    read(nonce: number): Flight | null {
      return many("nonce = ?", nonce)[0] ?? null;
    },
    /** Also stores attempts that are new. */
    write(state: FlightState): void {
      sql.exec(
        `UPDATE flights SET sent_at = ?, sent_block = ?, underpriced = ?, gone_since = ?, failures = ?, outcome = ?,
           due_at = ? WHERE nonce = ?`,
        state.sent?.at ?? null,
        state.sent?.block ?? null,
        Number(state.underpriced),
        state.goneSince,
        state.failures,
        state.outcome,
        state.dueAt,
        state.nonce,
      );
      const [stored = 0] = numbers("SELECT COUNT(*) AS value FROM attempts WHERE nonce = ?", state.nonce);
      for (const [n, attempt] of state.attempts.entries()) {
        if (n >= stored) addAttempt(state.nonce, n, attempt);
      }
    },
    writeLanded(
      nonce: number,
      attempt: Attempt,
      receipt: Receipt,
      block: Block,
      cost: TransactionCost,
    ): void {
      sql.exec(
        `UPDATE flights SET hash = ?, purpose = ?, succeeded = ?, block_number = ?, block_hash = ?,
           block_timestamp = ?, gas_used = ?, effective_gas_price = ?, l1_fee = ?, calldata_bytes = ?,
           confirmation = 'included' WHERE nonce = ?`,
        attempt.hash,
        attempt.purpose,
        receipt.status === "0x1" ? 1 : 0,
        block.number,
        block.hash.toLowerCase(),
        block.timestamp,
        cost.gasUsed,
        cost.effectiveGasPrice,
        cost.l1Fee,
        cost.calldataBytes,
        nonce,
      );
    },
    /** A reorganisation took the block away: it costs nothing until it lands again. */
    writeDislodged(nonce: number): void {
      sql.exec(
        `UPDATE flights SET hash = NULL, purpose = NULL, succeeded = NULL, block_number = NULL, block_hash = NULL,
           block_timestamp = NULL, gas_used = NULL, effective_gas_price = NULL, l1_fee = NULL,
           calldata_bytes = NULL, confirmation = NULL WHERE nonce = ?`,
        nonce,
      );
    },
    /** Final transactions are never sent again, so their bytes may go; what they cost stays. */
    writeConfirmation(nonce: number, confirmation: Confirmation): void {
      sql.exec("UPDATE flights SET confirmation = ? WHERE nonce = ?", confirmation, nonce);
      if (confirmation === "finalized")
        sql.exec("UPDATE attempts SET doc = json_set(doc, '$.raw', '0x') WHERE nonce = ?", nonce);
    },
    landedIn(block: Bytes32): Flight[] {
      return many("block_hash = ? AND outcome = 'landed'", block);
    },
    anchors(): Anchor[] {
      const rows = sql.exec(
        `SELECT DISTINCT block_number AS number, block_hash AS hash, confirmation FROM flights
         WHERE outcome = 'landed' AND confirmation <> 'finalized'`,
      );
      return rows.toArray().map((row) => AnchorRow.parse(row));
    },
    /** Nonces that another seems to have used, and not longer ago than `since`. */
    givenUp(since: number): number[] {
      const query =
        "SELECT nonce AS value FROM flights WHERE outcome = 'displaced' AND gone_since >= ? ORDER BY nonce";
      return numbers(query, since);
    },
    openNonces(): number[] {
      return numbers("SELECT nonce AS value FROM flights WHERE outcome = 'open' ORDER BY nonce");
    },
    due(now: number): number[] {
      const query =
        "SELECT nonce AS value FROM flights WHERE outcome = 'open' AND due_at <= ? ORDER BY nonce";
      return numbers(query, now);
    },
    /**
     * `nonce` landed. Those below must be on chain as well, and those above that no node took, or that waited for a
     * node to answer, may go now.
     */
    wakeOthers(nonce: number, now: number): void {
      sql.exec(
        `UPDATE flights SET due_at = ?, failures = 0
         WHERE outcome = 'open' AND nonce <> ? AND (nonce < ? OR failures > 0 OR sent_at IS NULL)`,
        now,
        nonce,
        nonce,
      );
    },
    nextDue(after: number): number | null {
      const query = "SELECT MIN(due_at) AS value FROM flights WHERE outcome = 'open' AND due_at > ?";
      const row = sql.exec(query, after).one();
      return z.number().nullable().parse(row.value);
    },
    /**
     * Nonces from `count`, the next that can land, for which nothing is on its way though there are higher ones: never
     * signed for, or given up because another had used them, which a reorganisation took back.
     */
    gaps(count: number): number[] {
      const query = "SELECT nonce AS value FROM flights WHERE nonce >= ? AND outcome <> 'displaced'";
      const busy = new Set(numbers(query, count));
      const [next = 0] = numbers("SELECT next_nonce AS value FROM key");
      const all = Array.from({ length: Math.max(0, next - count) }, (_, i) => count + i);
      return all.filter((nonce) => !busy.has(nonce));
    },
    /** What the key's balance must still pay for, in wei: of each open nonce its dearest attempt. */
    reserved(): bigint {
      const open = many("outcome = 'open'");
      return open.reduce((sum, { state }) => {
        const dearest = state.attempts
          .map(({ maxCost }) => BigInt(maxCost))
          .toSorted((a, b) => (a < b ? 1 : -1))[0];
        return sum + (dearest ?? 0n);
      }, 0n);
    },
    /** Wei, of all that is on chain. */
    spent(): bigint {
      const rows = sql.exec(
        "SELECT gas_used, effective_gas_price, l1_fee FROM flights WHERE outcome = 'landed'",
      );
      return rows.toArray().reduce((sum, row) => {
        const [gas, price, l1] = [row.gas_used, row.effective_gas_price, row.l1_fee].map((text) =>
          BigInt(String(text)),
        );
        return sum + (gas ?? 0n) * (price ?? 0n) + (l1 ?? 0n);
      }, 0n);
    },
    landed(sinceBlock: number): RelayedTransaction[] {
      const rows = sql.exec(
        `SELECT nonce, entries, hash, purpose, succeeded, block_number, block_timestamp, gas_used,
           effective_gas_price, l1_fee, calldata_bytes, confirmation, address
         FROM flights, key WHERE outcome = 'landed' AND block_number >= ? ORDER BY block_number, nonce LIMIT 1000`,
        sinceBlock,
      );
      return rows.toArray().map((row) => RelayedTransaction.parse(LandedRow.parse(row)));
    },
  };
}
export type Flights = ReturnType<typeof openFlights>;
