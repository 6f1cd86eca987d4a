import { type Address, base32, OrderId } from "@gpux/protocol/ids";
import { type Order, type OrderAuthorization, type OrderRequest, orderAmounts } from "@gpux/protocol/order";
import type { Demand } from "@gpux/protocol/resources";
import type { ObjectEnv } from "../bindings.ts";
import { configOf } from "../config.ts";
import type { Found, NothingFits, Outcome } from "../interfaces.ts";
import { findOffers } from "../offers.ts";
import {
  keptLegs,
  type OrderEvent,
  type OrderState,
  orderDueAt,
  orderDuties,
  orderExpiry,
  stepOrder,
} from "./order.ts";
import { type Desk, drive, gather } from "./ordering.ts";
import { marketOf, partiesOf } from "./parties.ts";
import { quoteOf, type Wanted } from "./quote.ts";
import { type Blockers, count, demandFor } from "./quoting.ts";
import type { AccountStore } from "./store.ts";

/** Listed nodes that an order looks at: those that decline, or share an owner, must not end it. */
const LOOK_AT = 256;
/** A duty that could not be done is tried again after this. */
const RETRY_MS = 5_000;

/** The demand for each node of an order. */
export function demandOf({ demand, resources }: OrderRequest): Demand {
  return resources === undefined ? demand : { ...demand, resources };
}

/** The orders of one account: the shell around order.ts and ordering.ts. */
export class Orders {
  readonly #env: ObjectEnv;
  readonly #store: AccountStore;
  readonly #rearm: () => void;
  /** Those that this very life is gathering for. */
  readonly #gathering = new Set<OrderId>();
  /** Those that something may still happen to, as their rows have them. */
  readonly #live = new Map<OrderId, OrderState>();

  constructor(env: ObjectEnv, store: AccountStore, rearm: () => void) {
    this.#env = env;
    this.#store = store;
    this.#rearm = rearm;
  }

  /** ORD-6: the order that a request with this key stands for by now; null when it may be dealt with anew. */
  async known(scope: string, bodyHash: string, by: Address): Promise<Outcome<{ order: Order }> | null> {
    const known = this.#store.orderOf(scope);
    if (known === null) return null;
    if (known.bodyHash !== bodyHash) return { ok: false, code: "idempotency_key_reused" };
    if (this.#gathering.has(known.id)) return { ok: false, code: "idempotency_in_progress" };
    const state = this.#apply(known.id, { t: "tick" });
    if (state.phase === "gathering") {
      // Cut off by a crash: what was held is let go of, and the retry begins anew.
      this.#apply(known.id, { t: "give_up", code: "no_capacity" });
      await this.#drive(known.id);
    }
    if (state.phase === "gathering" || state.phase === "released") {
      this.#forgetScope(known.id);
      return null;
    }
    return { ok: true, order: await this.#view(known.id, by) };
  }

  async place(by: Address, scope: string, bodyHash: string, request: OrderRequest) {
    const { nodes, spread, resources: _, demand: __, ...rest } = request;
    const demand = demandOf(request);
    const wanted: Wanted = { ...rest, demand };
    const id = OrderId.parse(`ord_${base32(crypto.getRandomValues(new Uint8Array(20)))}`);
    const createdAt = Date.now();
    const head = { id, scope, bodyHash, nodes, spread, createdAt };
    this.#save(null, { ...head, phase: "gathering", legs: [], funding: null, end: null });
    this.#rearm();
    this.#gathering.add(id);
    try {
      const distinctProviders = spread === "distinct-provider";
      const listed = await findOffers(this.#env, demandFor(wanted), LOOK_AT, {
        toBuy: true,
        distinctProviders,
      });
      const candidates = listed.entries.map((entry) => ({
        node: entry.node,
        provider: entry.provider,
        entry,
      }));
      const blockers: Blockers = { ...listed.blockers };
      const { found, failed } = await gather(this.#desk(id), marketOf(this.#env, by, wanted), candidates);
      await this.#drive(id);
      if (this.#state(id).phase === "quoted") return { ok: true as const, order: await this.#view(id, by) };
      this.#apply(id, {
        t: "give_up",
        code: "no_capacity",
        detail: `${found} of ${nodes} nodes could be held`,
      });
      count(blockers, failed);
      await this.#drive(id);
      this.#forgetScope(id);
      return tooFew(listed, blockers, found, nodes);
    } finally {
      this.#gathering.delete(id);
      this.#rearm();
    }
  }

  async fund(by: Address, id: OrderId, funding: OrderAuthorization): Promise<Outcome<{ order: Order }>> {
    if (this.#store.order(id) === null) return { ok: false, code: "order_unknown" };
    const before = this.#state(id);
    const step = stepOrder(before, { t: "fund", funding }, Date.now());
    if (!step.ok) return step;
    if (step.next !== before) this.#save(before, step.next);
    this.#rearm();
    await this.#drive(id);
    this.#rearm();
    const { phase, end } = this.#state(id);
    if (phase === "released")
      return { ok: false, code: end?.code ?? "quote_expired", ...detailOf(end?.detail) };
    return { ok: true, order: await this.#view(id, by) };
  }

  async view(id: OrderId, by: Address): Promise<Outcome<{ order: Order }>> {
    if (this.#store.order(id) === null) return { ok: false, code: "order_unknown" };
    this.#apply(id, { t: "tick" });
    return { ok: true, order: await this.#view(id, by) };
  }

  /** Everything that is due of any order; what cannot be done now is due again. */
  async alarm(): Promise<void> {
    for (const { id } of this.#store.liveOrders()) {
      if (this.#gathering.has(id)) continue;
      this.#apply(id, { t: "tick" });
      await this.#drive(id);
    }
  }

  /** When the account must wake for its orders, milliseconds; null: for none. */
  dueAt(now: number): number | null {
    const times = this.#store
      .liveOrders()
      .map((state) => (orderDuties(state).length > 0 ? now + RETRY_MS : orderDueAt(state)))
      .filter((at) => Number.isFinite(at));
    return times.length === 0 ? null : Math.min(...times);
  }

  isFunded(id: OrderId): boolean {
    return this.#store.order(id)?.funding != null;
  }

  /** How many hold nodes and are not funded. */
  open(now: number): number {
    return this.#store.liveOrders().filter((state) => state.phase === "quoted" && orderExpiry(state) > now)
      .length;
  }

  #state(id: OrderId): OrderState {
    const state = this.#live.get(id) ?? this.#store.order(id);
    if (state === null) throw new Error("an order that is not there was told something");
    return state;
  }

  #save(before: OrderState | null, after: OrderState): void {
    this.#store.saveOrder(before, after);
    const isOver = orderDuties(after).length === 0 && !Number.isFinite(orderDueAt(after));
    if (isOver) this.#live.delete(after.id);
    else this.#live.set(after.id, after);
  }

  /** The next request with its key is a new one. */
  #forgetScope(id: OrderId): void {
    const state = this.#state(id);
    this.#save(state, { ...state, scope: null });
  }

  #apply(id: OrderId, event: OrderEvent): OrderState {
    const before = this.#state(id);
    const step = stepOrder(before, event, Date.now());
    if (!step.ok) return before;
    if (step.next !== before) {
      this.#save(before, step.next);
      this.#keepLeases(before, step.next);
    }
    return step.next;
  }

  /** The account's own rows of the leases follow the order's. */
  #keepLeases(before: OrderState, after: OrderState): void {
    const was = new Map(before.legs.map((leg) => [leg.hold.lease, leg.state]));
    for (const { hold: held, state } of after.legs) {
      if (was.get(held.lease) === state) continue;
      const row = { id: held.lease, text: held.text, createdAt: after.createdAt, order: after.id };
      if (state === "held") this.#store.saveLease({ ...row, phase: "quoted", expiresAt: held.expiresAt });
      if (state === "told")
        this.#store.saveLease({ ...row, phase: "open", expiresAt: held.terms.expiry * 1_000 });
      if (state === "freeing") this.#store.endLease(held.lease);
    }
  }

  #desk(id: OrderId): Desk {
    return {
      state: () => this.#state(id),
      apply: (event) => {
        const before = this.#state(id);
        return this.#apply(id, event) !== before;
      },
      now: () => Date.now(),
      failed: ({ t: duty }, error) =>
        console.error(
          JSON.stringify({ event: "order_errand_failed", order: id, duty, error: String(error) }),
        ),
    };
  }

  async #drive(id: OrderId): Promise<void> {
    await drive(this.#desk(id), partiesOf(this.#env));
  }

  async #view(id: OrderId, by: Address): Promise<Order> {
    const config = configOf(this.#env);
    const state = this.#state(id);
    const legs = keptLegs(state);
    const amounts = state.funding === null ? legs.map(({ amount }) => amount) : orderAmounts(state.funding);
    const leases = await Promise.all(
      legs.map(async ({ hold: { lease, terms }, state: is }) => {
        const seen = is === "told" ? await this.#env.LEASE.getByName(lease).view(by) : null;
        const { status, funded } = seen?.ok ? seen.lease : { status: "quoted" as const, funded: 0n };
        return { id: lease, node: terms.providerSigner, status, funded };
      }),
    );
    return {
      id,
      object: "order",
      status: STATUS[state.phase],
      spread: state.spread,
      quotes: legs.map((leg) => quoteOf(config, leg, leg.amount)),
      funding: {
        lease_hashes: legs.map(({ leaseHash }) => leaseHash),
        amounts: [...amounts],
        total: amounts.reduce((sum, amount) => sum + amount, 0n),
      },
      leases,
      expires_at: new Date(orderExpiry(state)).toISOString(),
      ...(state.end === null ? {} : { end: { code: state.end.code, ...detailOf(state.end.detail) } }),
      created_at: new Date(state.createdAt).toISOString(),
    };
  }
}

const STATUS = {
  gathering: "quoted",
  quoted: "quoted",
  reserving: "funding",
  submitting: "funding",
  telling: "funding",
  open: "open",
  released: "released",
} as const;

function detailOf(detail: string | undefined): { detail?: string } {
  return detail === undefined ? {} : { detail };
}

/** QTE-7 of an order. Waiting helps where enough nodes would do if they had free what they have. */
function tooFew(listed: Found, blockers: Blockers, found: number, wanted: number): NothingFits {
  const fitting = listed.entries.length;
  const isPrice = fitting < wanted && fitting + listed.onlyPrice >= wanted;
  return {
    ok: false,
    code: isPrice ? "price_below_offers" : "no_capacity",
    detail: `${found} of ${wanted} nodes could be held; none is now`,
    wait: { possible: fitting + listed.onlyBusy >= wanted, blockers, found, wanted },
  };
}
