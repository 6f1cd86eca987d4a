import { Verdict } from "@gpux/protocol/challenge/verdict";
import { LeaseTerms } from "@gpux/protocol/eip712";
import { ToNode } from "@gpux/protocol/frames";
import { Address, LeaseId } from "@gpux/protocol/ids";
import { Gpu, Offer, Resources, Tier } from "@gpux/protocol/resources";
import { z } from "zod";
import { migrate } from "../migrations.ts";
import { NONCE_TABLE } from "../nonce-window.ts";
import { NEVER_SEEN, Presence } from "../presence.ts";
import { Sale } from "../sales.ts";
import { type NodeState, unknownNode } from "./state.ts";
import { UNCHALLENGED } from "./verdict.ts";

const STEPS = [
  `CREATE TABLE node (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    address TEXT NOT NULL,
    inventory TEXT,
    connection TEXT,
    greeted INTEGER NOT NULL,
    sent INTEGER NOT NULL,
    received INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    version INTEGER NOT NULL,
    publication TEXT,
    published TEXT NOT NULL
  )`,
  `CREATE TABLE allocations (
    lease TEXT PRIMARY KEY,
    phase TEXT NOT NULL,
    resources TEXT NOT NULL,
    terms TEXT NOT NULL,
    until INTEGER NOT NULL
  ) WITHOUT ROWID`,
  "CREATE TABLE unacknowledged (seq INTEGER PRIMARY KEY, frame TEXT NOT NULL)",
  NONCE_TABLE,
  "ALTER TABLE allocations ADD COLUMN turn INTEGER NOT NULL DEFAULT 0",
  "ALTER TABLE node ADD COLUMN presence TEXT",
  "ALTER TABLE allocations ADD COLUMN gpus TEXT NOT NULL DEFAULT '[]'",
  "ALTER TABLE allocations ADD COLUMN tier TEXT NOT NULL DEFAULT 'firm'",
  "ALTER TABLE allocations ADD COLUMN yielding INTEGER NOT NULL DEFAULT 0",
  "ALTER TABLE allocations ADD COLUMN not_before INTEGER NOT NULL DEFAULT 0",
  "ALTER TABLE node ADD COLUMN sales TEXT NOT NULL DEFAULT '[]'",
  "ALTER TABLE allocations ADD COLUMN yield_at INTEGER NOT NULL DEFAULT 0",
  "ALTER TABLE node ADD COLUMN challenges TEXT",
];

/** Rows are wire form: what was valid when it was written is parsed by the same schema when it is read. */
const InventoryRow = z.strictObject({
  provider: Address,
  agentVersion: z.string(),
  offer: Offer,
  draining: z.boolean(),
  claimed: z.int().default(0),
  challenges: z.boolean().default(false),
});
const ChallengesRow = z.strictObject({
  question: z
    .strictObject({
      challenge: z.string(),
      work: z.strictObject({ seedA: z.int(), seedB: z.int(), depth: z.int() }),
      askedAt: z.int(),
      round: z.int(),
      again: z.boolean(),
      draws: z.array(z.int()),
    })
    .nullable(),
  verdict: Verdict.extend({ card: Gpu }).nullable(),
  dueAt: z.int().nullable(),
});
const PublicationRow = z.strictObject({ version: z.int(), attempts: z.int(), retryAt: z.int() });
const Phase = z.enum(["asked", "held", "reserved", "open", "resting"]);
type AllocationRow = {
  lease: string;
  phase: string;
  resources: string;
  terms: string;
  until: number;
  turn: number;
  gpus: string;
  tier: string;
  yielding: number;
  yield_at: number;
  not_before: number;
};
type NodeRow = {
  address: string;
  inventory: string | null;
  connection: string | null;
  greeted: number;
  sent: number;
  received: number;
  last_seen: number;
  version: number;
  publication: string | null;
  published: string;
  presence: string | null;
  sales: string;
  challenges: string | null;
};

/** The node's tables. Reads once, after that writes what a step changed. */
export class NodeStore {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    migrate(sql, STEPS);
    this.#sql = sql;
  }

  /** `null` before the node's first connection. */
  load(challengeAfterMs: number): NodeState | null {
    const row = this.#sql.exec<NodeRow>("SELECT * FROM node").toArray()[0];
    if (row === undefined) return null;
    const allocations = this.#sql
      .exec<AllocationRow>(
        "SELECT lease, phase, resources, terms, until, turn, gpus, tier, yielding, yield_at, not_before FROM allocations",
      )
      .toArray();
    const frames = this.#sql
      .exec<{ frame: string }>("SELECT frame FROM unacknowledged ORDER BY seq")
      .toArray();
    return {
      ...unknownNode(Address.parse(row.address), challengeAfterMs),
      inventory: row.inventory === null ? null : InventoryRow.parse(JSON.parse(row.inventory)),
      connection: row.connection === null ? null : { id: row.connection, greeted: row.greeted === 1 },
      sent: row.sent,
      received: row.received,
      lastSeen: row.last_seen,
      version: row.version,
      publication: row.publication === null ? null : PublicationRow.parse(JSON.parse(row.publication)),
      published: z.array(z.string()).parse(JSON.parse(row.published)),
      presence: row.presence === null ? NEVER_SEEN : Presence.parse(JSON.parse(row.presence)),
      sales: z.array(Sale).parse(JSON.parse(row.sales)),
      challenges: row.challenges === null ? UNCHALLENGED : ChallengesRow.parse(JSON.parse(row.challenges)),
      allocations: new Map(
        allocations.map(
          ({ lease, phase, resources, terms, until, turn, gpus, tier, yielding, yield_at, not_before }) => [
            LeaseId.parse(lease),
            {
              phase: Phase.parse(phase),
              resources: Resources.parse(JSON.parse(resources)),
              terms: LeaseTerms.parse(JSON.parse(terms)),
              until,
              gpus: z.array(Gpu).parse(JSON.parse(gpus)),
              turn,
              tier: Tier.parse(tier),
              yielding: yielding === 1,
              yieldAt: yield_at,
              notBefore: not_before,
            },
          ],
        ),
      ),
      unacknowledged: frames.map(({ frame }) => ToNode.parse(JSON.parse(frame))),
    };
  }

  /** Synchronous, so that everything of one step commits together. */
  save(before: NodeState | null, after: NodeState): void {
    this.#sql.exec(
      "INSERT OR REPLACE INTO node VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
      after.node,
      after.inventory === null ? null : JSON.stringify(z.encode(InventoryRow, after.inventory)),
      after.connection?.id ?? null,
      after.connection?.greeted === true ? 1 : 0,
      after.sent,
      after.received,
      after.lastSeen,
      after.version,
      after.publication === null ? null : JSON.stringify(after.publication),
      JSON.stringify(after.published),
      JSON.stringify(after.presence),
      JSON.stringify(z.encode(z.array(Sale), [...after.sales])),
      JSON.stringify(after.challenges),
    );
    this.#saveAllocations(before, after);
    this.#saveFrames(before, after);
  }

  #saveAllocations(before: NodeState | null, after: NodeState): void {
    if (before?.allocations === after.allocations) return;
    for (const lease of before?.allocations.keys() ?? []) {
      if (!after.allocations.has(lease)) this.#sql.exec("DELETE FROM allocations WHERE lease = ?", lease);
    }
    for (const [lease, allocation] of after.allocations) {
      if (before?.allocations.get(lease) === allocation) continue;
      this.#sql.exec(
        "INSERT OR REPLACE INTO allocations (lease, phase, resources, terms, until, turn, gpus, tier, yielding, yield_at, not_before) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        lease,
        allocation.phase,
        JSON.stringify(allocation.resources),
        JSON.stringify(z.encode(LeaseTerms, allocation.terms)),
        allocation.until,
        allocation.turn,
        JSON.stringify(allocation.gpus),
        allocation.tier,
        allocation.yielding ? 1 : 0,
        allocation.yieldAt,
        allocation.notBefore,
      );
    }
  }

  #saveFrames(before: NodeState | null, after: NodeState): void {
    const had = new Set(before?.unacknowledged.map((frame) => frame.seq));
    const has = new Set(after.unacknowledged.map((frame) => frame.seq));
    for (const seq of had) if (!has.has(seq)) this.#sql.exec("DELETE FROM unacknowledged WHERE seq = ?", seq);
    for (const frame of after.unacknowledged) {
      if (had.has(frame.seq)) continue;
      const wire = JSON.stringify(z.encode(ToNode, frame));
      this.#sql.exec("INSERT INTO unacknowledged VALUES (?, ?)", frame.seq, wire);
    }
  }
}
