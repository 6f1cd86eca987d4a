import { mergedAsks, quantile } from "@gpux/durable-objects/asks";
import type { ObjectEnv } from "@gpux/durable-objects/bindings";
import { DIRECTORY, shardsOf } from "@gpux/durable-objects/books";
import { configOf } from "@gpux/durable-objects/config";
import type { Asks } from "@gpux/durable-objects/interfaces";
import type { GpuPrices } from "@gpux/protocol/market";

/** The price index by model, from what the directory's online nodes ask. */
export async function gpuPrices(env: ObjectEnv): Promise<GpuPrices> {
  const books = shardsOf(DIRECTORY, configOf(env).bookShards);
  const asks = mergedAsks(await Promise.all(books.map((book) => env.BOOK.getByName(book).asks())));
  return {
    object: "list",
    data: asks.map((each) => ({
      gpu_name: each.model,
      nodes: each.nodes,
      gpus: { online: each.gpus, free: each.free },
      asks: { firm: spread(each.firm), yieldable: spread(each.yieldable) },
    })),
    has_more: false,
  };
}

function spread(asks: Asks["firm"]) {
  const [first] = asks;
  const last = asks.at(-1);
  const [p25, median, p75] = [0.25, 0.5, 0.75].map((share) => quantile(asks, share) ?? undefined);
  if (first === undefined || last === undefined) return null;
  if (p25 === undefined || median === undefined || p75 === undefined) return null;
  return {
    min: first.price,
    p25,
    median,
    p75,
    max: last.price,
    gpus: asks.reduce((sum, { gpus }) => sum + gpus, 0),
  };
}
