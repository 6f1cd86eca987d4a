import fc from "fast-check";
import { expect, test } from "vitest";
import { DAY_MS, NEVER_SEEN, observed, type Presence, standingOf } from "../presence.ts";
import { STEPS, weightOf } from "../score.ts";

const T0 = 20_000 * DAY_MS;
const HOUR = DAY_MS / 24;
const first: Presence = observed(NEVER_SEEN, T0, "off");

test("MKT-6 a node that was never seen has no reliability and the score that everybody begins with", () => {
  expect(standingOf(NEVER_SEEN, true, T0)).toEqual({ reliability: 0, observedMs: 0, score: 9_000 });
  expect(standingOf(first, true, T0)).toEqual({ reliability: 0, observedMs: 0, score: 9_000 });
});

test("MKT-6 reliability is the share of the observed time of the last seven days", () => {
  const away = observed(observed(first, T0 + 6 * HOUR, "on"), T0 + 8 * HOUR, "off");
  expect(standingOf(away, true, T0 + 8 * HOUR)).toMatchObject({ reliability: 7_500, observedMs: 8 * HOUR });
  // Eight days later nothing of it is left.
  expect(standingOf(away, true, T0 + 9 * DAY_MS)).toEqual({
    reliability: 10_000,
    observedMs: 7 * DAY_MS,
    score: 9_875,
  });
});

test("MKT-6 time of which nobody knows counts neither way", () => {
  const known = observed(first, T0 + HOUR, "on");
  const after = observed(known, T0 + 3 * DAY_MS, "unknown");
  expect(standingOf(after, true, T0 + 3 * DAY_MS)).toMatchObject({ reliability: 10_000, observedMs: HOUR });
});

test("MKT-6 the same is observed in however many pieces, and nothing twice", () => {
  const cut = fc.array(fc.integer({ min: 1, max: 12 * DAY_MS }), { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(cut, (cuts) => {
      const ends = cuts.map((ms) => T0 + ms);
      const last = Math.max(...ends);
      const pieces = ends.reduce((presence, end) => observed(presence, end, "on"), first);
      const whole = observed(first, last, "on");
      expect(standingOf(pieces, true, last + HOUR)).toEqual(standingOf(whole, true, last + HOUR));
      expect(whole.days.length).toBeLessThanOrEqual(8);
      expect(standingOf(whole, true, last).observedMs).toBeLessThanOrEqual(7 * DAY_MS);
    }),
  );
});

test("MKT-5 a better score never weighs more", () => {
  for (const [i, { weight }] of STEPS.entries()) expect(weight).toBeGreaterThan(STEPS[i - 1]?.weight ?? 0);
  expect([10_000, 9_800, 9_799, 9_000, 0].map(weightOf)).toEqual([1_020, 1_020, 1_053, 1_111, 3_000]);
});
