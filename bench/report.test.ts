import { describe, expect, test } from "vitest";
import { markdown, type Report, type Row } from "./report.ts";

const row = (variant: string, metric: string, value: number, ratio_to: string | null = null): Row => ({
  variant,
  metric,
  value,
  ratio_to,
  ratio: ratio_to === null ? null : value / 10,
});
const report = (rows: Row[]): Report => ({
  bench: "test",
  rounds: 1,
  seconds: 1,
  rows,
  goals: [],
  notes: [],
});

describe("a report for people", () => {
  test("of few variants has a column for each, with its ratios", () => {
    const text = markdown(report([row("base", "p50_us", 10), row("other", "p50_us", 25, "base")]));
    expect(text).toContain("| metric | base | other |");
    expect(text).toContain("| p50_us | 10 | 25 (2.5 x base) |");
  });

  test("of many variants has a table for each metric, with a column for each base, and the processes at the end", () => {
    const others = ["a", "b", "c", "d", "e"];
    const rows = ["p50_us", "cpu_us"].flatMap((metric) => [
      row("base", metric, 10),
      ...others.map((name) => row(name, metric, 25, "base")),
    ]);
    const text = markdown(report([...rows, row("a", "cpu_us of server", 7)]));
    expect(text).toContain("| p50_us |  | x base |\n| --- | --- | --- |\n| base | 10 |  |\n| a | 25 | 2.5 |");
    expect(text).toContain("| cpu_us |  | x base |");
    expect(text).toContain("| a | cpu_us of server | 7 |");
  });
});
