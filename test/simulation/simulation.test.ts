import { describe, expect, it } from "vitest";
import { EVENTS, simulate } from "./simulation.ts";

// docs/simulation.md. Seeds are played one after another; 2,000 of them take most of a minute of one core.

const SEEDS = 2_000;
const PART = 250;
/** A machine that is busy with other things takes its time. */
const PATIENCE_MS = 30 * 60_000;

describe("the market", () => {
  const parts = Array.from({ length: SEEDS / PART }, (_, part) => part * PART + 1);

  it.each(parts)(
    `keeps its promises in ${PART} worlds from seed %i, whatever fails`,
    (from) => {
      for (let seed = from; seed < from + PART; seed += 1) {
        const { violation, events } = simulate(seed);
        const replay = `node test/simulation/replay.ts --seed ${seed} --shrink`;
        expect(violation, `seed ${seed}; see it by ${replay}`).toBeNull();
        expect(events).toBeGreaterThanOrEqual(EVENTS);
      }
    },
    PATIENCE_MS,
  );

  it("is the same market whenever its seed is played", () => {
    const trace = (): string[] => {
      const events: string[] = [];
      simulate(7, { onEvent: (at, what) => events.push(`${at} ${what}`) });
      return events;
    };
    expect(trace()).toEqual(trace());
  });

  it("does what a market is for: most worlds have jobs that were done and paid", () => {
    const worlds = 160;
    const reports = Array.from({ length: worlds }, (_, seed) => simulate(seed + 1));
    expect(reports.filter(({ jobs }) => jobs > 0).length).toBeGreaterThan(worlds / 2);
    expect(reports.filter(({ paid }) => paid > 0n).length).toBeGreaterThan(worlds / 2);
  });
});
