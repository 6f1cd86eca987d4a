import type { Timing } from "../timing.ts";

/** Time stands still but for the sleeps, which pass at once and are written down; the watch on a silent stream never ends. */
export function createTestClock(start = Date.parse("2026-11-22T12:00:00Z")) {
  let now = start;
  const slept: number[] = [];
  const timing: Timing = {
    now: () => now,
    random: () => 0.5,
    sleep(ms, signal) {
      if (ms === 45_000) return new Promise((resolve) => signal?.addEventListener("abort", () => resolve()));
      slept.push(ms);
      now += ms;
      return Promise.resolve();
    },
  };
  return { timing, slept };
}
