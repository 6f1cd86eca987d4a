import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { beforeAll, describe, expect, test } from "vitest";
import { Report } from "../report.ts";

const run = promisify(execFile);
const RUN = fileURLToPath(new URL("../run.ts", import.meta.url));
/** All that need no program beside ours; the others are of contenders.test.ts. */
const VARIANTS = [
  ...["direct", "websocket-tunnel"],
  ...[
    "warm",
    "warm-output",
    "warm-session",
    "warm-hmac",
    "warm-async",
    "warm-batch",
    "session-socket",
    "routed",
    "cold",
  ],
];

describe("npm run bench dispatch", () => {
  let report: Report;

  beforeAll(async () => {
    const args = ["--only", VARIANTS.join(), "--rounds", "1", "--seconds", "0.1", "--connections", "2"];
    const { stdout } = await run(process.execPath, [RUN, "dispatch", "--json", ...args], {
      maxBuffer: 2 ** 24,
    });
    report = Report.parse(JSON.parse(stdout));
  }, 300_000);

  const value = (variant: string, metric: string) =>
    report.rows.find((row) => row.variant === variant && row.metric === metric)?.value;

  test("every variant does jobs, none of them wrongly", () => {
    expect([...new Set(report.rows.map((row) => row.variant))].sort()).toEqual([...VARIANTS].sort());
    for (const variant of VARIANTS) {
      // A lease at a time is opened and closed there.
      const c = variant === "cold" ? "c1" : "c2";
      expect(value(variant, `${c} jobs`), variant).toBeGreaterThan(0);
      expect(value(variant, `${c} errors`), variant).toBe(0);
      for (const metric of ["p50_us", "p99_us", "jobs_per_s"])
        expect(value(variant, `${c} ${metric}`), `${variant} ${metric}`).toBeGreaterThan(0);
    }
  });

  test("of a job that is asked for twice it is told when it was taken", () => {
    const taken = value("warm-async", "c2 accepted_p50_us") ?? 0;
    expect(taken).toBeGreaterThan(0);
    expect(taken).toBeLessThanOrEqual(value("warm-async", "c2 p50_us") ?? 0);
  });

  test("the warm path stands beside the direct call as a ratio of what was measured", () => {
    const row = report.rows.find(
      ({ variant, metric, ratio_to }) =>
        variant === "warm" && metric === "c2 p50_us" && ratio_to === "direct",
    );
    // Of one round the median is that round itself.
    expect(row?.ratio).toBeCloseTo(
      (value("warm", "c2 p50_us") ?? 0) / (value("direct", "c2 p50_us") ?? 0),
      6,
    );
  });
});
