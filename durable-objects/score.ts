/**
 * How a score weighs on a price: the rate is multiplied by what work costs that is paid again for each try which an
 * absence cuts short, 1 / score, in steps, so that offers of a step are ordered by their prices alone. In
 * thousandths. The table stands in docs/matching.md.
 */
export const STEPS: readonly { readonly from: number; readonly weight: number }[] = [
  { from: 9_800, weight: 1_020 },
  { from: 9_500, weight: 1_053 },
  { from: 9_000, weight: 1_111 },
  { from: 8_000, weight: 1_250 },
  { from: 6_500, weight: 1_538 },
  { from: 5_000, weight: 2_000 },
  { from: 0, weight: 3_000 },
];

/** `score` in hundredths of a percent. */
export function weightOf(score: number): number {
  return STEPS.find(({ from }) => score >= from)?.weight ?? 3_000;
}
