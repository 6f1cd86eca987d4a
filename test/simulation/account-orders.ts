import {
  GATHER_MS,
  keptLegs,
  type Leg,
  missing,
  type OrderDuty,
  type OrderEvent,
  type OrderState,
  orderDueAt,
  orderDuties,
  takenBy,
} from "@gpux/durable-objects/account/order";
import type { BookEntry, Outcome, Refused } from "@gpux/durable-objects/interfaces";
import { isFromCredit, type LeaseFunding } from "@gpux/protocol/funding";
import { base32, type LeaseId, OrderId } from "@gpux/protocol/ids";
import type { Intent } from "@gpux/protocol/intent";
import { type OrderAuthorization, orderAmounts } from "@gpux/protocol/order";
import { hexToBytes } from "viem/utils";
import { type Actor, type Flow, settled, Unreachable } from "./actor.ts";
import type { Setting } from "./setting.ts";

const RETRY_MS = 5_000;

/** Terms of a lease with a listed node, as it describes itself now; null when it does not fit. */
export type Offer = (entry: BookEntry) => Flow<Omit<Leg, "state"> | null>;

/** The shell of durable-objects/account/{orders,ordering,parties}.ts over the same machine. */
export class AccountOrders {
  readonly #account: Actor;
  readonly #setting: Setting;
  readonly #onLeases: (state: OrderState) => void;
  /** What a crash leaves. */
  readonly #rows = new Map<OrderId, OrderState>();
  readonly #alarms = new Map<OrderId, number>();
  #gathering = new Set<OrderId>();

  constructor(account: Actor, setting: Setting, onLeases: (state: OrderState) => void) {
    this.#account = account;
    this.#setting = setting;
    this.#onLeases = onLeases;
  }

  crash(): void {
    this.#gathering = new Set();
  }

  states(): readonly OrderState[] {
    return [...this.#rows.values()];
  }

  /** Those that hold nodes and are not funded. */
  open(): number {
    return this.states().filter(({ phase }) => phase === "gathering" || phase === "quoted").length;
  }

  isQuiet(): boolean {
    return this.states().every((state) => orderDuties(state).length === 0 && state.phase !== "gathering");
  }

  *place(nodes: number, listed: readonly BookEntry[], offer: Offer): Flow<Outcome<{ order: OrderState }>> {
    const { random, schedule } = this.#setting;
    const bytes = hexToBytes(random.bytes32()).slice(0, 20);
    const id = OrderId.parse(`ord_${base32(bytes)}`);
    const head = { id, scope: null, bodyHash: id, nodes, spread: "any" as const };
    const createdAt = schedule.now;
    this.#rows.set(id, { ...head, createdAt, phase: "gathering", legs: [], funding: null, end: null });
    this.#wakeAt(id);
    this.#gathering.add(id);
    try {
      for (const entry of listed) {
        const state = this.#state(id);
        if (state.phase !== "gathering" || schedule.now >= createdAt + GATHER_MS) break;
        if (missing(state) > 0 && !takenBy(state).nodes.includes(entry.node))
          yield* this.#ask(id, entry, offer);
      }
      this.#apply(id, { t: "give_up", code: "no_capacity" });
      yield* this.#drive(id);
      const order = this.#state(id);
      return order.phase === "quoted" ? { ok: true, order } : { ok: false, code: "no_capacity" };
    } finally {
      this.#gathering.delete(id);
      this.#wakeAt(id);
    }
  }

  *fund(id: OrderId, funding: OrderAuthorization): Flow<Outcome<{ order: OrderState }>> {
    if (!this.#rows.has(id)) return { ok: false, code: "order_unknown" };
    const refusal = this.#apply(id, { t: "fund", funding });
    if (refusal !== null) return refusal;
    this.#wakeAt(id);
    yield* this.#drive(id);
    const order = this.#state(id);
    return order.phase === "released"
      ? { ok: false, code: order.end?.code ?? "quote_expired" }
      : { ok: true, order };
  }

  *#ask(id: OrderId, entry: BookEntry, offer: Offer): Flow<void> {
    let lease: LeaseId | null = null;
    let isHeld = false;
    try {
      const leg = yield* offer(entry);
      if (leg === null) return;
      lease = leg.hold.lease;
      this.#apply(id, { t: "ask", leg });
      isHeld = yield* this.#hold({ ...leg, state: "asked" });
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
    }
    if (lease !== null) this.#apply(id, { t: isHeld ? "held" : "missed", lease });
  }

  *#hold({ hold }: Leg): Flow<boolean> {
    const { network } = this.#setting;
    const node = this.#setting.node(hold.terms.providerSigner);
    const held = yield* network.call(this.#account, node, "hold", () => node.hold(hold));
    if (!held.ok) return false;
    const lease = this.#setting.lease(hold.lease);
    return (yield* network.call(this.#account, lease, "quote", () => lease.quote(hold))).ok;
  }

  /** Does what the order's state asks for until nothing is left, or nothing can be done now: then it is tried later. */
  *#drive(id: OrderId): Flow<void> {
    for (let isMoving = true; isMoving; ) {
      isMoving = false;
      for (const duty of orderDuties(this.#state(id))) {
        const event = yield* this.#carryOut(this.#state(id), duty);
        const before = this.#state(id);
        if (event !== null) this.#apply(id, event);
        isMoving ||= this.#state(id) !== before;
      }
    }
    this.#wakeAt(id);
  }

  *#carryOut(state: OrderState, duty: OrderDuty): Flow<OrderEvent | null> {
    try {
      return yield* this.#perform(state, duty);
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      if (duty.t === "reserve") return { t: "refused", lease: duty.leg.hold.lease, code: "node_offline" };
      return duty.t === "submit" ? { t: "submitted" } : null;
    }
  }

  *#perform(state: OrderState, duty: OrderDuty): Flow<OrderEvent | null> {
    const { network, relayer } = this.#setting;
    const me = this.#account;
    const { funding } = state;
    if (duty.t === "free") {
      const { lease: id, terms } = duty.leg.hold;
      const [lease, node] = [this.#setting.lease(id), this.#setting.node(terms.providerSigner)];
      yield* network.call(me, lease, "let go", () => lease.letGo(), true);
      yield* network.call(me, node, "release", () => node.release(id), true);
      return { t: "freed", lease: id };
    }
    if (funding === null) return null;
    if (duty.t === "submit") {
      const intent = yield* this.#intentOf(state, funding);
      if (intent === null) return refused({ ok: false, code: "funding_invalid" });
      const answer = yield* network.call(me, relayer, "fund order", () => relayer.submit(intent), true);
      return answer.status === "rejected"
        ? refused({ ok: false, code: "funding_invalid" })
        : { t: "submitted" };
    }
    const lease = this.#setting.lease(duty.leg.hold.lease);
    if (duty.t === "reserve") {
      const ask = () => lease.reserve(funding.valid_before);
      const reserved = yield* network.call(me, lease, "reserve", ask, true);
      const of = { lease: duty.leg.hold.lease };
      return reserved.ok ? { t: "reserved", ...of } : { t: "refused", ...of, code: reserved.code };
    }
    return yield* this.#tell(state, duty.leg, funding);
  }

  *#tell(state: OrderState, leg: Leg, funding: OrderAuthorization): Flow<OrderEvent | null> {
    const { network } = this.#setting;
    const amounts = [...orderAmounts(funding)];
    const legs = keptLegs(state);
    const index = legs.findIndex(({ hold }) => hold.lease === leg.hold.lease);
    const lease = this.#setting.lease(leg.hold.lease);
    yield* network.call(this.#account, lease, "quote", () => lease.quote(leg.hold), true);
    const plan = { order: state.id, index, terms: legs.map(({ hold }) => hold.terms), amounts };
    const amount = amounts[index] ?? leg.amount;
    const tell = () => lease.fund(shareOf(funding, amount), plan);
    const told = yield* network.call(this.#account, lease, "fund", tell, true);
    return told.ok ? { t: "told", lease: leg.hold.lease } : null;
  }

  /** One intent for all leases: the chain takes it whole or not at all. Null: the meter does not sign its half. */
  *#intentOf(state: OrderState, funding: OrderAuthorization): Flow<Intent | null> {
    const { meter, network } = this.#setting;
    const terms = keptLegs(state).map(({ hold }) => hold.terms);
    const [first] = terms;
    if (first === undefined) throw new Error("an order without leases is funded");
    const { signature, valid_before: validBefore } = funding;
    if (isFromCredit(funding)) {
      const request = { terms, fundedTo: funding.funded_to, validBefore, signature };
      const cosign = () => settled(meter.allocate(request));
      const cosigned = yield* network.call(this.#account, meter, "allocate order", cosign, true);
      return cosigned.ok ? { kind: "allocate", ...request, meterSignature: cosigned.signature } : null;
    }
    const { amounts, salt, valid_after: validAfter } = funding;
    return { kind: "fund", from: first.payer, terms, amounts, salt, validAfter, validBefore, signature };
  }

  #state(id: OrderId): OrderState {
    const state = this.#rows.get(id);
    if (state === undefined) throw new Error("an order that is not there was told something");
    return state;
  }

  #apply(id: OrderId, event: OrderEvent): Refused | null {
    const before = this.#state(id);
    const step = this.#setting.machines.account.stepOrder(before, event, this.#setting.schedule.now);
    if (!step.ok) return step;
    this.#rows.set(id, step.next);
    if (step.next !== before) this.#onLeases(step.next);
    return null;
  }

  /** The alarm: for a duty that could not be done, or for what time brings about. */
  #wakeAt(id: OrderId): void {
    const { schedule } = this.#setting;
    const state = this.#state(id);
    const isLater = orderDuties(state).length > 0 || this.#gathering.has(id);
    const at = isLater ? schedule.now + RETRY_MS : orderDueAt(state);
    if (!Number.isFinite(at) || (this.#alarms.get(id) ?? Number.POSITIVE_INFINITY) <= at) return;
    this.#alarms.set(id, at);
    schedule.at(at, `${this.#account.name} orders`, () => {
      if (this.#alarms.get(id) !== at) return;
      this.#alarms.delete(id);
      if (this.#gathering.has(id)) return this.#wakeAt(id);
      this.#apply(id, { t: "tick" });
      // This life may end before it is done.
      this.#wakeAt(id);
      this.#account.run(this.#drive(id), () => {});
    });
  }
}

function refused({ code, detail }: Refused): OrderEvent {
  return { t: "refused", code, detail };
}

/** What one of its leases keeps of an order's funding. */
function shareOf(funding: OrderAuthorization, amount: bigint): LeaseFunding {
  if (isFromCredit(funding)) return { ...funding, funded_to: amount };
  const { amounts: _, ...authorization } = funding;
  return { ...authorization, amount };
}
