import { LeaseTerms } from "@gpux/protocol/eip712";
import { ERRORS, type ErrorCode } from "@gpux/protocol/errors";
import { Bytes32, JobId, LeaseId, OrderId, Sha256 } from "@gpux/protocol/ids";
import { QuoteText } from "@gpux/protocol/lease";
import { Amount } from "@gpux/protocol/money";
import { OrderAuthorization, Spread } from "@gpux/protocol/order";
import { z } from "zod";
import { migrate } from "../migrations.ts";
import { NONCE_TABLE } from "../nonce-window.ts";
import { type Holding, NOTHING_HELD } from "./holding.ts";
import { type AccountLease, type KeyEntry, RETENTION_MS } from "./machine.ts";
import type { Leg, OrderState } from "./order.ts";
import { SESSION_TABLES, SESSION_TURN } from "./sessions.ts";

const STEPS = [
  NONCE_TABLE,
  `CREATE TABLE keys (
    scope TEXT PRIMARY KEY,
    body_hash TEXT NOT NULL,
    state TEXT NOT NULL,
    job TEXT,
    lease TEXT,
    since INTEGER NOT NULL
  ) WITHOUT ROWID`,
  "CREATE INDEX keys_by_age ON keys (since)",
  `CREATE TABLE leases (
    id TEXT PRIMARY KEY,
    phase TEXT NOT NULL,
    text TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL
  ) WITHOUT ROWID`,
  "CREATE INDEX leases_by_phase ON leases (phase, expires_at)",
  ...SESSION_TABLES,
  "ALTER TABLE leases ADD COLUMN order_id TEXT",
  `CREATE TABLE orders (
    id TEXT PRIMARY KEY,
    scope TEXT,
    phase TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    doc TEXT NOT NULL
  ) WITHOUT ROWID`,
  "CREATE INDEX orders_by_scope ON orders (scope)",
  "CREATE INDEX orders_by_phase ON orders (phase)",
  `CREATE TABLE legs (
    lease TEXT PRIMARY KEY,
    order_id TEXT NOT NULL,
    n INTEGER NOT NULL,
    state TEXT NOT NULL,
    doc TEXT NOT NULL
  ) WITHOUT ROWID`,
  "CREATE INDEX legs_by_order ON legs (order_id, n)",
  "CREATE TABLE holding (id INTEGER PRIMARY KEY CHECK (id = 1), gpu_s REAL NOT NULL, at INTEGER NOT NULL)",
  SESSION_TURN,
];

/** Results are kept this long, so client-made ids and leases are too. */
const JOB_RETENTION_MS = 7 * 24 * 3_600_000;

const KeyHead = { bodyHash: Sha256, since: z.int() };
const Chosen = z.strictObject({ job: JobId, lease: LeaseId });
const KeyRow = z.discriminatedUnion("state", [
  z.strictObject({ ...KeyHead, state: z.literal("pending"), chosen: Chosen.nullable() }),
  z.strictObject({ ...KeyHead, state: z.literal("done"), chosen: Chosen }),
]);
const LeaseRow = z.strictObject({
  id: LeaseId,
  phase: z.enum(["quoted", "open", "ended"]),
  text: z.string().transform((text) => QuoteText.parse(JSON.parse(text))),
  expiresAt: z.int(),
  createdAt: z.int(),
  order: OrderId.nullable(),
});
const LEASE_COLUMNS =
  'id, phase, text, expires_at AS expiresAt, created_at AS createdAt, order_id AS "order"';

const Code = z.custom<ErrorCode>((text) => typeof text === "string" && text in ERRORS);
const OrderDocument = z.strictObject({
  bodyHash: Sha256,
  nodes: z.int(),
  spread: Spread,
  funding: OrderAuthorization.nullable(),
  end: z.strictObject({ code: Code, detail: z.string().optional() }).nullable(),
});
const OrderRow = z.strictObject({
  id: OrderId,
  scope: z.string().nullable(),
  phase: z.enum(["gathering", "quoted", "reserving", "submitting", "telling", "open", "released"]),
  createdAt: z.int(),
  doc: z.string().transform((text) => OrderDocument.parse(JSON.parse(text))),
});
const LegDocument = z.strictObject({
  hold: z.strictObject({ lease: LeaseId, terms: LeaseTerms, text: QuoteText, expiresAt: z.int() }),
  leaseHash: Bytes32,
  amount: Amount,
  verified: z.boolean().default(false),
});
const LegRow = z.strictObject({
  state: z.enum(["asked", "held", "reserved", "told", "freeing"]),
  doc: z.string().transform((text) => LegDocument.parse(JSON.parse(text))),
});
const ORDER_COLUMNS = "id, scope, phase, created_at AS createdAt, doc";

/** One account's tables; each read goes to SQL, because an account is asked seldom and remembers much. */
export class AccountStore {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    migrate(sql, STEPS);
    this.#sql = sql;
  }

  key(scope: string): KeyEntry | null {
    const row = this.#sql
      .exec<{ bodyHash: string; state: string; job: string | null; lease: string | null; since: number }>(
        "SELECT body_hash AS bodyHash, state, job, lease, since FROM keys WHERE scope = ?",
        scope,
      )
      .toArray()[0];
    if (row === undefined) return null;
    const { job, lease, ...head } = row;
    return KeyRow.parse({ ...head, chosen: job === null ? null : { job, lease } });
  }

  saveKey(scope: string, entry: KeyEntry | null): void {
    if (entry === null) {
      this.#sql.exec("DELETE FROM keys WHERE scope = ?", scope);
      return;
    }
    this.#sql.exec(
      "INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?, ?)",
      scope,
      entry.bodyHash,
      entry.state,
      entry.chosen?.job ?? null,
      entry.chosen?.lease ?? null,
      entry.since,
    );
  }

  lease(id: LeaseId): AccountLease | null {
    const row = this.#sql.exec(`SELECT ${LEASE_COLUMNS} FROM leases WHERE id = ?`, id).toArray()[0];
    return row === undefined ? null : LeaseRow.parse(row);
  }

  /** Those that a quota or a job could ask for: quoted or open, not over by the clock. */
  liveLeases(now: number): AccountLease[] {
    return this.#sql
      .exec(
        `SELECT ${LEASE_COLUMNS} FROM leases
         WHERE phase IN ('quoted', 'open') AND expires_at > ? ORDER BY created_at DESC, id`,
        now,
      )
      .toArray()
      .map((row) => LeaseRow.parse(row));
  }

  saveLease(lease: AccountLease): void {
    this.#sql.exec(
      "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?, ?)",
      lease.id,
      lease.phase,
      JSON.stringify(lease.text),
      lease.expiresAt,
      lease.createdAt,
      lease.order,
    );
  }

  endLease(id: LeaseId): void {
    this.#sql.exec("UPDATE leases SET phase = 'ended' WHERE id = ?", id);
  }

  order(id: OrderId): OrderState | null {
    const row = this.#sql.exec(`SELECT ${ORDER_COLUMNS} FROM orders WHERE id = ?`, id).toArray()[0];
    return row === undefined ? null : this.#orderOf(row);
  }

  orderOf(scope: string): OrderState | null {
    const row = this.#sql.exec(`SELECT ${ORDER_COLUMNS} FROM orders WHERE scope = ?`, scope).toArray()[0];
    return row === undefined ? null : this.#orderOf(row);
  }

  /** Those that something is still due of, by themselves or by time. */
  liveOrders(): OrderState[] {
    return this.#sql
      .exec(
        `SELECT ${ORDER_COLUMNS} FROM orders WHERE phase NOT IN ('open', 'released')
         OR id IN (SELECT order_id FROM legs WHERE state = 'freeing')`,
      )
      .toArray()
      .map((row) => this.#orderOf(row));
  }

  /** A leg's terms never change, so they are written once. */
  saveOrder(before: OrderState | null, { id, scope, phase, createdAt, legs, ...rest }: OrderState): void {
    const { bodyHash, nodes, spread, funding, end } = rest;
    const document = z.encode(OrderDocument, { bodyHash, nodes, spread, funding, end });
    this.#sql.exec(
      "INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?, ?)",
      id,
      scope,
      phase,
      createdAt,
      JSON.stringify(document),
    );
    const was = new Map(before?.legs.map((leg) => [leg.hold.lease, leg.state]));
    for (const { state, ...leg } of legs) {
      const { lease } = leg.hold;
      const known = was.get(lease);
      was.delete(lease);
      if (known === undefined) {
        const doc = JSON.stringify(z.encode(LegDocument, leg));
        // After the last one, also where others before it have gone: amounts are given in this order.
        this.#sql.exec(
          "INSERT INTO legs SELECT ?, ?, COALESCE(MAX(n), 0) + 1, ?, ? FROM legs WHERE order_id = ?",
          lease,
          id,
          state,
          doc,
          id,
        );
      } else if (known !== state) this.#sql.exec("UPDATE legs SET state = ? WHERE lease = ?", state, lease);
    }
    for (const lease of was.keys()) this.#sql.exec("DELETE FROM legs WHERE lease = ?", lease);
  }

  holding(): Holding {
    const row = this.#sql
      .exec<{ gpuS: number; at: number }>("SELECT gpu_s AS gpuS, at FROM holding")
      .toArray()[0];
    return row ?? NOTHING_HELD;
  }

  saveHolding({ gpuS, at }: Holding): void {
    this.#sql.exec("INSERT OR REPLACE INTO holding VALUES (1, ?, ?)", gpuS, at);
  }

  #orderOf(row: Record<string, SqlStorageValue>): OrderState {
    const { doc, ...head } = OrderRow.parse(row);
    const legs = this.#sql
      .exec("SELECT state, doc FROM legs WHERE order_id = ? ORDER BY n", head.id)
      .toArray()
      .map((each): Leg => {
        const { state, doc: leg } = LegRow.parse(each);
        return { ...leg, state };
      });
    return { ...head, ...doc, legs };
  }

  /** What nobody can ask for any more; called where something is written anyway, so that no alarm is needed. */
  prune(now: number): void {
    this.#sql.exec(
      "DELETE FROM keys WHERE since <= ? AND (since <= ? OR scope NOT GLOB 'id:*')",
      now - RETENTION_MS,
      now - JOB_RETENTION_MS,
    );
    this.#sql.exec("DELETE FROM leases WHERE phase = 'quoted' AND expires_at <= ?", now - RETENTION_MS);
    this.#sql.exec("DELETE FROM leases WHERE expires_at <= ?", now - JOB_RETENTION_MS);
    this.#sql.exec(
      `DELETE FROM orders WHERE created_at <= ? AND phase IN ('open', 'released')
       AND id NOT IN (SELECT order_id FROM legs WHERE state = 'freeing')`,
      now - JOB_RETENTION_MS,
    );
    this.#sql.exec("DELETE FROM legs WHERE order_id NOT IN (SELECT id FROM orders)");
  }
}
