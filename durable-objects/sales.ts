import type { LeaseTerms } from "@gpux/protocol/eip712";
import { Amount } from "@gpux/protocol/money";
import { type Gpu, Tier } from "@gpux/protocol/resources";
import { z } from "zod";

/** What is older says little of today's price. */
export const SALES_DAYS = 7;

const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000n;

/**
 * What a node's leases of one model and tier that ended on one day (since 1970, UTC) were paid on chain, in base
 * units, and for how many GPU-milliseconds at their terms' rate. That rate is for all that a lease had, so the price
 * of a GPU-hour here has cores and memory in it.
 */
export const Sale = z.strictObject({
  day: z.int(),
  model: z.string(),
  tier: Tier,
  gpuMs: z.int(),
  paid: Amount,
});
export type Sale = z.output<typeof Sale>;

/** The node's sales after a lease of these cards has ended and `paid` was settled. Those that are too old are dropped. */
export function withSale(
  sales: readonly Sale[],
  { terms, gpus, tier }: { readonly terms: LeaseTerms; readonly gpus: readonly Gpu[]; readonly tier: Tier },
  paid: bigint,
  now: number,
): readonly Sale[] {
  const model = gpus[0]?.model;
  if (model === undefined || paid <= 0n || terms.ratePerHour <= 0n) return sales;
  const day = Math.floor(now / DAY_MS);
  const gpuMs = Number((paid * HOUR_MS * BigInt(gpus.length)) / terms.ratePerHour);
  const isSame = (sale: Sale) => sale.day === day && sale.model === model && sale.tier === tier;
  const before = sales.find(isSame);
  return [
    ...recent(sales, now).filter((sale) => !isSame(sale)),
    { day, model, tier, gpuMs: gpuMs + (before?.gpuMs ?? 0), paid: paid + (before?.paid ?? 0n) },
  ];
}

/** Of the last {@link SALES_DAYS} days. */
export function recent(sales: readonly Sale[], now: number): Sale[] {
  const today = Math.floor(now / DAY_MS);
  return sales.filter(({ day }) => day > today - SALES_DAYS);
}

/** Base units per GPU-hour; null: for nothing that can be measured. */
export function priceOf({ gpuMs, paid }: Sale): bigint | null {
  return gpuMs === 0 ? null : (paid * HOUR_MS) / BigInt(gpuMs);
}
