import { listOf } from "@gpux/protocol/answers";
import type { Address } from "@gpux/protocol/ids";
import { NodeView } from "@gpux/protocol/lease";
import { GpuPrices, OfferList } from "@gpux/protocol/market";
import { createIntents, type Intents } from "./intents.ts";
import { pages } from "./pages.ts";
import { SYSTEM_TIMING } from "./timing.ts";
import { createTransport, type Transport } from "./transport.ts";

/** The market's machines, which anyone may look at. */
export interface Nodes {
  /** One of them, with what it was passed by for (`skipped`). */
  get(id: Address, options?: { signal?: AbortSignal }): Promise<NodeView>;
  list(options?: { signal?: AbortSignal }): AsyncGenerator<NodeView>;
}

/**
 * Query parameters of `GET /v1/offers`, with operators as in `"num_gpus[gte]"`; docs/matching.md has the fields. Prices
 * (`dph_total`, `min_bid`) are USD per hour as decimal text.
 */
export type OfferSearchInput = Readonly<Record<string, string | number>>;

/** What can be bought right now, by anyone's search. */
export interface Offers {
  /**
   * One page, best first unless `order` says otherwise; `limit` is 20, at most 100. Without any offer `wait` says why.
   *
   * @example
   * await market.offers.search({ gpu_name: "RTX_4090", "num_gpus[gte]": 4, order: "dph_total" });
   */
  search(search?: OfferSearchInput, options?: { signal?: AbortSignal }): Promise<OfferList>;
  /** What GPUs ask per hour, by model. */
  prices(options?: { signal?: AbortSignal }): Promise<GpuPrices>;
}

export function createOffers(transport: Transport): Offers {
  return {
    search(search = {}, { signal } = {}) {
      const query = new URLSearchParams(
        Object.entries(search).map(([name, value]): [string, string] => [name, String(value)]),
      );
      const path = query.size === 0 ? "/v1/offers" : `/v1/offers?${query}`;
      return transport.json({ method: "GET", path, signed: false, signal }, OfferList);
    },
    prices: ({ signal } = {}) =>
      transport.json({ method: "GET", path: "/v1/gpu-prices", signed: false, signal }, GpuPrices),
  };
}

export function createNodes(transport: Transport): Nodes {
  return {
    get: (id, { signal } = {}) =>
      transport.json({ method: "GET", path: `/v1/nodes/${id}`, signed: false, signal }, NodeView),
    list: ({ signal } = {}) => pages(transport, "/v1/nodes", listOf(NodeView), { signed: false, signal }),
  };
}

/** What an edge does for everyone: no account, nothing is signed here. */
export function createMarket(options: { url: string; fetch?: typeof fetch; maxRetries?: number }): {
  readonly nodes: Nodes;
  readonly offers: Offers;
  readonly intents: Intents;
} {
  const transport = createTransport({
    url: options.url,
    fetch: options.fetch ?? ((request, init) => fetch(request, init)),
    maxRetries: options.maxRetries ?? 2,
    timing: SYSTEM_TIMING,
    sign: () => Promise.reject(new Error("a route of the open market was to be signed")),
    recover: () => null,
  });
  return {
    nodes: createNodes(transport),
    offers: createOffers(transport),
    intents: createIntents(transport, SYSTEM_TIMING),
  };
}
