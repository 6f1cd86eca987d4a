import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { ToNode } from "@gpux/protocol/frames";
import type { Address, LeaseId } from "@gpux/protocol/ids";
import type { NodeView } from "@gpux/protocol/lease";
import type { Offer, Resources, Tier } from "@gpux/protocol/resources";
import type { BookEntry } from "../interfaces.ts";
import { NEVER_SEEN, type Presence } from "../presence.ts";

/** What the agent said about its machine; it stays when the socket goes. */
export interface Inventory {
  readonly provider: Address;
  readonly agentVersion: string;
  readonly offer: Offer;
  readonly draining: boolean;
  /** GPUs that the owner uses for himself. */
  readonly claimed: number;
}

/**
 * What of the node is promised. `asked`: the agent was asked to hold and has not answered; `held`: it confirmed;
 * `reserved`: a funding that names this lease may land; `open`: the lease runs; `resting`: it lasts without work, and
 * what it needs is free for others.
 */
export interface Allocation {
  readonly phase: "asked" | "held" | "reserved" | "open" | "resting";
  readonly resources: Resources;
  readonly terms: LeaseTerms;
  /** Milliseconds; the GPUs are free again after it. */
  readonly until: number;
  readonly tier: Tier;
  /** Of an open yieldable lease: it was told to give way. */
  readonly yielding: boolean;
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
  readonly version: number;
  readonly publication: Publication | null;
  /** The Books that may have a row of this node. */
  readonly published: readonly string[];
}

export function unknownNode(node: Address): NodeState {
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
    version: 0,
    publication: null,
    published: [],
  };
}

export function statusOf(state: NodeState): NodeView["status"] {
  if (state.connection?.greeted !== true) return "offline";
  return state.inventory?.draining === true ? "draining" : "online";
}

/** GPUs neither held nor leased; 0 for a node that is unknown. */
export function freeGpus(state: NodeState): number {
  const { offer, claimed } = state.inventory ?? { offer: { gpus: [] }, claimed: 0 };
  return Math.max(0, offer.gpus.length - taken(state, "gpus") - claimed);
}

/** What a firm demand could have, at once or after the notice: yieldable leases give way to it. */
export function gpusForFirm(state: NodeState): number {
  let sum = freeGpus(state);
  for (const { phase, tier, resources } of state.allocations.values())
    if (phase === "open" && tier === "yieldable") sum += resources.gpus;
  return Math.min(
    sum,
    Math.max(0, (state.inventory?.offer.gpus.length ?? 0) - (state.inventory?.claimed ?? 0)),
  );
}

/** What of a kind of resource is promised; a resting lease takes none. */
export function taken(state: NodeState, kind: keyof Resources): number {
  let sum = 0;
  for (const { phase, resources } of state.allocations.values())
    if (phase !== "resting") sum += resources[kind];
  return sum;
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
  };
}

/** When the object must wake by itself: the end of an allocation, or the next try to publish. */
export function dueAt(state: NodeState): number | null {
  const times = Array.from(state.allocations.values(), (allocation) => allocation.until);
  if (state.publication !== null) times.push(state.publication.retryAt);
  return times.length === 0 ? null : Math.min(...times);
}
