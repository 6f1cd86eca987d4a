import type { Address } from "@gpux/protocol/ids";
import type { OrderAuthorization } from "@gpux/protocol/order";
import type { Blocker } from "@gpux/protocol/resources";
import type { Outcome, Refused } from "../interfaces.ts";
import {
  GATHER_MS,
  type Leg,
  missing,
  type OrderDuty,
  type OrderEvent,
  type OrderState,
  orderDuties,
  takenBy,
} from "./order.ts";

/** A listed node that may hold. */
export interface Candidate {
  readonly node: Address;
  readonly provider: Address;
}

/** Who may hold. Calls that throw leave unknown what they did. */
export interface Market<C extends Candidate> {
  /** The terms of a lease with it; or what of the demand it fails. */
  offer(
    candidate: C,
  ): Promise<{ ok: true; leg: Omit<Leg, "state"> } | { ok: false; blockers: readonly Blocker[] }>;
  /** Whether the agent confirmed, and the lease waits in `quoted`. */
  hold(leg: Leg): Promise<boolean>;
}

/** Who must hear of what was decided. Every call may be repeated; one that throws leaves unknown what it did. */
export interface Parties {
  free(leg: Leg): Promise<void>;
  reserve(leg: Leg, funding: OrderAuthorization): Promise<Outcome>;
  /** To the relayer; refused when the chain would refuse it. */
  submit(state: OrderState, funding: OrderAuthorization): Promise<Outcome>;
  /** That it is funded. */
  tell(leg: Leg, state: OrderState, funding: OrderAuthorization): Promise<void>;
}

/** The order as it stands, in whoever keeps it; `apply` has written the next state when it returns. */
export interface Desk {
  state(): OrderState;
  /** Whether it changed anything. */
  apply(event: OrderEvent): boolean;
  now(): number;
  /** For the operator: it is not known what came of a duty. */
  failed(duty: OrderDuty, error: unknown): void;
}

/**
 * ORD-2: asks nodes to hold, as many at once as are missing, and the next ones for those that do not, until all hold or
 * nobody is left to ask. Returns the most that held at once and what the others failed.
 */
export async function gather<C extends Candidate>(
  desk: Desk,
  market: Market<C>,
  listed: readonly C[],
): Promise<{ readonly found: number; readonly failed: readonly Blocker[] }> {
  const failed: Blocker[] = [];
  let queue = [...listed];
  let found = 0;
  while (desk.state().phase === "gathering" && desk.now() < desk.state().createdAt + GATHER_MS) {
    const round = nextRound(desk.state(), queue);
    // Nobody holds anything for an order that those who are left cannot fill.
    if (round.length === 0 || round.length < missing(desk.state())) {
      found = Math.max(found, desk.state().nodes - missing(desk.state()) + round.length);
      break;
    }
    queue = queue.filter((candidate) => !round.includes(candidate));
    await Promise.all(round.map((candidate) => ask(desk, market, candidate, failed)));
    found = Math.max(found, desk.state().legs.filter(({ state }) => state === "held").length);
  }
  return { found, failed };
}

async function ask<C extends Candidate>(
  desk: Desk,
  market: Market<C>,
  candidate: C,
  failed: Blocker[],
): Promise<void> {
  const offered = await market.offer(candidate).catch(() => ({ ok: false, blockers: ["gpus"] }) as const);
  if (!offered.ok) {
    failed.push(...offered.blockers);
    return;
  }
  desk.apply({ t: "ask", leg: offered.leg });
  const { lease } = offered.leg.hold;
  const isHeld = await market.hold({ ...offered.leg, state: "asked" }).catch(() => false);
  if (!isHeld) failed.push("gpus");
  desk.apply({ t: isHeld ? "held" : "missed", lease });
}

/** As many as are missing, best first, of different machines, and of different owners where they must be. */
function nextRound<C extends Candidate>(state: OrderState, queue: readonly C[]): C[] {
  const taken = takenBy(state);
  const nodes = new Set(taken.nodes);
  const providers = new Set(taken.providers);
  const round: C[] = [];
  for (const candidate of queue) {
    if (round.length === missing(state)) break;
    if (nodes.has(candidate.node) || providers.has(candidate.provider)) continue;
    round.push(candidate);
    nodes.add(candidate.node);
    if (state.spread === "distinct-provider") providers.add(candidate.provider);
  }
  return round;
}

/** Does what the order's state asks for until nothing is left, or nothing can be done now: then it is tried later. */
export async function drive(desk: Desk, parties: Parties): Promise<void> {
  for (let isMoving = true; isMoving; ) {
    const duties = orderDuties(desk.state());
    const events = await Promise.all(duties.map((duty) => carryOut(desk, parties, duty)));
    isMoving = events.map((event) => event !== null && desk.apply(event)).includes(true);
  }
}

/** One try; null: it is not known what came of it, and it must be tried again. */
async function carryOut(desk: Desk, parties: Parties, duty: OrderDuty): Promise<OrderEvent | null> {
  const state = desk.state();
  const { funding } = state;
  try {
    if (duty.t === "free") {
      await parties.free(duty.leg);
      return { t: "freed", lease: duty.leg.hold.lease };
    }
    if (funding === null) return null;
    if (duty.t === "tell") {
      await parties.tell(duty.leg, state, funding);
      return { t: "told", lease: duty.leg.hold.lease };
    }
    const done =
      duty.t === "reserve" ? await parties.reserve(duty.leg, funding) : await parties.submit(state, funding);
    if (!done.ok) return refusal(done, duty);
    return duty.t === "reserve" ? { t: "reserved", lease: duty.leg.hold.lease } : { t: "submitted" };
  } catch (error) {
    desk.failed(duty, error);
    // Nothing is signed away yet, so a reservation that may have failed has failed. A funding that may have gone is
    // gone: from then on each lease asks the relayer itself what became of it.
    if (duty.t === "reserve")
      return refusal({ ok: false, code: "node_offline", detail: "a node could not be asked" }, duty);
    return duty.t === "submit" ? { t: "submitted" } : null;
  }
}

function refusal({ code, detail }: Refused, duty: OrderDuty): OrderEvent {
  const of = duty.t === "reserve" ? { lease: duty.leg.hold.lease } : {};
  return { t: "refused", ...of, code, detail };
}
