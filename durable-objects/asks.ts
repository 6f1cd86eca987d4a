import { pricesIn, TIERS, type Tier } from "@gpux/protocol/resources";
import type { Ask, Asks, BookEntry } from "./interfaces.ts";

interface Counted {
  nodes: number;
  gpus: number;
  free: number;
  readonly firm: Map<bigint, number>;
  readonly yieldable: Map<bigint, number>;
}

/** What the GPUs of online nodes ask per hour, by model. Free GPUs of a mixed node count for each model they may be of. */
export function asksOf(entries: Iterable<BookEntry>): Asks[] {
  const models = new Map<string, Counted>();
  for (const { offer, free, status } of entries) {
    if (status !== "online") continue;
    const own = Map.groupBy(offer.gpus, (gpu) => gpu.model);
    for (const [model, { length: gpus }] of own) {
      const counted = models.get(model) ?? {
        nodes: 0,
        gpus: 0,
        free: 0,
        firm: new Map(),
        yieldable: new Map(),
      };
      models.set(model, counted);
      counted.nodes += 1;
      counted.gpus += gpus;
      counted.free += Math.min(free, gpus);
      for (const tier of TIERS) {
        const price = pricesIn(offer, tier)?.gpu_hour;
        if (price !== undefined) counted[tier].set(price, (counted[tier].get(price) ?? 0) + gpus);
      }
    }
  }
  return Array.from(models, ([model, { nodes, gpus, free, firm, yieldable }]) => ({
    model,
    nodes,
    gpus,
    free,
    firm: sorted(firm),
    yieldable: sorted(yieldable),
  })).sort((a, b) => (a.model < b.model ? -1 : 1));
}

/** Of several Books that share no node. */
export function mergedAsks(books: readonly (readonly Asks[])[]): Asks[] {
  const byModel = Map.groupBy(books.flat(), ({ model }) => model);
  return Array.from(byModel, ([model, asks]) => ({
    model,
    nodes: sum(asks.map(({ nodes }) => nodes)),
    gpus: sum(asks.map(({ gpus }) => gpus)),
    free: sum(asks.map(({ free }) => free)),
    firm: together(asks, "firm"),
    yieldable: together(asks, "yieldable"),
  })).sort((a, b) => (a.model < b.model ? -1 : 1));
}

/**
 * The price that the `share` (0 to 1) cheapest GPUs do not exceed, weighted by GPUs (nearest rank). Null when nothing
 * is asked. `asks` are sorted by price.
 */
export function quantile(asks: readonly Ask[], share: number): bigint | null {
  const all = sum(asks.map(({ gpus }) => gpus));
  const rank = Math.max(1, Math.ceil(share * all));
  let passed = 0;
  for (const { price, gpus } of asks) {
    passed += gpus;
    if (passed >= rank) return price;
  }
  return null;
}

function together(asks: readonly Asks[], tier: Tier): Ask[] {
  const prices = new Map<bigint, number>();
  for (const { price, gpus } of asks.flatMap((each) => each[tier]))
    prices.set(price, (prices.get(price) ?? 0) + gpus);
  return sorted(prices);
}

function sorted(prices: ReadonlyMap<bigint, number>): Ask[] {
  const asks = Array.from(prices, ([price, gpus]) => ({ price, gpus }));
  return asks.sort((a, b) => (a.price < b.price ? -1 : a.price > b.price ? 1 : 0));
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}
