import type { LeaseMode } from "@gpux/protocol/lease";
import { Order, OrderRequest } from "@gpux/protocol/order";
import { Demand } from "@gpux/protocol/resources";
import { createFundings, type PayFrom } from "./fundings.ts";
import { DEFAULT_DURATION_S, type DemandInput, type LeaseSettings } from "./lease-settings.ts";
import { checkQuote, quoteMismatch } from "./quote-check.ts";
import { checked, jsonBody } from "./transport.ts";

/** Several nodes at once, each with the same resources. */
export interface OrderInput {
  readonly nodes: number;
  /** Of each node. */
  readonly resources?: { readonly gpus?: number; readonly cpu?: number; readonly memory_gb?: number };
  /** `distinct-provider`, the default: no two nodes belong to the same owner. */
  readonly spread?: "distinct-provider" | "any";
  /** Further conditions on each node; its resources stand above. */
  readonly demand?: Omit<DemandInput, "resources">;
  readonly mode?: LeaseMode;
  /** Seconds that the leases may last: 300 to 86,400, by default 3,600. */
  readonly durationS?: number;
  /** Seconds that each lease's end may be moved later, by `extend`. */
  readonly extendableS?: number;
  /** As of a quote: how long each node keeps its GPUs for a serverless lease without work. */
  readonly keepWarmS?: number;
  /** Base units to put into each lease; what is not used comes back at its close. The quotes' amounts by default. */
  readonly amount?: bigint;
  /** Base units per hour, of each node. */
  readonly maxRatePerHour?: bigint;
  /** Made here when left out. Bring your own to survive a crash of this process. */
  readonly idempotencyKey?: string;
  /** `credit`: out of what was deposited before (`Client.credit`), by this client's account alone. */
  readonly payFrom?: PayFrom;
  /** The order as it was quoted, before it is signed; what it throws is thrown, and the holds lapse. */
  readonly onQuoted?: (order: Order) => void | Promise<void>;
  readonly signal?: AbortSignal | undefined;
}

export function createOrders(settings: LeaseSettings) {
  const { transport, account, payer, timing, warm } = settings;
  const fundings = createFundings(settings);

  function bodyOf(input: OrderInput) {
    const demand = {
      ...(input.maxRatePerHour === undefined ? {} : { max_rate_per_hour: input.maxRatePerHour }),
      ...input.demand,
    };
    const body = jsonBody({
      nodes: input.nodes,
      resources: input.resources ?? {},
      ...(input.spread === undefined ? {} : { spread: input.spread }),
      demand,
      payer: payer.address,
      consumer_signer: account.address,
      duration_s: input.durationS ?? DEFAULT_DURATION_S,
      ...(input.extendableS === undefined ? {} : { extendable_s: input.extendableS }),
      ...(input.mode === undefined ? {} : { mode: input.mode }),
      ...(input.keepWarmS === undefined ? {} : { keep_warm_s: input.keepWarmS }),
      ...(input.amount === undefined ? {} : { amount: input.amount }),
    });
    return { body, request: checked(OrderRequest, JSON.parse(new TextDecoder().decode(body))) };
  }

  /** The edge is not trusted: each quote is held against what was asked, and all of them against each other. */
  async function check(order: Order, { nodes, spread, ...request }: OrderRequest, rate: bigint | null) {
    const wellKnown = await settings.wellKnown();
    const { demand, resources = demand.resources, mode, duration_s: durationS } = request;
    if (order.quotes.length !== nodes)
      throw quoteMismatch("quotes", `there are ${order.quotes.length}, not ${nodes}`);
    for (const quote of order.quotes) {
      const outcome = checkQuote(quote, {
        wellKnown,
        payer: payer.address,
        consumerSigner: account.address,
        demand: Demand.parse(Demand.encode({ ...demand, resources })),
        mode,
        durationS,
        keepWarmS: request.keep_warm_s,
        extendableS: request.extendable_s,
        maxRatePerHour: rate,
        now: timing.now(),
      });
      if (!outcome.ok) throw quoteMismatch(outcome.field, outcome.detail);
    }
    const distinct = (field: "providerSigner" | "provider") =>
      new Set(order.quotes.map(({ terms }) => terms[field])).size === nodes;
    if (!distinct("providerSigner")) throw quoteMismatch("quotes", "two of them are of the same node");
    if (spread === "distinct-provider" && !distinct("provider"))
      throw quoteMismatch("quotes", "two of their nodes belong to the same owner");
    return wellKnown.settlement;
  }

  return {
    async order(input: OrderInput): Promise<Order> {
      const { signal } = input;
      const { body, request } = bodyOf(input);
      const headers = {
        "content-type": "application/json",
        "idempotency-key": input.idempotencyKey ?? crypto.randomUUID(),
      };
      const call = { method: "POST", path: "/v1/leases", signal } as const;
      const order = await transport.json({ ...call, headers, body }, Order);
      // A retry of an order that is signed already: there is nothing left to sign.
      if (order.status !== "quoted") return order;
      const settlement = await check(order, request, input.maxRatePerHour ?? null);
      await input.onQuoted?.(order);
      const { quotes } = order;
      const leases = quotes.map((quote) => ({
        hash: quote.lease_hash,
        terms: quote.terms,
        amount: input.amount ?? quote.amount,
      }));
      const funding = await fundings.forAll(settlement, leases, input.payFrom ?? "wallet");
      const funded = await transport.json({ ...call, body: jsonBody({ order: order.id, funding }) }, Order);
      for (const [n, { lease_id: id, lease_hash: hash, terms, text }] of quotes.entries()) {
        const amount = leases[n]?.amount ?? 0n;
        const { spendLimit } = settings;
        const limit = spendLimit !== null && spendLimit < amount ? spendLimit : amount;
        warm.put({ id, hash, terms, text, limit, spent: 0n });
      }
      return funded;
    },
    getOrder: (id: string, { signal }: { signal?: AbortSignal } = {}) =>
      transport.json({ method: "GET", path: `/v1/orders/${id}`, signal }, Order),
  };
}
