import { pricesIn, TIERS, type Tier } from "@gpux/protocol/resources";
import type { BookEntry, Priced, Prices } from "./interfaces.ts";
import { priceOf, recent } from "./sales.ts";

/** By price, how much stands behind it. */
type Weights = Map<bigint, number>;

interface Counted {
  nodes: number;
  gpus: number;
  free: number;
  readonly asks: Record<Tier, Weights>;
  readonly settled: Record<Tier, Weights>;
}

/**
 * What the GPUs of online nodes ask per hour, by model, and what was settled for any node's lately. Free GPUs of a mixed
 * node count for each model they may be of. `now` in milliseconds.
 */
export function pricesOf(entries: Iterable<BookEntry>, now: number): Prices[] {
  const models = new Map<string, Counted>();
  const counted = (model: string) => {
    const known = models.get(model) ?? nothing();
    models.set(model, known);
    return known;
  };
  for (const { offer, free, status, sales } of entries) {
    for (const sale of recent(sales, now)) {
      const price = priceOf(sale);
      if (price !== null) add(counted(sale.model).settled[sale.tier], price, sale.gpuMs);
    }
    if (status !== "online") continue;
    for (const [model, { length: gpus }] of Map.groupBy(offer.gpus, (gpu) => gpu.model)) {
      const of = counted(model);
      of.nodes += 1;
      of.gpus += gpus;
      of.free += Math.min(free, gpus);
      for (const tier of TIERS) {
        const price = pricesIn(offer, tier)?.gpu_hour;
        if (price !== undefined) add(of.asks[tier], price, gpus);
      }
    }
  }
  const listed = Array.from(models, ([model, { nodes, gpus, free, asks, settled }]) => ({
    model,
    nodes,
    gpus,
    free,
    asks: { firm: sorted(asks.firm), yieldable: sorted(asks.yieldable) },
    settled: { firm: sorted(settled.firm), yieldable: sorted(settled.yieldable) },
  }));
  return listed.sort(byModel);
}

/** Of several Books that share no node. */
export function mergedPrices(books: readonly (readonly Prices[])[]): Prices[] {
  const models = Map.groupBy(books.flat(), ({ model }) => model);
  return Array.from(models, ([model, all]) => ({
    model,
    nodes: sum(all.map(({ nodes }) => nodes)),
    gpus: sum(all.map(({ gpus }) => gpus)),
    free: sum(all.map(({ free }) => free)),
    asks: together(all.map(({ asks }) => asks)),
    settled: together(all.map(({ settled }) => settled)),
  })).sort(byModel);
}

/**
 * The price that the cheapest `share` (0 to 1) of the weight does not exceed (nearest rank). Null when there is none.
 * `prices` are sorted.
 */
export function quantile(prices: readonly Priced[], share: number): bigint | null {
  const rank = Math.max(1, Math.ceil(share * sum(prices.map(({ weight }) => weight))));
  let passed = 0;
  for (const { price, weight } of prices) {
    passed += weight;
    if (passed >= rank) return price;
  }
  return null;
}

function together(all: readonly Prices["asks"][]): Prices["asks"] {
  const of = (tier: Tier) => {
    const weights: Weights = new Map();
    for (const { price, weight } of all.flatMap((each) => each[tier])) add(weights, price, weight);
    return sorted(weights);
  };
  return { firm: of("firm"), yieldable: of("yieldable") };
}

function nothing(): Counted {
  const none = () => ({ firm: new Map(), yieldable: new Map() });
  return { nodes: 0, gpus: 0, free: 0, asks: none(), settled: none() };
}

function add(weights: Weights, price: bigint, weight: number): void {
  weights.set(price, (weights.get(price) ?? 0) + weight);
}

function sorted(weights: Weights): Priced[] {
  const prices = Array.from(weights, ([price, weight]) => ({ price, weight }));
  return prices.sort((a, b) => (a.price < b.price ? -1 : a.price > b.price ? 1 : 0));
}

function byModel(a: Prices, b: Prices): number {
  return a.model < b.model ? -1 : 1;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}
