import { type Share, shortOf } from "@gpux/protocol/capacity";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import { FRAME_VERSION, type ToNode } from "@gpux/protocol/frames";
import type { LeaseId } from "@gpux/protocol/ids";
import { pricesIn, ratePerHour } from "@gpux/protocol/resources";
import { startPriceOf } from "@gpux/protocol/tariff";
import type { HoldRequest } from "../interfaces.ts";
import { withSale } from "../sales.ts";
import { type NodeEffect, type NodeStep, refused, unchanged } from "./event.ts";
import { type Allocation, freeCapacity, type NodeState, statusOf, type ToNodeBody } from "./state.ts";

/** How long after its expiry an open lease may still occupy its share, should its release never come. */
const OVERSTAY_MS = 3_600_000;

/** What a yieldable lease is told ahead. */
export const NOTICE_S = 30;
/** How long after it a firm demand has the first word. */
const COMING_MS = 60_000;

/** Resting leases take no GPUs, but each is a row here and a name in every welcome. */
const MAX_ALLOCATIONS = 256;

export function hold(state: NodeState, request: HoldRequest, now: number): NodeStep {
  const { inventory } = state;
  if (inventory === null) return refused("node_unknown");
  const status = statusOf(state);
  if (status === "offline") return refused("node_offline");
  if (status !== "online") return refused("no_capacity", `the node is ${status}`);
  if (request.expiresAt <= now) return refused("quote_expired");
  const known = state.allocations.get(request.lease);
  if (known !== undefined) {
    if (known.phase === "asked") return unchanged(state);
    return { ok: true, next: state, effects: [{ t: "answer", lease: request.lease, outcome: { ok: true } }] };
  }
  const { gpus, resources, tier } = request.text;
  const prices = pricesIn(inventory.offer, tier);
  if (
    request.terms.providerSigner !== state.node ||
    request.terms.provider !== inventory.provider ||
    prices === null ||
    request.terms.ratePerHour < ratePerHour(prices, resources) ||
    startPriceOf(request.text) < inventory.offer.start_price ||
    gpus.length !== resources.gpus
  )
    return refused("no_capacity", "the node's offer has changed");
  const share = { gpus, resources };
  const short = shortOf(freeCapacity(state), share);
  if (short !== null) {
    const room = tier === "firm" ? makeRoom(state, share, now) : null;
    const outcome = refused("no_capacity", `of the node's ${short}, too few are free`);
    if (room === null || !room.ok) return outcome;
    const soon = { ...outcome, detail: `of the node's ${short}, enough come free in ${NOTICE_S} s` };
    return { ...room, effects: [...room.effects, { t: "answer", lease: request.lease, outcome: soon }] };
  }
  if (state.allocations.size >= MAX_ALLOCATIONS)
    return refused("no_capacity", "the node serves too many leases");
  const allocation: Allocation = {
    phase: "asked",
    tier,
    yielding: false,
    yieldAt: 0,
    notBefore: 0,
    turn: 0,
    gpus,
    resources,
    terms: request.terms,
    until: request.expiresAt,
  };
  return tell(allocate(state, request.lease, allocation), {
    t: "hold",
    hold: request.lease,
    resources,
    terms: request.terms,
    text: request.text,
    expires_at: new Date(request.expiresAt).toISOString(),
  });
}

export function reserve(state: NodeState, lease: LeaseId, until: number, now: number): NodeStep {
  const allocation = state.allocations.get(lease);
  if (allocation === undefined || allocation.phase === "asked" || allocation.until <= now)
    return refused("quote_expired", "the node no longer holds these GPUs");
  if (isOpen(allocation)) return unchanged(state);
  // QTE-6: no money is sent after a node that has gone since it confirmed.
  if (allocation.phase === "held" && statusOf(state) === "offline")
    return refused("node_offline", "the node has gone since it confirmed the hold");
  const longer = Math.max(allocation.until, until);
  return {
    ok: true,
    next: allocate(state, lease, { ...allocation, phase: "reserved", until: longer }),
    effects: [],
  };
}

/** One that its owner claimed while it was held gives way at once, where it may (LSE-11). */
export function open(state: NodeState, lease: LeaseId, terms: LeaseTerms, now: number): NodeStep {
  const allocation = state.allocations.get(lease);
  if (allocation === undefined) return refused("quote_expired", "the reservation has lapsed");
  if (isOpen(allocation)) return unchanged(state);
  const until = terms.expiry * 1000 + OVERSTAY_MS;
  const opened = tell(allocate(state, lease, { ...allocation, phase: "open", until }), {
    t: "open",
    lease,
    terms,
  });
  const room = opened.ok ? makeRoom(opened.next, null, now) : null;
  return opened.ok && room?.ok ? { ...room, effects: [...opened.effects, ...room.effects] } : opened;
}

/** Its funding has landed, whether it has work now or not. */
export function isOpen({ phase }: Allocation): boolean {
  return phase === "open" || phase === "resting";
}

export function rest(state: NodeState, lease: LeaseId, turn: number): NodeStep {
  const allocation = state.allocations.get(lease);
  if (allocation === undefined || !isOpen(allocation) || turn <= allocation.turn) return unchanged(state);
  const next = allocate(state, lease, { ...allocation, phase: "resting", yielding: false, turn });
  return allocation.phase === "open" ? tell(next, { t: "rest", lease }) : { ok: true, next, effects: [] };
}

/** Beside what others have got meanwhile. */
export function rouse(state: NodeState, lease: LeaseId, turn: number, now: number): NodeStep {
  const { inventory } = state;
  const allocation = state.allocations.get(lease);
  if (allocation === undefined || inventory === null || !isOpen(allocation))
    return refused("quote_expired", "the node does not know this lease");
  if (turn <= allocation.turn) return unchanged(state);
  const roused = allocate(state, lease, { ...allocation, phase: "open", turn });
  if (allocation.phase === "open") return { ok: true, next: roused, effects: [] };
  const status = statusOf(state);
  if (status === "offline") return refused("node_offline");
  if (status === "draining") return refused("node_draining");
  if (now < allocation.notBefore)
    return refused("no_capacity", "a firm demand has the first word on what it gave way for");
  const short = shortOf(freeCapacity(state), allocation);
  return short === null
    ? tell(roused, { t: "open", lease, terms: allocation.terms })
    : refused("no_capacity", `of the node's ${short}, too few are free`);
}

/**
 * LSE-11: has as many yieldable leases give way, the newest first, as `share` needs (or, without one, as the owner's
 * claim does); null when they would not do. One that gave way to a demand is not roused at once: the demand is on its
 * way back.
 */
export function makeRoom(state: NodeState, share: Share | null, now: number): NodeStep | null {
  let step: NodeStep = { ok: true, next: state, effects: [] };
  let then = state;
  const fits = () =>
    share === null ? promisedGpus(then) === 0 : shortOf(freeCapacity(then), share) === null;
  // Those that are leaving already are counted first.
  const leaving = [...state.allocations]
    .reverse()
    .filter(([, { phase, tier }]) => phase === "open" && tier === "yieldable")
    .sort(([, a], [, b]) => Number(b.yielding) - Number(a.yielding));
  for (const [lease, allocation] of leaving) {
    if (fits()) break;
    then = allocate(then, lease, { ...allocation, phase: "resting" });
    if (allocation.yielding || !step.ok) continue;
    const yieldAt = now + NOTICE_S * 1_000;
    const notBefore = share === null ? 0 : yieldAt + COMING_MS;
    const marked = allocate(step.next, lease, { ...allocation, yielding: true, yieldAt, notBefore });
    const told = tell(marked, { t: "yield", lease, notice_s: NOTICE_S });
    step = told.ok ? { ...told, effects: [...step.effects, ...told.effects] } : told;
  }
  return share !== null && !fits() ? null : step;
}

/** GPUs that are promised and claimed beyond what there is. */
function promisedGpus({ inventory, allocations }: NodeState): number {
  let sum = (inventory?.claimed ?? 0) - (inventory?.offer.gpus.length ?? 0);
  for (const { phase, resources } of allocations.values()) if (phase !== "resting") sum += resources.gpus;
  return Math.max(0, sum);
}

/** The owner uses so many GPUs for himself. Whoever has them in the yieldable tier gives way. */
export function claim(state: NodeState, gpus: number, now: number): NodeStep {
  const { inventory } = state;
  if (inventory === null) return unchanged(state);
  return makeRoom({ ...state, inventory: { ...inventory, claimed: gpus } }, null, now) ?? unchanged(state);
}

export function dial(state: NodeState, lease: LeaseId): NodeStep {
  const isTold = state.unacknowledged.some((frame) => frame.t === "dial" && frame.lease === lease);
  if (isTold || state.allocations.get(lease)?.phase !== "resting") return unchanged(state);
  return tell(state, { t: "dial", lease });
}

/** The lease is over, and what it was paid is part of the node's prices. */
export function release(state: NodeState, lease: LeaseId, paid: bigint, now: number): NodeStep {
  const allocation = state.allocations.get(lease);
  if (allocation === undefined) return unchanged(state);
  return freed({ ...state, sales: withSale(state.sales, allocation, paid, now) }, lease);
}

/** The agent hears of it, unless it never heard of the lease. */
export function freed(state: NodeState, lease: LeaseId): NodeStep {
  const allocations = new Map(state.allocations);
  allocations.delete(lease);
  const unacknowledged = state.unacknowledged.filter((frame) => leaseNamed(frame) !== lease);
  return tell({ ...state, allocations, unacknowledged }, { t: "release", hold: lease });
}

export function lapse(state: NodeState, now: number): NodeStep {
  let next = state;
  const effects: NodeEffect[] = [];
  for (const [lease, allocation] of state.allocations) {
    if (allocation.until > now) continue;
    if (allocation.phase === "asked") effects.push({ t: "answer", lease, outcome: refused("node_offline") });
    const step = freed(next, lease);
    if (!step.ok) return step;
    next = step.next;
    effects.push(...step.effects);
  }
  return { ok: true, next, effects };
}

export function allocate(state: NodeState, lease: LeaseId, allocation: Allocation): NodeState {
  return { ...state, allocations: new Map(state.allocations).set(lease, allocation) };
}

/**
 * Sends a reliable frame: kept until acknowledged, so that a node which is away now hears of it when it is back. So does
 * one whose hello has not come yet: said at once it would overtake what is said again then, which the agent, that has
 * heard a higher seq, would drop.
 */
export function tell(state: NodeState, body: ToNodeBody): NodeStep {
  const frame: ToNode = { v: FRAME_VERSION, seq: state.sent + 1, ack: state.received, ...body };
  const next = { ...state, sent: frame.seq, unacknowledged: [...state.unacknowledged, frame] };
  return { ok: true, next, effects: state.connection?.greeted === true ? [{ t: "send", frame }] : [] };
}

/** What the agent has not acknowledged, as it is to be said now: of a notice, what is left of it. */
export function replayed({ unacknowledged, allocations }: NodeState, now: number): ToNode[] {
  return unacknowledged.map((frame) => {
    if (frame.t !== "yield") return frame;
    const left = Math.max(0, Math.ceil(((allocations.get(frame.lease)?.yieldAt ?? 0) - now) / 1_000));
    return { ...frame, notice_s: Math.min(frame.notice_s, left) };
  });
}

/** A frame that is never replayed. */
export function say(state: NodeState, body: ToNodeBody): NodeEffect {
  return { t: "send", frame: { v: FRAME_VERSION, seq: 0, ack: state.received, ...body } };
}

function leaseNamed(frame: ToNode): LeaseId | null {
  if (frame.t === "hold" || frame.t === "release") return frame.hold;
  return "lease" in frame ? frame.lease : null;
}
