import { describe, expect, test } from "vitest";
import { markdown } from "./report.ts";
import { median, pairedRatio, type Round, rotated, rowsOf } from "./rounds.ts";

const round = (figures: Record<string, Record<string, number>>): Round => new Map(Object.entries(figures));

describe("rounds", () => {
  test("the median of an even number of values is between the middle two", () => {
    expect(median([9, 1, 5])).toBe(5);
    expect(median([8, 1, 4, 2])).toBe(3);
    expect(() => median([])).toThrow(RangeError);
  });

  test("each round begins with another variant and measures all of them", () => {
    expect([0, 1, 2, 3].map((n) => rotated(["a", "b", "c"], n))).toEqual([
      ["a", "b", "c"],
      ["b", "c", "a"],
      ["c", "a", "b"],
      ["a", "b", "c"],
    ]);
  });

  test("a ratio is paired within its round: a machine that slows down for a while does not change it", () => {
    const rounds = [
      round({ direct: { us: 10 }, warm: { us: 30 } }),
      round({ direct: { us: 1_000 }, warm: { us: 3_000 } }),
      round({ direct: { us: 20 }, warm: { us: 60 } }),
    ];
    expect(pairedRatio(rounds, "us", "warm", "direct")).toBe(3);
    expect(pairedRatio(rounds, "us", "warm", "nats")).toBe(null);
  });

  test("every variant is held against the bases that were measured, never against itself", () => {
    const rounds = [round({ direct: { us: 10 }, nats: { us: 20 }, warm: { us: 40 } })];
    expect(rowsOf(rounds, ["direct", "nats", "absent"])).toEqual([
      { variant: "direct", metric: "us", value: 10, ratio_to: null, ratio: null },
      { variant: "nats", metric: "us", value: 20, ratio_to: "direct", ratio: 2 },
      { variant: "warm", metric: "us", value: 40, ratio_to: "direct", ratio: 4 },
      { variant: "warm", metric: "us", value: 40, ratio_to: "nats", ratio: 2 },
    ]);
  });

  test("the table says what was not measured", () => {
    const rows = rowsOf([round({ direct: { us: 10 }, warm: { us: 25.5 } })], ["direct", "nats"]);
    const goals = [{ goal: "warm over nats, at most", target: 0.9, measured: null, met: null }];
    const text = markdown({ bench: "dispatch", rounds: 1, seconds: 1, rows, goals, notes: ["no NATS"] });
    expect(text).toContain("| us | 10 | 25.5 (2.55 x direct) |");
    expect(text).toContain("| warm over nats, at most | 0.9 | not measured | not measured |");
    expect(text).toContain("- no NATS");
  });
});
