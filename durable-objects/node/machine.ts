import { CLOSE, type FromNode } from "@gpux/protocol/frames";
import { booksOf, type Shards } from "../books.ts";
import { observed, type Presence } from "../presence.ts";
import {
  allocate,
  claim,
  dial,
  freed,
  hold,
  isOpen,
  lapse,
  open,
  release,
  replayed,
  reserve,
  rest,
  rouse,
  say,
  tell,
} from "./allocation.ts";
import { challenge, challengedOn, proved, unproven } from "./challenge.ts";
import { type NodeEffect, type NodeEvent, type NodeStep, refused, unchanged } from "./event.ts";
import { entryOf, gpusForFirm, type Inventory, type NodeState, statusOf } from "./state.ts";

/** The agent pings this often; three silent beats and the socket counts as dead. */
export const HEARTBEAT_S = 30;
export const SILENCE_MS = 3 * HEARTBEAT_S * 1000;

const RETRY_FIRST_MS = 5_000;
const RETRY_MOST_MS = 120_000;

/**
 * What one node's object decides. `now` in milliseconds. Every event may come twice: a repeated one changes nothing.
 * Whatever changes the node's row in the Books leaves a publication behind.
 */
export function step(state: NodeState, event: NodeEvent, now: number): NodeStep {
  const first = decide(state, event, now);
  if (!first.ok) return first;
  const asked = challengedOn(state, first.next, now);
  const decided = asked.ok ? { ...asked, effects: [...first.effects, ...asked.effects] } : first;
  const presence = presenceAfter(state, decided.next, event, now);
  // The same state stays the same object: what has not changed is not written.
  const result =
    presence === decided.next.presence ? decided : { ...decided, next: { ...decided.next, presence } };
  if (!rowChanged(state, result.next)) return result;
  const version = state.version + 1;
  const publication = { version, attempts: 0, retryAt: now + RETRY_FIRST_MS };
  return { ...result, next: { ...result.next, version, publication } };
}

function decide(state: NodeState, event: NodeEvent, now: number): NodeStep {
  switch (event.t) {
    case "connected":
      return connected(state, event.connection, now);
    case "frame":
      return event.connection === state.connection?.id ? received(state, event.frame, now) : unchanged(state);
    case "bad_frame":
      return event.connection === state.connection?.id ? badFrame(state, event.reason) : unchanged(state);
    case "disconnected":
      return event.connection === state.connection?.id ? gone(state) : unchanged(state);
    case "heartbeat":
      return heard(state, event.at, now);
    case "hold":
      return hold(state, event.request, now);
    case "unanswered":
      return state.allocations.get(event.lease)?.phase === "asked"
        ? freed(state, event.lease)
        : unchanged(state);
    case "reserve":
      return reserve(state, event.lease, event.until, now);
    case "open":
      return open(state, event.lease, event.terms, now);
    case "rest":
      return rest(state, event.lease, event.turn);
    case "rouse":
      return rouse(state, event.lease, event.turn, now);
    case "dial":
      return dial(state, event.lease);
    case "release":
      return release(state, event.lease, event.paid ?? 0n, now);
    case "published": {
      const done = state.publication?.version === event.version;
      return {
        ok: true,
        next: { ...state, published: event.books, publication: done ? null : state.publication },
        effects: [],
      };
    }
    case "publish_failed": {
      if (state.publication === null) return unchanged(state);
      const attempts = state.publication.attempts + 1;
      const retryAt = now + Math.min(RETRY_MOST_MS, RETRY_FIRST_MS * 2 ** attempts);
      return {
        ok: true,
        next: { ...state, publication: { ...state.publication, attempts, retryAt } },
        effects: [],
      };
    }
    case "challenge":
      return challenge(state, event.id, event.draws, now);
    case "tick":
      return lapse(standBy(state, now), now);
  }
}

/**
 * The alarm that rings for a publication is spent on it, also when a try is under way already: should this life end
 * before that one answers, nothing else would wake the next.
 */
function standBy(state: NodeState, now: number): NodeState {
  const { publication } = state;
  if (publication === null || publication.retryAt > now) return state;
  return { ...state, publication: { ...publication, retryAt: now + RETRY_FIRST_MS } };
}

/** Written when the node comes or goes. What is not known is what happened after the last sign of a lost socket. */
function presenceAfter(before: NodeState, after: NodeState, event: NodeEvent, now: number): Presence {
  const { presence } = before;
  const [was, is] = [statusOf(before) !== "offline", statusOf(after) !== "offline"];
  if (was === is) return presence;
  if (is) return observed(presence, now, "off");
  const silent = event.t === "heartbeat";
  const lost = event.t === "disconnected" && event.lost === true;
  if (!silent && !lost) return observed(presence, now, "on");
  return observed(observed(presence, Math.min(now, after.lastSeen), "on"), now, silent ? "off" : "unknown");
}

function rowChanged(before: NodeState, after: NodeState): boolean {
  if (after.inventory === null) return false;
  return (
    before.inventory !== after.inventory ||
    before.sales !== after.sales ||
    before.challenges.verdict !== after.challenges.verdict ||
    statusOf(before) !== statusOf(after) ||
    (before.allocations !== after.allocations && gpusForFirm(before) !== gpusForFirm(after))
  );
}

function connected(state: NodeState, connection: string, now: number): NodeStep {
  const before = gone(state);
  if (!before.ok) return before;
  const next = { ...before.next, connection: { id: connection, greeted: false }, lastSeen: now };
  const replaced = { t: "close_others", connection, code: CLOSE.replaced, reason: "replaced" } as const;
  return { ok: true, next, effects: [...before.effects, replaced] };
}

/** Without its socket a node is offline; what it held stays held, what it was only asked for is refused. */
function gone(state: NodeState): NodeStep {
  let next: NodeState = { ...state, connection: null };
  const effects: NodeEffect[] = [];
  for (const [lease, allocation] of state.allocations) {
    if (allocation.phase !== "asked") continue;
    effects.push({ t: "answer", lease, outcome: refused("node_offline") });
    const step = freed(next, lease);
    if (step.ok) next = step.next;
  }
  return { ok: true, next, effects };
}

function heard(state: NodeState, at: number, now: number): NodeStep {
  const next = at > state.lastSeen ? { ...state, lastSeen: at } : state;
  if (state.connection === null || now - next.lastSeen <= SILENCE_MS) return { ok: true, next, effects: [] };
  // The platform may take minutes to notice a peer without power; 1001 lets a living agent dial again.
  return closed(next, 1001, "no heartbeat");
}

function received(state: NodeState, frame: FromNode, now: number): NodeStep {
  const acknowledged: NodeState = {
    ...state,
    lastSeen: Math.max(state.lastSeen, now),
    unacknowledged: state.unacknowledged.filter((sent) => sent.seq > frame.ack),
    // Our storage may be younger than the agent's journal: never give a seq that it has dealt with already.
    sent: Math.max(state.sent, frame.ack),
  };
  if (frame.t === "hello") return hello(acknowledged, frame, now);
  if (state.connection?.greeted !== true) return badFrame(state, "hello comes first");
  if (frame.t === "ack") return { ok: true, next: acknowledged, effects: [] };
  if (frame.seq === 0) return badFrame(state, `${frame.t} needs a seq`);
  if (frame.seq <= state.received)
    return { ok: true, next: acknowledged, effects: [say(acknowledged, { t: "ack" })] };
  const dealt = reliable({ ...acknowledged, received: frame.seq }, frame, now);
  return dealt.ok ? { ...dealt, effects: [...dealt.effects, say(dealt.next, { t: "ack" })] } : dealt;
}

function badFrame(state: NodeState, reason: string): NodeStep {
  return closed(state, CLOSE.badFrame, reason);
}

/** Our own close counts at once: nothing more may be sent on that socket while the agent's answer is under way. */
function closed(state: NodeState, code: number, reason: string): NodeStep {
  const { connection } = state;
  const left = gone(state);
  if (connection === null || !left.ok) return left;
  return { ...left, effects: [...left.effects, { t: "close", connection: connection.id, code, reason }] };
}

function hello(state: NodeState, frame: Extract<FromNode, { t: "hello" }>, now: number): NodeStep {
  const { connection } = state;
  if (connection === null) return unchanged(state);
  const inventory: Inventory = {
    provider: frame.provider,
    agentVersion: frame.agent_version,
    offer: frame.offer,
    draining: frame.draining,
    claimed: frame.claimed,
    challenges: frame.challenges === true,
  };
  const leases = Array.from(state.allocations).flatMap(([lease, each]) => (isOpen(each) ? [lease] : []));
  const welcome = say(state, { t: "welcome", heartbeat_s: HEARTBEAT_S, leases });
  const replay = replayed(state, now).map((sent): NodeEffect => ({ t: "send", frame: sent }));
  const greeted = { ...state, inventory, connection: { id: connection.id, greeted: true } };
  const claimed = claim(greeted, frame.claimed, now);
  return claimed.ok ? { ...claimed, effects: [welcome, ...replay, ...claimed.effects] } : claimed;
}

function reliable(state: NodeState, frame: Exclude<FromNode, { t: "hello" | "ack" }>, now: number): NodeStep {
  const { inventory } = state;
  switch (frame.t) {
    case "offer":
      if (inventory === null) return unchanged(state);
      return { ok: true, next: { ...state, inventory: { ...inventory, offer: frame.offer } }, effects: [] };
    case "drain":
      if (inventory === null) return unchanged(state);
      return { ok: true, next: { ...state, inventory: { ...inventory, draining: true } }, effects: [] };
    case "claim":
      return claim(state, frame.gpus, now);
    case "proof":
      return proved(state, frame, now);
    case "unproven":
      return unproven(state, frame, now);
    case "held": {
      const allocation = state.allocations.get(frame.hold);
      if (allocation === undefined) return tell(state, { t: "release", hold: frame.hold });
      if (allocation.phase !== "asked") return unchanged(state);
      return {
        ok: true,
        next: allocate(state, frame.hold, { ...allocation, phase: "held" }),
        effects: [{ t: "answer", lease: frame.hold, outcome: { ok: true } }],
      };
    }
    case "declined": {
      if (state.allocations.get(frame.hold)?.phase !== "asked") return unchanged(state);
      const allocations = new Map(state.allocations);
      allocations.delete(frame.hold);
      return {
        ok: true,
        next: { ...state, allocations },
        effects: [{ t: "answer", lease: frame.hold, outcome: refused("no_capacity", frame.reason) }],
      };
    }
  }
}

/** The node's row as the Books are to have it, with the books that should and those that should no longer. */
export function publicationOf(state: NodeState, shards: Shards) {
  const entry = entryOf(state);
  if (entry === null) return null;
  const into = booksOf(entry.offer, entry.node, shards);
  return { entry, into, outOf: state.published.filter((book) => !into.includes(book)) };
}
