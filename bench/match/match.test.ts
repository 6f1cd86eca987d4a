import { expect, test } from "vitest";
import { Report } from "../report.ts";
import { measureMatch } from "./match.ts";

test("both forms of the market answer alike, and every figure is beside SQLite's", async () => {
  const report = Report.parse(
    await measureMatch([1_000, 2_000], { rounds: 2, seconds: 0.005, say: () => {} }),
  );
  const metrics = ["1k", "2k"].flatMap((size) =>
    ["typical_us", "nothing_us", "hold_us"].map((metric) => `${size} ${metric}`),
  );
  for (const metric of metrics) {
    const rows = report.rows.filter((row) => row.metric === metric);
    expect(rows).toMatchObject([
      { variant: "sqlite", ratio_to: null },
      { variant: "book", ratio_to: "sqlite" },
    ]);
    expect(rows.every((row) => row.value > 0)).toBe(true);
  }
  expect(report.goals.map(({ goal }) => goal)).toEqual([
    "typical find at 2k offers, us, at most",
    "nothing fits at 2k offers, us, at most",
  ]);
}, 60_000);
