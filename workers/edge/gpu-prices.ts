import type { ObjectEnv } from "@gpux/durable-objects/bindings";
import { DIRECTORY, shardsOf } from "@gpux/durable-objects/books";
import { configOf } from "@gpux/durable-objects/config";
import type { Priced } from "@gpux/durable-objects/interfaces";
import { mergedPrices, quantile } from "@gpux/durable-objects/prices";
import { SALES_DAYS } from "@gpux/durable-objects/sales";
import type { GpuPrices } from "@gpux/protocol/market";

const HOUR_MS = 3_600_000;

/** The price index by model: what the directory's online nodes ask, and what was settled with any of its nodes lately. */
export async function gpuPrices(env: ObjectEnv): Promise<GpuPrices> {
  const books = shardsOf(DIRECTORY, configOf(env).bookShards);
  const models = mergedPrices(await Promise.all(books.map((book) => env.BOOK.getByName(book).prices())));
  return {
    object: "list",
    data: models.map(({ model, nodes, gpus, free, asks, settled }) => ({
      gpu_name: model,
      nodes,
      gpus: { online: gpus, free },
      asks: { firm: asked(asks.firm), yieldable: asked(asks.yieldable) },
      settled: { days: SALES_DAYS, firm: paid(settled.firm), yieldable: paid(settled.yieldable) },
    })),
    has_more: false,
  };
}

function asked(prices: readonly Priced[]) {
  const of = spread(prices);
  return of && { ...of, gpus: weightOf(prices) };
}

function paid(prices: readonly Priced[]) {
  const of = spread(prices);
  return of && { ...of, gpu_hours: (weightOf(prices) / HOUR_MS).toFixed(3) };
}

function spread(prices: readonly Priced[]) {
  const [first] = prices;
  const last = prices.at(-1);
  const [p25, median, p75] = [0.25, 0.5, 0.75].map((share) => quantile(prices, share) ?? undefined);
  if (first === undefined || last === undefined) return null;
  if (p25 === undefined || median === undefined || p75 === undefined) return null;
  return { min: first.price, p25, median, p75, max: last.price };
}

function weightOf(prices: readonly Priced[]): number {
  return prices.reduce((total, { weight }) => total + weight, 0);
}
