import { type Capacity, freeOf, type Share } from "@gpux/protocol/capacity";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { ToNode } from "@gpux/protocol/frames";
import type { Address, LeaseId } from "@gpux/protocol/ids";
import type { NodeView } from "@gpux/protocol/lease";
import type { Offer, Tier } from "@gpux/protocol/resources";
import type { BookEntry } from "../interfaces.ts";
import { NEVER_SEEN, type Presence } from "../presence.ts";
import type { Sale } from "../sales.ts";
import { ANSWER_MS, type Challenges, isSameCard, UNCHALLENGED, verdictOf } from "./verdict.ts";

/** What the agent said about its machine; it stays when the socket goes. */
export interface Inventory {
  readonly provider: Address;
  readonly agentVersion: string;
  readonly offer: Offer;
  readonly draining: boolean;
  /** GPUs that the owner uses for himself. */
  readonly claimed: number;
  /** It answers challenges. */
  readonly challenges: boolean;
}

/**
 * What of the node is promised. `asked`: the agent was asked to hold and has not answered; `held`: it confirmed;
 * `reserved`: a funding that names this lease may land; `open`: the lease runs; `resting`: it lasts without work, and
 * what it needs is free for others.
 */
export interface Allocation extends Share {
  readonly phase: "asked" | "held" | "reserved" | "open" | "resting";
  readonly terms: LeaseTerms;
  /** Milliseconds; all of it is free again after it. */
  readonly until: number;
  readonly tier: Tier;
  /** Of an open yieldable lease: it was told to give way. */
  readonly yielding: boolean;
  /** Milliseconds: when it was to be gone. */
  readonly yieldAt: number;
  /** Milliseconds; before, a firm demand may have what it gave way for. */
  readonly notBefore: number;
  /** Of the lease's questions to rest or to be roused, the highest that was dealt with. */
  readonly turn: number;
}

/** A frame without its head; the machine numbers it, the shell adds the newest `ack` as it goes out. */
export type ToNodeBody = ToNode extends infer F
  ? F extends ToNode
    ? Omit<F, "v" | "seq" | "ack">
    : never
  : never;

/** The Books lag behind the node until `version` was written to all of them. */
export interface Publication {
  readonly version: number;
  readonly attempts: number;
  /** Milliseconds; when to try again unless the try that runs succeeds first. */
  readonly retryAt: number;
}

export interface NodeState {
  readonly node: Address;
  readonly inventory: Inventory | null;
  /** The socket that speaks for the node, and whether its hello has come. */
  readonly connection: { readonly id: string; readonly greeted: boolean } | null;
  readonly allocations: ReadonlyMap<LeaseId, Allocation>;
  /** Reliable frames that the agent has not acknowledged, in their order. */
  readonly unacknowledged: readonly ToNode[];
  /** The highest seq that we gave and that we have dealt with, over all connections. */
  readonly sent: number;
  readonly received: number;
  /** Milliseconds; never goes back. */
  readonly lastSeen: number;
  /** Written when the node comes or goes; since then it is what it is now. */
  readonly presence: Presence;
  readonly sales: readonly Sale[];
  readonly version: number;
  readonly publication: Publication | null;
  /** The Books that may have a row of this node. */
  readonly published: readonly string[];
  readonly challenges: Challenges;
  /** Milliseconds from when a node can answer a challenge to its first; not kept. */
  readonly challengeAfterMs: number;
}

const CHALLENGE_AFTER_MS = 300_000;

export function unknownNode(node: Address, challengeAfterMs = CHALLENGE_AFTER_MS): NodeState {
  return {
    node,
    inventory: null,
    connection: null,
    allocations: new Map(),
    unacknowledged: [],
    sent: 0,
    received: 0,
    lastSeen: 0,
    presence: NEVER_SEEN,
    sales: [],
    version: 0,
    publication: null,
    published: [],
    challenges: UNCHALLENGED,
    challengeAfterMs,
  };
}

export function statusOf(state: NodeState): NodeView["status"] {
  if (state.connection?.greeted !== true) return "offline";
  if (state.inventory?.draining === true) return "draining";
  return state.challenges.verdict?.result === "wrong" ? "quarantined" : "online";
}

/** There, with nothing to do, and its cards are all alike: of others none could be told by its work. */
export function canAnswer({ connection, inventory, allocations }: NodeState): boolean {
  if (connection?.greeted !== true || inventory === null) return false;
  const { challenges, draining, claimed, offer } = inventory;
  if (!challenges || draining || claimed > 0) return false;
  for (const { phase } of allocations.values()) if (phase !== "resting") return false;
  return offer.gpus.every((gpu) => isSameCard(gpu, offer.gpus[0]));
}

const NOTHING: Capacity = { gpus: [], cpu: 0, memory_gb: 0 };

/** What is neither held nor leased by what works, nor claimed by the owner; nothing for a node that is unknown. */
export function freeCapacity(state: NodeState): Capacity {
  return without(state, ({ phase }) => phase === "resting");
}

/** What a firm demand could have, at once or after the notice: yieldable leases give way to it. */
export function capacityForFirm(state: NodeState): Capacity {
  return without(
    state,
    ({ phase, tier }) => phase === "resting" || (phase === "open" && tier === "yieldable"),
  );
}

function without(
  { inventory, allocations }: NodeState,
  takesNothing: (each: Allocation) => boolean,
): Capacity {
  if (inventory === null) return NOTHING;
  const owners: Share = { gpus: [], resources: { gpus: inventory.claimed, cpu: 0, memory_gb: 0 } };
  return freeOf(inventory.offer, [
    ...[...allocations.values()].filter((each) => !takesNothing(each)),
    owners,
  ]);
}

export function freeGpus(state: NodeState): number {
  return freeCapacity(state).gpus.length;
}

export function gpusForFirm(state: NodeState): number {
  return capacityForFirm(state).gpus.length;
}

/** What the Books list, `null` before the first hello. */
export function entryOf(state: NodeState): BookEntry | null {
  const { inventory } = state;
  if (inventory === null) return null;
  return {
    node: state.node,
    offer: inventory.offer,
    free: gpusForFirm(state),
    provider: inventory.provider,
    agentVersion: inventory.agentVersion,
    status: statusOf(state),
    lastSeen: state.lastSeen,
    presence: state.presence,
    sales: state.sales,
    challenge: verdictOf(state.challenges, inventory.offer.gpus),
  };
}

/** When the object must wake by itself: the end of an allocation, the next try to publish, or a challenge. */
export function dueAt(state: NodeState): number | null {
  const times = Array.from(state.allocations.values(), (allocation) => allocation.until);
  if (state.publication !== null) times.push(state.publication.retryAt);
  const { question, dueAt: challengeAt } = state.challenges;
  if (question !== null) times.push(question.askedAt + ANSWER_MS);
  else if (challengeAt !== null && canAnswer(state)) times.push(challengeAt);
  return times.length === 0 ? null : Math.min(...times);
}
