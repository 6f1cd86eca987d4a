import { accrued, affordedMs } from "./money.ts";

/**
 * What a lease's time costs (ADR 18): its rate, and once, with the first millisecond that is billed, the node's start
 * price. `gpus`: how many the rate is for when milliseconds are those of one, as {@link accrued} counts them.
 */
export interface Tariff {
  readonly ratePerHour: bigint;
  readonly gpus: number;
  readonly start: bigint;
}

/** A start costs no more than so many minutes of one GPU at its price, in whatever tier it is sold. */
const MOST_START_MINUTES = 10n;
/** What may be due at once beside it: the contract's clock starts at a block's time, which may lie behind the edge's. */
const SLACK_MINUTES = 1n;

/** The highest start price that goes with these prices. */
export function mostStart({ gpu_hour }: { readonly gpu_hour: bigint }): bigint {
  return (gpu_hour * MOST_START_MINUTES) / 60n;
}

/** `upfront` of terms: the contract lets a lease owe so much before any time has passed. */
export function upfrontOf(ratePerHour: bigint, start: bigint): bigint {
  return (ratePerHour * SLACK_MINUTES) / 60n + start;
}

/** The most that {@link upfrontOf} can be at this rate, whatever was sold. */
export function mostUpfront(ratePerHour: bigint): bigint {
  return (ratePerHour * (SLACK_MINUTES + MOST_START_MINUTES)) / 60n;
}

/** Of what was sold; nothing where its text says nothing, as all texts from before there were start prices. */
export function startPriceOf(text: { readonly start_price?: string | undefined } | undefined): bigint {
  return BigInt(text?.start_price ?? "0");
}

/** What `ms` in all cost: a price is the difference of two of these. Nothing was started by no time. */
export function charged({ ratePerHour, gpus, start }: Tariff, ms: number): bigint {
  return ms === 0 ? 0n : start + accrued(ratePerHour, ms, gpus);
}

/** The inverse of {@link charged}: the longest time that costs at most `amount`, in milliseconds. */
export function paidMs({ ratePerHour, gpus, start }: Tariff, amount: bigint): number {
  return amount < start ? 0 : affordedMs(ratePerHour, amount - start, gpus);
}
