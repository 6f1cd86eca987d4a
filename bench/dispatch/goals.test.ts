import { describe, expect, test } from "vitest";
import type { Figures, Round } from "../rounds.ts";
import { goalsOf, SYNCS } from "./goals.ts";

const round = (figures: Record<string, Figures>): Round => new Map(Object.entries(figures));
const named = (rounds: readonly Round[], text: string) =>
  goalsOf(rounds).find(({ goal }) => goal.startsWith(text));

describe("the goals of dispatch", () => {
  test("are ratios within each round, met or not by their direction", () => {
    const rounds = [
      round({
        "warm-session": { "c1 p50_us": 80, "c16 jobs_per_s": 90 },
        nats: { "c1 p50_us": 100, "c16 jobs_per_s": 100 },
      }),
    ];
    expect(named(rounds, "warm p50")).toMatchObject({ target: 0.9, measured: 0.8, met: true });
    expect(named(rounds, "warm jobs/s")).toMatchObject({ target: 1.1, measured: 0.9, met: false });
  });

  test("that need what is not here say so", () => {
    for (const { measured, met } of goalsOf([
      round({ "warm-session": { "c1 p50_us": 80, "c16 jobs_per_s": 9 } }),
    ]))
      expect([measured, met]).toEqual([null, null]);
  });

  test("of syncs is a count of its own", () => {
    const rounds = [0.05, 0.2, 0.3].map((syncs) => round({ "warm-async": { [SYNCS]: syncs } }));
    expect(named(rounds, "syncs")).toMatchObject({ measured: 0.2, met: false });
  });
});
