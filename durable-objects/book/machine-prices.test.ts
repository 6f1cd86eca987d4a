import { expect, test } from "vitest";
import { mergedPrices, pricesOf, quantile } from "../prices.ts";
import type { Sale } from "../sales.ts";
import { entry } from "./testing/entries.ts";

const DAY_MS = 86_400_000;
const TODAY = 20_000;
const NOW = TODAY * DAY_MS + 1;
const HOUR_MS = 3_600_000;

/** So many GPU-hours at `price` each. */
function sale(price: number, hours: number, change: Partial<Sale> = {}): Sale {
  const paid = BigInt(price) * BigInt(hours);
  return { day: TODAY, model: "RTX_4090", tier: "firm", gpuMs: hours * HOUR_MS, paid, ...change };
}

test("MKT-7 what was settled counts by its GPU-hours, also of a node that is away, and not for longer than a week", () => {
  const books = [
    [entry(1, { sales: [sale(900, 1), sale(950, 3, { day: TODAY - 6 }), sale(10, 99, { day: TODAY - 7 })] })],
    [entry(2, { status: "offline", sales: [sale(400, 2, { tier: "yieldable" }), sale(900, 1)] })],
  ];
  const [prices, ...rest] = mergedPrices(books.map((entries) => pricesOf(entries, NOW)));
  expect(rest).toEqual([]);
  expect(prices).toEqual({
    model: "RTX_4090",
    nodes: 1,
    gpus: 1,
    free: 1,
    asks: { firm: [{ price: 1_000n, weight: 1 }], yieldable: [] },
    settled: {
      firm: [
        { price: 900n, weight: 2 * HOUR_MS },
        { price: 950n, weight: 3 * HOUR_MS },
      ],
      yieldable: [{ price: 400n, weight: 2 * HOUR_MS }],
    },
  });
  const firm = prices?.settled.firm ?? [];
  expect([0.25, 0.4, 0.41, 1].map((share) => quantile(firm, share))).toEqual([900n, 900n, 950n, 950n]);
  expect(quantile([], 0.5)).toBeNull();
});
