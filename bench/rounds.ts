import type { Row } from "./report.ts";

/** The figures that one variant gave in one round, by metric. */
export type Figures = Readonly<Record<string, number>>;

/** One round: every variant measured once, close together in time. */
export type Round = ReadonlyMap<string, Figures>;

/** Middle value; of an even number the mean of the two in the middle. @throws RangeError when there is none. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle];
  const lower = sorted[sorted.length % 2 === 0 ? middle - 1 : middle];
  if (upper === undefined || lower === undefined) throw new RangeError("there is no median of nothing");
  return (lower + upper) / 2;
}

/**
 * `things` in another order each round: what is always measured first or after a heavy neighbour would carry that
 * along in its ratio.
 */
export function rotated<T>(things: readonly T[], round: number): T[] {
  const from = things.length === 0 ? 0 : round % things.length;
  return [...things.slice(from), ...things.slice(0, from)];
}

/** Median of `variant` over `base`, each taken within its own round; null where no round has both. */
export function pairedRatio(
  rounds: readonly Round[],
  metric: string,
  variant: string,
  base: string,
): number | null {
  const ratios = rounds.flatMap((round) => {
    const value = round.get(variant)?.[metric];
    const other = round.get(base)?.[metric];
    return value === undefined || other === undefined || other === 0 ? [] : [value / other];
  });
  return ratios.length === 0 ? null : median(ratios);
}

/**
 * Rows of all variants and metrics. `bases` are the variants that the others are held against; one that was not
 * measured gives no rows. A variant is never held against itself nor against a base that stands after it in `bases`.
 */
export function rowsOf(rounds: readonly Round[], bases: readonly string[]): Row[] {
  const rows: Row[] = [];
  const variants = new Set(rounds.flatMap((round) => [...round.keys()]));
  for (const variant of variants) {
    const own = bases.includes(variant) ? bases.slice(0, bases.indexOf(variant)) : bases;
    const against = own.filter((base) => variants.has(base));
    for (const metric of new Set(rounds.flatMap((round) => Object.keys(round.get(variant) ?? {})))) {
      const value = median(rounds.flatMap((round) => round.get(variant)?.[metric] ?? []));
      const paired = against.flatMap((base) => {
        const ratio = pairedRatio(rounds, metric, variant, base);
        return ratio === null ? [] : [{ variant, metric, value, ratio_to: base, ratio }];
      });
      if (paired.length > 0) rows.push(...paired);
      else rows.push({ variant, metric, value, ratio_to: null, ratio: null });
    }
  }
  return rows;
}
