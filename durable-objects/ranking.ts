import type { OrderTerm } from "@gpux/protocol/offer-query";
import type { Rank } from "./interfaces.ts";

/** Below 0: `a` is the better offer. By `order`, then the weighted rate, then the more GPUs, then the lower address. */
export function compareRanks(order: readonly OrderTerm[], a: Rank, b: Rank): number {
  const sorted = compareKeys(order, a.keys, b.keys);
  if (sorted !== 0) return sorted;
  if (a.weighted !== b.weighted) return a.weighted < b.weighted ? -1 : 1;
  if (a.gpus !== b.gpus) return b.gpus - a.gpus;
  return a.node < b.node ? -1 : a.node === b.node ? 0 : 1;
}

/** What has no value comes last, whichever way. */
export function compareKeys(order: readonly OrderTerm[], a: Rank["keys"], b: Rank["keys"]): number {
  for (const [i, { descending }] of order.entries()) {
    const [x, y] = [a[i] ?? null, b[i] ?? null];
    if (x === y) continue;
    if (x === null || y === null) return x === null ? 1 : -1;
    return x < y === descending ? 1 : -1;
  }
  return 0;
}
