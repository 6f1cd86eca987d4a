import type { BookEntry, HoldRequest, Outcome } from "@gpux/durable-objects/interfaces";
import type { NodeEffect, NodeEvent } from "@gpux/durable-objects/node/event";
import { publicationOf } from "@gpux/durable-objects/node/machine";
import {
  capacityForFirm,
  dueAt,
  entryOf,
  type NodeState,
  unknownNode,
} from "@gpux/durable-objects/node/state";
import type { Capacity } from "@gpux/protocol/capacity";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { FromNode, ToNode } from "@gpux/protocol/frames";
import type { Address, LeaseId } from "@gpux/protocol/ids";
import { Actor, type Flow, Unreachable } from "./actor.ts";
import { Connection, type End } from "./network.ts";
import { type NodeConnection, type NodeDoor, ONE_SHARD, type Setting, type Upgrade } from "./setting.ts";

/** As in durable-objects/node/object.ts. */
const ANSWER_MS = 3_000;

/** The shell of durable-objects/node/object.ts over the same machine, in virtual time. */
export class NodeObject extends Actor implements NodeDoor {
  readonly address: Address;
  readonly #setting: Setting;
  #disk: NodeState;
  #connections = new Map<string, NodeConnection>();
  #answers = new Map<LeaseId, (outcome: Outcome) => void>();
  #publishing = false;
  #unloaded = false;
  #dialled = 0;
  #alarm: number | null = null;

  constructor(address: Address, setting: Setting) {
    super(`node ${address.slice(2, 4)}`);
    this.address = address;
    this.#setting = setting;
    this.#disk = unknownNode(address);
  }

  get state(): NodeState {
    return this.#disk;
  }

  override crash(keepsSockets = false): void {
    const isCut = !keepsSockets || this.doomed;
    super.crash();
    this.#unloaded = true;
    this.#answers = new Map();
    this.#publishing = false;
    if (!isCut) return;
    for (const connection of this.#connections.values())
      connection.lostByObject(this.#setting.random.int(5, 2_000));
    this.#connections.clear();
  }

  #wake(): void {
    if (!this.#unloaded) return;
    this.#unloaded = false;
    const { connection } = this.#disk;
    if (connection !== null && this.#connections.get(connection.id)?.objectOpen !== true)
      this.#apply({ t: "disconnected", connection: connection.id, lost: true });
  }

  accept(agent: End<ToNode>): Upgrade<NodeConnection> {
    this.#wake();
    this.#dialled += 1;
    const id = `${this.name}#${this.#dialled}`;
    const end = (): End<FromNode> => ({
      hear: (frame) => {
        this.#wake();
        this.#apply({ t: "frame", connection: id, frame });
      },
      closed: () => {
        this.#wake();
        this.#connections.delete(id);
        this.#apply({ t: "disconnected", connection: id });
      },
    });
    const connection: NodeConnection = new Connection(this.#setting.network, agent, { actor: this, end });
    this.#connections.set(id, connection);
    this.#apply({ t: "connected", connection: id });
    return { ok: true, connection };
  }

  *describe(): Flow<Outcome<{ entry: BookEntry; free: Capacity }>> {
    yield* [];
    this.#heard();
    const entry = entryOf(this.#disk);
    if (entry === null) return { ok: false, code: "node_unknown" };
    if (entry.status === "offline") return { ok: false, code: "node_offline" };
    if (entry.status !== "online") return { ok: false, code: "no_capacity", detail: "the node is draining" };
    return { ok: true, entry, free: capacityForFirm(this.#disk) };
  }

  *hold(request: HoldRequest): Flow<Outcome> {
    this.#heard();
    const { lease } = request;
    const answer: { outcome?: Outcome } = {};
    yield (resume) => {
      const before = this.#answers.get(lease);
      const { schedule } = this.#setting;
      const timer = schedule.at(schedule.now + ANSWER_MS, `${this.name} unanswered hold`, () => {
        if (this.#answers.get(lease) !== settle) return;
        settle({ ok: false, code: "node_offline", detail: "the node did not answer" });
        this.#apply({ t: "unanswered", lease });
      });
      const { life } = this;
      let isOver = false;
      const settle = (outcome: Outcome) => {
        before?.(outcome);
        if (isOver || this.life !== life) return;
        isOver = true;
        timer.cancel();
        if (this.#answers.get(lease) === settle) this.#answers.delete(lease);
        answer.outcome = outcome;
        resume();
      };
      this.#answers.set(lease, settle);
      if (before !== undefined) return;
      const held = this.#apply({ t: "hold", request });
      if (!held.ok) settle(held);
    };
    return answer.outcome ?? { ok: false, code: "node_offline" };
  }

  *reserve(lease: LeaseId, until: number): Flow<Outcome> {
    yield* [];
    this.#wake();
    return this.#apply({ t: "reserve", lease, until });
  }

  *open(lease: LeaseId, terms: LeaseTerms): Flow<Outcome> {
    yield* [];
    this.#wake();
    return this.#apply({ t: "open", lease, terms });
  }

  *rest(lease: LeaseId, turn: number): Flow<Outcome> {
    yield* [];
    this.#wake();
    return this.#apply({ t: "rest", lease, turn });
  }

  *rouse(lease: LeaseId, turn: number): Flow<Outcome> {
    yield* [];
    this.#heard();
    return this.#apply({ t: "rouse", lease, turn });
  }

  *dial(lease: LeaseId): Flow<Outcome> {
    yield* [];
    this.#wake();
    return this.#apply({ t: "dial", lease });
  }

  *release(lease: LeaseId): Flow<Outcome> {
    yield* [];
    this.#wake();
    return this.#apply({ t: "release", lease });
  }

  #heard(): void {
    this.#wake();
    const { connection } = this.#disk;
    if (connection === null) return;
    const alive = this.#connections.get(connection.id)?.alive === true;
    this.#apply({ t: "heartbeat", at: alive ? this.#setting.schedule.now : 0 });
  }

  #apply(event: NodeEvent): Outcome {
    const { machines, schedule, watch } = this.#setting;
    const before = this.#disk;
    const result = machines.node.step(before, event, schedule.now);
    if (!result.ok) return result;
    const { next } = result;
    if (next !== before) {
      this.#disk = next;
      watch.nodeStepped(before, event, next);
      const due = dueAt(next);
      if (due !== dueAt(before)) this.#arm(due);
    }
    for (const effect of result.effects) this.#perform(effect, next);
    if (next.publication !== null && next.version !== before.version) this.run(this.#publish(), () => {});
    return { ok: true };
  }

  #arm(at: number | null): void {
    this.#alarm = at;
    if (at === null) return;
    this.#setting.schedule.at(at, `${this.name} alarm`, () => {
      if (this.#alarm !== at) return;
      this.#alarm = null;
      this.#wake();
      this.#apply({ t: "tick" });
      this.run(this.#publish(), () => {});
    });
  }

  #perform(effect: NodeEffect, state: NodeState): void {
    switch (effect.t) {
      case "send":
        if (state.connection === null) return;
        this.#connections
          .get(state.connection.id)
          ?.down({ ...effect.frame, ack: state.received }, effect.frame.t);
        return;
      case "close":
        this.#connections.get(effect.connection)?.closeByObject(effect.code);
        return;
      case "close_others":
        for (const [id, connection] of this.#connections) {
          if (id === effect.connection) continue;
          connection.closeByObject(effect.code);
          this.#connections.delete(id);
        }
        return;
      case "answer":
        this.#answers.get(effect.lease)?.(effect.outcome);
    }
  }

  *#publish(): Flow<void> {
    if (this.#publishing) return;
    this.#publishing = true;
    try {
      for (let state = this.#disk; state.publication !== null; state = this.#disk) {
        const publication = publicationOf(state, ONE_SHARD);
        if (publication === null) return;
        const { entry, into, outOf } = publication;
        const { version } = state.publication;
        for (const name of into) yield* this.#tellBook(name, (book) => book.put(entry));
        for (const name of outOf) yield* this.#tellBook(name, (book) => book.remove(entry.node));
        this.#apply({ t: "published", version, books: into });
      }
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      this.#apply({ t: "publish_failed" });
    } finally {
      this.#publishing = false;
    }
  }

  #tellBook(name: string, tell: (book: ReturnType<Setting["book"]>) => Flow<Outcome>): Flow<Outcome> {
    const book = this.#setting.book(name);
    return this.#setting.network.call(this, book, "publish", () => tell(book), true);
  }
}
