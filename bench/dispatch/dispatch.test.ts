import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { beforeAll, describe, expect, test } from "vitest";
import { Report } from "../report.ts";

const run = promisify(execFile);
const RUN = fileURLToPath(new URL("../run.ts", import.meta.url));

describe("npm run bench dispatch", () => {
  let report: Report;

  beforeAll(async () => {
    const args = [RUN, "dispatch", "--rounds", "1", "--seconds", "1", "--json"];
    const { stdout } = await run(process.execPath, args, { maxBuffer: 2 ** 24 });
    report = Report.parse(JSON.parse(stdout));
  }, 300_000);

  const value = (variant: string, metric: string) =>
    report.rows.find((row) => row.variant === variant && row.metric === metric)?.value;

  test("every variant does jobs at both concurrencies, none of them wrongly", () => {
    const variants = [...new Set(report.rows.map((row) => row.variant))];
    expect(variants).toEqual(expect.arrayContaining(["direct", "warm", "warm-output"]));
    for (const variant of variants)
      for (const c of ["c1", "c16"]) {
        expect(value(variant, `${c} jobs`), `${variant} ${c}`).toBeGreaterThan(0);
        expect(value(variant, `${c} errors`), `${variant} ${c}`).toBe(0);
        for (const metric of ["p50_us", "p99_us", "jobs_per_s"])
          expect(value(variant, `${c} ${metric}`), `${variant} ${c} ${metric}`).toBeGreaterThan(0);
      }
  });

  test("the warm path stands beside the direct call as a ratio of what was measured", () => {
    const row = report.rows.find(
      ({ variant, metric, ratio_to }) =>
        variant === "warm" && metric === "c1 p50_us" && ratio_to === "direct",
    );
    // Of one round the median is that round itself.
    expect(row?.ratio).toBeCloseTo(
      (value("warm", "c1 p50_us") ?? 0) / (value("direct", "c1 p50_us") ?? 0),
      6,
    );
  });

  test("goals are measured where NATS is, and say that they are not where it is missing", () => {
    const withNats = value("nats", "c1 jobs") !== undefined;
    expect(report.goals).toHaveLength(2);
    for (const { measured, met } of report.goals) {
      expect(measured !== null).toBe(withNats);
      expect(met !== null).toBe(withNats);
    }
    expect(report.notes.some((note) => note.includes("nats-server on the PATH"))).toBe(!withNats);
  });
});
