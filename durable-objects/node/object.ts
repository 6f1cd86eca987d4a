import { DurableObject } from "cloudflare:workers";
import type { Capacity } from "@gpux/protocol/capacity";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import { FRAME_LIMIT, FromNode, ToNode } from "@gpux/protocol/frames";
import type { LeaseId } from "@gpux/protocol/ids";
import type { NodeView } from "@gpux/protocol/lease";
import { z } from "zod";
import type { ObjectEnv } from "../bindings.ts";
import { configOf } from "../config.ts";
import type { BookEntry, HoldRequest, NodeRpc, Outcome, Refused } from "../interfaces.ts";
import { nodeViewOf } from "../node-view.ts";
import { takeNonce } from "../nonce-window.ts";
import { upgradeOf } from "../upgrade.ts";
import { DRAWS, isChallengeDue } from "./challenge.ts";
import type { NodeEffect, NodeEvent } from "./event.ts";
import { publicationOf, step } from "./machine.ts";
import { capacityForFirm, dueAt, entryOf, type NodeState, unknownNode } from "./state.ts";
import { NodeStore } from "./store.ts";

const ANSWER_MS = 3_000;
const RETRY_ALARM_MS = 30_000;

const Attachment = z.strictObject({ connection: z.string() });

const unknown: Refused = { ok: false, code: "node_unknown" };

/** One node: its control socket, what it has, and which of its GPUs are held. Named by the node's address. */
export class NodeObject extends DurableObject<ObjectEnv> implements NodeRpc {
  readonly #store: NodeStore;
  readonly #challengeAfterMs: number;
  #state: NodeState | null;
  readonly #answers = new Map<LeaseId, PromiseWithResolvers<Outcome>>();
  #publishing = false;

  constructor(ctx: DurableObjectState, env: ObjectEnv) {
    super(ctx, env);
    this.#store = new NodeStore(ctx.storage.sql);
    this.#challengeAfterMs = configOf(env).challengeAfterMs;
    this.#state = this.#store.load(this.#challengeAfterMs);
    ctx.setWebSocketAutoResponse(new WebSocketRequestResponsePair("ping", "pong"));
    // A deploy or a crash drops sockets without a close event.
    const connection = this.#state?.connection;
    if (connection && ctx.getWebSockets(connection.id).length === 0)
      this.#apply({ t: "disconnected", connection: connection.id, lost: true });
  }

  /** The control socket's upgrade; the edge has verified who calls. */
  override async fetch(request: Request): Promise<Response> {
    const upgrade = upgradeOf(request);
    if (upgrade === null) return new Response(null, { status: 400 });
    const node = upgrade.signer;
    this.#state ??= unknownNode(node, this.#challengeAfterMs);
    if (this.#state.node !== node) return new Response(null, { status: 403 });
    if (!takeNonce(this.ctx.storage.sql, upgrade, Date.now()))
      return new Response("signature_replayed", { status: 401 });
    const { 0: client, 1: server } = new WebSocketPair();
    const connection = crypto.randomUUID();
    this.ctx.acceptWebSocket(server, [connection]);
    server.serializeAttachment({ connection } satisfies z.infer<typeof Attachment>);
    this.#apply({ t: "connected", connection });
    return new Response(null, { status: 101, webSocket: client });
  }

  override webSocketMessage(socket: WebSocket, message: string | ArrayBuffer): void {
    const { connection } = Attachment.parse(socket.deserializeAttachment());
    const parsed = parseFrame(message);
    if (parsed.ok) this.#apply({ t: "frame", connection, frame: parsed.frame });
    else this.#apply({ t: "bad_frame", connection, reason: parsed.reason });
  }

  override webSocketClose(socket: WebSocket, code: number, reason: string): void {
    const { connection } = Attachment.parse(socket.deserializeAttachment());
    this.#apply({ t: "disconnected", connection });
    // These three say "no close frame came" and must not be sent (RFC 6455, section 7.4.1).
    if (code === 1005 || code === 1006 || code === 1015) socket.close();
    else socket.close(code, reason);
  }

  override webSocketError(socket: WebSocket): void {
    const { connection } = Attachment.parse(socket.deserializeAttachment());
    this.#apply({ t: "disconnected", connection });
  }

  override async alarm(): Promise<void> {
    // The platform drops an alarm after six failures, and with it every hold's end: never throw, come back later.
    try {
      this.#apply({ t: "tick" });
      if (this.#state !== null && isChallengeDue(this.#state, Date.now())) {
        const draws = [...crypto.getRandomValues(new Uint32Array(DRAWS))];
        this.#apply({ t: "challenge", id: crypto.randomUUID(), draws });
      }
      await this.#publish();
    } catch (error) {
      console.error(error);
      await this.ctx.storage.setAlarm(Date.now() + RETRY_ALARM_MS);
    }
  }

  async describe(): Promise<Outcome<{ entry: BookEntry; free: Capacity }>> {
    const state = this.#heard();
    const entry = state === null ? null : entryOf(state);
    if (state === null || entry === null) return unknown;
    if (entry.status === "offline") return { ok: false, code: "node_offline" };
    if (entry.status !== "online")
      return { ok: false, code: "no_capacity", detail: `the node is ${entry.status}` };
    return { ok: true, entry, free: capacityForFirm(state) };
  }

  async hold(request: HoldRequest): Promise<Outcome> {
    if (this.#heard() === null) return unknown;
    const { lease } = request;
    const asked = this.#answers.get(lease);
    if (asked !== undefined) return asked.promise;
    const answer = Promise.withResolvers<Outcome>();
    this.#answers.set(lease, answer);
    const timer = setTimeout(() => {
      answer.resolve({ ok: false, code: "node_offline", detail: "the node did not answer" });
      this.#apply({ t: "unanswered", lease });
    }, ANSWER_MS);
    try {
      const held = this.#apply({ t: "hold", request });
      return held.ok ? await answer.promise : held;
    } finally {
      clearTimeout(timer);
      this.#answers.delete(lease);
    }
  }

  async reserve(lease: LeaseId, until: number): Promise<Outcome> {
    this.#heard();
    return this.#apply({ t: "reserve", lease, until });
  }

  async open(lease: LeaseId, terms: LeaseTerms): Promise<Outcome> {
    return this.#apply({ t: "open", lease, terms });
  }

  async rest(lease: LeaseId, turn: number): Promise<void> {
    this.#apply({ t: "rest", lease, turn });
  }

  async rouse(lease: LeaseId, turn: number): Promise<Outcome> {
    this.#heard();
    return this.#apply({ t: "rouse", lease, turn });
  }

  async dial(lease: LeaseId): Promise<void> {
    this.#apply({ t: "dial", lease });
  }

  async release(lease: LeaseId, paid?: bigint): Promise<void> {
    this.#apply({ t: "release", lease, ...(paid === undefined ? {} : { paid }) });
  }

  async view(): Promise<Outcome<{ node: NodeView }>> {
    const state = this.#heard();
    const entry = state === null ? null : entryOf(state);
    return entry === null ? unknown : { ok: true, node: nodeViewOf(entry, Date.now()) };
  }

  /** The state after looking at when the socket last pinged: heartbeats themselves wake nothing. */
  #heard(): NodeState | null {
    const connection = this.#state?.connection;
    const socket = connection && this.ctx.getWebSockets(connection.id)[0];
    const at = socket && this.ctx.getWebSocketAutoResponseTimestamp(socket);
    if (connection) this.#apply({ t: "heartbeat", at: at?.getTime() ?? 0 });
    return this.#state;
  }

  /** No await inside: state, outgoing frames and alarm commit together, then what was decided is done. */
  #apply(event: NodeEvent): Outcome {
    const before = this.#state;
    if (before === null) return unknown;
    const result = step(before, event, Date.now());
    if (!result.ok) return result;
    const { next } = result;
    if (next !== before) {
      this.#state = next;
      this.#store.save(before, next);
      const due = dueAt(next);
      if (due !== dueAt(before))
        void (due === null ? this.ctx.storage.deleteAlarm() : this.ctx.storage.setAlarm(due));
    }
    for (const effect of result.effects) this.#perform(effect, next);
    if (next.publication !== null && next.version !== before.version) this.ctx.waitUntil(this.#publish());
    return { ok: true };
  }

  #perform(effect: NodeEffect, state: NodeState): void {
    switch (effect.t) {
      case "send": {
        if (state.connection === null) return;
        const text = JSON.stringify(z.encode(ToNode, { ...effect.frame, ack: state.received }));
        for (const socket of this.ctx.getWebSockets(state.connection.id)) socket.send(text);
        return;
      }
      case "close":
        for (const socket of this.ctx.getWebSockets(effect.connection))
          socket.close(effect.code, effect.reason);
        return;
      case "close_others":
        for (const socket of this.ctx.getWebSockets()) {
          if (this.ctx.getTags(socket).includes(effect.connection)) continue;
          socket.close(effect.code, effect.reason);
        }
        return;
      case "answer":
        this.#answers.get(effect.lease)?.resolve(effect.outcome);
    }
  }

  /**
   * Brings the Books up to date, one try at a time, until what was written is what is true. A Book that fails stays
   * due: the alarm tries again.
   */
  async #publish(): Promise<void> {
    if (this.#publishing) return;
    this.#publishing = true;
    try {
      for (let state = this.#state; state?.publication; state = this.#state) {
        const publication = publicationOf(state, configOf(this.env).bookShards);
        if (publication === null) return;
        const { entry, into, outOf } = publication;
        const { version } = state.publication;
        await Promise.all([
          ...into.map((book) => this.env.BOOK.getByName(book).put(entry)),
          ...outOf.map((book) => this.env.BOOK.getByName(book).remove(entry.node)),
        ]);
        this.#apply({ t: "published", version, books: into });
      }
    } catch (error) {
      console.error(error);
      this.#apply({ t: "publish_failed" });
    } finally {
      this.#publishing = false;
    }
  }
}

type ParsedFrame =
  | { readonly ok: true; readonly frame: FromNode }
  | { readonly ok: false; readonly reason: string };

function parseFrame(text: string | ArrayBuffer): ParsedFrame {
  if (typeof text !== "string") return { ok: false, reason: "frames are text" };
  if (text.length > FRAME_LIMIT) return { ok: false, reason: "the frame is too long" };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { ok: false, reason: "not JSON" };
  }
  const frame = FromNode.safeParse(value);
  if (frame.success) return { ok: true, frame: frame.data };
  const issue = frame.error.issues[0];
  // A close reason has at most 123 bytes (RFC 6455, section 5.5).
  return {
    ok: false,
    reason: `${issue?.path.join(".")}: ${issue?.message}`.replace(/[^ -~]/g, "?").slice(0, 120),
  };
}
