import { Address, Bytes32 } from "@gpux/protocol/ids";
import { Confirmation, Intent, IntentKey } from "@gpux/protocol/intent";
import { z } from "zod";
import { migrate } from "../migrations.ts";
import type { Anchor } from "./confirm.ts";
import { type IntentState, Life } from "./machine.ts";
import { flag, json, steps } from "./schema.ts";

const IntentRow = z
  .strictObject({
    key: IntentKey,
    intent: json(Intent),
    life: json(Life),
    misses: z.number(),
    alone: flag,
    dislodged: flag,
    failures: z.number(),
    due_at: z.number().nullable(),
  })
  .transform(
    ({ key, intent, due_at, ...rest }): Known => ({
      key,
      intent,
      state: { ...rest, dueAt: due_at },
    }),
  );
const COLUMNS = "key, intent, life, misses, alone, dislodged, failures, due_at";

const AnchorRow = z
  .strictObject({ number: z.number(), hash: Bytes32, confirmation: Confirmation })
  .transform((row): Anchor => row);

export interface Known {
  readonly key: IntentKey;
  readonly intent: Intent;
  readonly state: IntentState;
}

/** What falls due for the key as a whole (ms). */
export type Clock = "confirm_at" | "watch_at" | "plan_at";

/** What an account has used of what strangers may ask for it. */
export interface Used {
  readonly minute: number;
  readonly inMinute: number;
  readonly day: number;
  readonly gasInDay: number;
}

const UsedRow = z
  .strictObject({ minute: z.number(), in_minute: z.number(), day: z.number(), gas_in_day: z.number() })
  .transform(
    (row): Used => ({
      minute: row.minute,
      inMinute: row.in_minute,
      day: row.day,
      gasInDay: row.gas_in_day,
    }),
  );

export function openStore(sql: SqlStorage) {
  migrate(sql, steps);
  const many = (query: string, ...values: (string | number | null)[]) =>
    sql
      .exec(query, ...values)
      .toArray()
      .map((row) => IntentRow.parse(row));
  const number = (query: string, ...values: (string | number)[]) =>
    z
      .number()
      .nullable()
      .parse(sql.exec(query, ...values).one().value);
  return {
    /** Which key this object speaks for; kept, because an alarm's object may not know its own name. */
    address(): Address | null {
      const row = sql.exec<{ address: string }>("SELECT address FROM key").toArray()[0];
      return row === undefined ? null : Address.parse(row.address);
    },
    adopt(address: Address): void {
      sql.exec("INSERT OR IGNORE INTO key (id, address, next_nonce) VALUES (1, ?, 0)", address);
    },
    clock(name: Clock): number | null {
      const row = sql.exec(`SELECT ${name} AS value FROM key`).toArray()[0];
      return row === undefined ? null : z.number().nullable().parse(row.value);
    },
    setClock(name: Clock, at: number | null): void {
      sql.exec(`UPDATE key SET ${name} = ?`, at);
    },
    watchedTo(): number {
      return number("SELECT watched_to AS value FROM key") ?? 0;
    },
    setWatchedTo(block: number): void {
      sql.exec("UPDATE key SET watched_to = ?", block);
    },
    /** As last seen, in wei; null before the first look. */
    balance(): bigint | null {
      const row = sql.exec("SELECT balance FROM key").toArray()[0];
      const text = z
        .string()
        .nullable()
        .parse(row?.balance ?? null);
      return text === null ? null : BigInt(text);
    },
    setBalance(wei: bigint): void {
      sql.exec("UPDATE key SET balance = ?", wei.toString());
    },

    read(key: IntentKey): Known | null {
      return many(`SELECT ${COLUMNS} FROM intents WHERE key = ?`, key)[0] ?? null;
    },
    /** Whether nothing more happens to it by itself; for those who wait, so cheap. */
    hasEnded(key: IntentKey): boolean {
      const query = `SELECT COUNT(*) AS value FROM intents
                     WHERE key = ? AND state IN ('included', 'superseded', 'rejected')`;
      return number(query, key) === 1;
    },
    write({ key, intent, state }: Known): void {
      const { life } = state;
      const seen = life.state === "included" || life.state === "superseded" ? life : null;
      // Those that are included are found by their flight.
      const anchor =
        life.state === "superseded" && life.confirmation !== "finalized" ? life.fulfilment : null;
      sql.exec(
        "INSERT OR REPLACE INTO intents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        key,
        JSON.stringify(z.encode(Intent, intent)),
        life.state,
        JSON.stringify(life),
        state.misses,
        Number(state.alone),
        Number(state.dislodged),
        state.failures,
        state.dueAt,
        anchor?.blockNumber ?? null,
        anchor?.blockHash ?? null,
        seen?.confirmation ?? null,
      );
    },
    /**
     * What this key was given that has to stand, landed or on its way, before "there is nothing to do" means that it was
     * done: of a withdrawal's lease how it ends, and the highest voucher; of a credit to be taken back, its releases.
     */
    restsOn(intent: Intent): Intent[] {
      if (intent.kind === "reclaim_credit")
        return many(
          `SELECT ${COLUMNS} FROM intents WHERE state <> 'rejected' AND key > 'release:' AND key < 'release;'
             AND intent ->> 'payer' = ? AND intent ->> 'spender' = ? AND intent ->> 'meter' = ?`,
          intent.payer,
          intent.spender,
          intent.meter,
        ).map((each) => each.intent);
      if (intent.kind !== "withdraw") return [];
      const lease = intent.occasion;
      const known = many(
        `SELECT ${COLUMNS} FROM intents WHERE state NOT IN ('held', 'rejected')
           AND (key IN (?, ?) OR (key > ? AND key < ?))`,
        `close:${lease}`,
        `reclaim:${lease}`,
        `settle:${lease}:`,
        `settle:${lease};`,
      ).map((each) => each.intent);
      const vouchers = known.flatMap((each) => (each.kind === "settle" ? [each] : []));
      const highest = vouchers.toSorted((a, b) => (a.cumulative < b.cumulative ? 1 : -1)).slice(0, 1);
      return [...known.filter((each) => each.kind !== "settle"), ...highest];
    },
    due(now: number, limit: number): Known[] {
      return many(
        `SELECT ${COLUMNS} FROM intents WHERE due_at <= ? ORDER BY due_at, rowid LIMIT ?`,
        now,
        limit,
      );
    },
    nextDue(after: number): number | null {
      return number("SELECT MIN(due_at) AS value FROM intents WHERE due_at > ?", after);
    },
    /** Oldest first. */
    inState(state: Life["state"], limit: number): Known[] {
      return many(`SELECT ${COLUMNS} FROM intents WHERE state = ? ORDER BY rowid LIMIT ?`, state, limit);
    },
    counts(): ReadonlyMap<string, number> {
      const rows = sql.exec("SELECT state, COUNT(*) AS n FROM intents GROUP BY state").toArray();
      return new Map(rows.map((row) => [String(row.state), Number(row.n)]));
    },
    arriving(): number {
      const query =
        "SELECT COUNT(*) AS value FROM intents WHERE state IN ('received', 'verified') AND failures = 0";
      return number(query) ?? 0;
    },
    /** Where others' work was found that made ours needless. */
    anchors(): Anchor[] {
      const rows = sql.exec(
        `SELECT DISTINCT anchor_number AS number, anchor_hash AS hash, confirmation FROM intents
         WHERE anchor_hash IS NOT NULL`,
      );
      return rows.toArray().map((row) => AnchorRow.parse(row));
    },
    supersededIn(block: Bytes32): Known[] {
      return many(`SELECT ${COLUMNS} FROM intents WHERE anchor_hash = ?`, block);
    },

    used(account: string): Used | null {
      const query = "SELECT minute, in_minute, day, gas_in_day FROM allowances WHERE account = ?";
      const row = sql.exec(query, account).toArray()[0];
      return row === undefined ? null : UsedRow.parse(row);
    },
    setUsed(account: string, { minute, inMinute, day, gasInDay }: Used): void {
      const query = "INSERT OR REPLACE INTO allowances VALUES (?, ?, ?, ?, ?)";
      sql.exec(query, account, minute, inMinute, day, gasInDay);
      sql.exec("DELETE FROM allowances WHERE day < ?", day);
    },
    count(name: string, by = 1n): void {
      const row = sql.exec("SELECT value FROM counters WHERE name = ?", name).toArray()[0];
      const before = BigInt(z.string().parse(row?.value ?? "0"));
      sql.exec("INSERT OR REPLACE INTO counters VALUES (?, ?)", name, (before + by).toString());
    },
    counters(): ReadonlyMap<string, bigint> {
      const rows = sql.exec("SELECT name, value FROM counters ORDER BY name").toArray();
      return new Map(rows.map((row) => [String(row.name), BigInt(String(row.value))]));
    },
  };
}
export type Store = ReturnType<typeof openStore>;
