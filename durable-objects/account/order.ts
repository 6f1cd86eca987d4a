import type { ErrorCode } from "@gpux/protocol/errors";
import { fundingTimeFault } from "@gpux/protocol/funding";
import type { Address, LeaseId, OrderId } from "@gpux/protocol/ids";
import { type OrderAuthorization, orderAmounts, orderFundingKey, type Spread } from "@gpux/protocol/order";
import type { HoldRequest, Refused } from "../interfaces.ts";

/** From the first hold on: what is not held by then is not waited for, so that there is time left to sign. */
export const GATHER_MS = 12_000;
/** How long after that a life that is still gathering counts as cut off. */
const CUT_OFF_MS = 10_000;

/** One node of an order and the lease that it would become. */
export interface Leg {
  readonly hold: HoldRequest;
  readonly leaseHash: `0x${string}`;
  readonly amount: bigint;
  /** A challenge vouched for the node's GPUs when it was asked. */
  readonly verified: boolean;
  /**
   * `asked`: nobody knows yet whether the node holds; `held`: it does, and the lease waits in `quoted`; `reserved`: it
   * does until the funding can land no more; `told`: the lease has the funding; `freeing`: node and lease must still
   * hear that nothing comes of it.
   */
  readonly state: "asked" | "held" | "reserved" | "told" | "freeing";
}

/**
 * `gathering`: nodes are asked to hold; `quoted`: all of them do; `reserving`: it is signed, and the holds become
 * reservations; `submitting`: all have, and the funding may be on its way to the chain from here on; `telling`: it is,
 * and the leases hear of it; `open`: all have heard; `released`: nothing comes of it.
 */
export type OrderPhase =
  | "gathering"
  | "quoted"
  | "reserving"
  | "submitting"
  | "telling"
  | "open"
  | "released";

export interface OrderState {
  readonly id: OrderId;
  /** The request that it answers: its idempotency key's scope, null once a retry begins anew, and its body's hash. */
  readonly scope: string | null;
  readonly bodyHash: string;
  readonly nodes: number;
  readonly spread: Spread;
  /** Milliseconds. */
  readonly createdAt: number;
  readonly phase: OrderPhase;
  readonly legs: readonly Leg[];
  readonly funding: OrderAuthorization | null;
  readonly end: { readonly code: ErrorCode; readonly detail?: string | undefined } | null;
}

export type OrderEvent =
  /** Before the node is asked: after a crash it is known whom to tell. */
  | { readonly t: "ask"; readonly leg: Omit<Leg, "state"> }
  | { readonly t: "held"; readonly lease: LeaseId }
  /** The node declined, or nobody knows what it did. */
  | { readonly t: "missed"; readonly lease: LeaseId }
  | { readonly t: "give_up"; readonly code: ErrorCode; readonly detail?: string | undefined }
  | { readonly t: "fund"; readonly funding: OrderAuthorization }
  | { readonly t: "reserved"; readonly lease: LeaseId }
  /** A node or a lease no longer holds (`lease`), or the chain would refuse the funding. */
  | {
      readonly t: "refused";
      readonly lease?: LeaseId;
      readonly code: ErrorCode;
      readonly detail?: string | undefined;
    }
  /** The relayer has the funding, or may have it. */
  | { readonly t: "submitted" }
  | { readonly t: "told"; readonly lease: LeaseId }
  | { readonly t: "freed"; readonly lease: LeaseId }
  | { readonly t: "tick" };

export type OrderStep = { readonly ok: true; readonly next: OrderState } | Refused;

/** What an order in this state must still get done. Derived, never stored; each may be done twice (ADR 7). */
export type OrderDuty =
  | { readonly t: "reserve" | "tell" | "free"; readonly leg: Leg }
  | { readonly t: "submit" };

/**
 * All or nothing (SPEC ORD-*). Pure. Until `submitting` anything that fails releases everything; from there on
 * everything is funded: the one authorization lands for all or for none, and who has not heard of it is told until it has.
 */
export function stepOrder(state: OrderState, event: OrderEvent, now: number): OrderStep {
  switch (event.t) {
    case "ask":
      return state.phase === "gathering"
        ? ok({ ...state, legs: [...state.legs, { ...event.leg, state: "asked" }] })
        : ok(state);
    case "held":
      return ok(gathered(moved(state, event.lease, "asked", "held")));
    case "missed":
      return ok(moved(state, event.lease, "asked", "freeing"));
    case "give_up":
      return ok(state.phase === "gathering" ? released(state, event) : state);
    case "fund":
      return fund(state, event.funding, now);
    case "reserved": {
      if (state.phase !== "reserving") return ok(state);
      const next = moved(state, event.lease, "held", "reserved");
      return ok(allIn(next, "reserved") ? { ...next, phase: "submitting" } : next);
    }
    case "refused":
      return ok(isDecisive(state, event.lease) ? released(state, event) : state);
    case "submitted":
      return ok(state.phase === "submitting" ? { ...state, phase: "telling" } : state);
    case "told": {
      const next = moved(state, event.lease, "reserved", "told");
      return ok(next.phase === "telling" && allIn(next, "told") ? { ...next, phase: "open" } : next);
    }
    case "freed": {
      const legs = state.legs.filter(({ hold, state: is }) => hold.lease !== event.lease || is !== "freeing");
      return ok(legs.length === state.legs.length ? state : { ...state, legs });
    }
    case "tick":
      return ok(lapsed(state, now));
  }
}

export function orderDuties(state: OrderState): OrderDuty[] {
  const all = (is: Leg["state"], t: "reserve" | "tell" | "free"): OrderDuty[] =>
    state.legs.filter((leg) => leg.state === is).map((leg) => ({ t, leg }));
  const free = all("freeing", "free");
  switch (state.phase) {
    case "reserving":
      return [...free, ...all("held", "reserve")];
    case "submitting":
      return [...free, { t: "submit" }];
    case "telling":
      return [...free, ...all("reserved", "tell")];
    default:
      return free;
  }
}

/** Milliseconds until which it may be funded: the first of its holds to end. */
export function orderExpiry(state: OrderState): number {
  const kept = keptLegs(state);
  return kept.length === 0 ? state.createdAt : Math.min(...kept.map(({ hold }) => hold.expiresAt));
}

/** When time brings something about; infinity when only an event can. Duties are not counted. */
export function orderDueAt(state: OrderState): number {
  if (state.phase === "gathering") return state.createdAt + GATHER_MS + CUT_OFF_MS;
  return state.phase === "quoted" ? orderExpiry(state) : Number.POSITIVE_INFINITY;
}

/** Those that may still come to something, in the order that amounts are given in. */
export function keptLegs({ legs }: OrderState): Leg[] {
  return legs.filter(({ state }) => state !== "freeing");
}

/** How many more nodes must hold. */
export function missing(state: OrderState): number {
  return state.nodes - keptLegs(state).length;
}

/** What the next node must not be: another lease of one machine, or of one owner where they must differ. */
export function takenBy(state: OrderState): { nodes: Address[]; providers: Address[] } {
  const kept = keptLegs(state).map(({ hold }) => hold.terms);
  return {
    nodes: kept.map(({ providerSigner }) => providerSigner),
    providers: state.spread === "any" ? [] : kept.map(({ provider }) => provider),
  };
}

/** A reservation may be asked for twice at once: one that failed says nothing when the other has been made. */
function isDecisive({ phase, legs }: OrderState, lease: LeaseId | undefined): boolean {
  if (lease === undefined) return phase === "reserving" || phase === "submitting";
  return phase === "reserving" && legs.some((leg) => leg.hold.lease === lease && leg.state === "held");
}

const ok = (next: OrderState): OrderStep => ({ ok: true, next });

function moved(state: OrderState, lease: LeaseId, from: Leg["state"], to: Leg["state"]): OrderState {
  const isMeant = (leg: Leg) => leg.hold.lease === lease && leg.state === from;
  if (!state.legs.some(isMeant)) return state;
  return { ...state, legs: state.legs.map((leg) => (isMeant(leg) ? { ...leg, state: to } : leg)) };
}

function allIn({ legs, nodes }: OrderState, is: Leg["state"]): boolean {
  return legs.filter(({ state }) => state === is).length === nodes;
}

function gathered(state: OrderState): OrderState {
  return state.phase === "gathering" && allIn(state, "held") ? { ...state, phase: "quoted" } : state;
}

function released(
  state: OrderState,
  { code, detail }: { readonly code: ErrorCode; readonly detail?: string | undefined },
): OrderState {
  const legs = state.legs.map((leg): Leg => ({ ...leg, state: "freeing" }));
  return { ...state, phase: "released", legs, end: { code, ...(detail === undefined ? {} : { detail }) } };
}

function lapsed(state: OrderState, now: number): OrderState {
  if (now < orderDueAt(state)) return state;
  return state.phase === "gathering"
    ? released(state, { code: "no_capacity", detail: "it was cut off while its nodes were asked" })
    : released(state, { code: "quote_expired" });
}

function fund(state: OrderState, funding: OrderAuthorization, now: number): OrderStep {
  if (state.funding !== null)
    return orderFundingKey(state.funding) === orderFundingKey(funding) && state.phase !== "released"
      ? ok(state)
      : refuse(state.end?.code ?? "order_closed", state.end?.detail ?? "another authorization funds it");
  if (state.phase === "gathering") return refuse("order_unknown", "its nodes are still being asked");
  if (state.phase === "released" || now >= orderExpiry(state)) return refuse("quote_expired");
  const amounts = orderAmounts(funding);
  if (amounts.length !== state.nodes)
    return refuse("funding_invalid", `it has ${amounts.length} amounts for ${state.nodes} leases`);
  if (amounts.includes(0n)) return refuse("funding_invalid", "an amount is zero");
  const fault = fundingTimeFault(funding.valid_before, now);
  if (fault !== null) return refuse("funding_invalid", fault);
  return ok({ ...state, phase: "reserving", funding });
}

function refuse(code: ErrorCode, detail?: string): Refused {
  return detail === undefined ? { ok: false, code } : { ok: false, code, detail };
}
