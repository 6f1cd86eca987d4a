import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { effortOf } from "./effort.ts";
import { fuzzReport } from "./fuzz-report.ts";

const OUTPUT = `
  test/Views.t.sol:ViewsTest
    ✔ test_due_of_a_lease_that_is_not_live_is_what_it_paid()
    ✔ testFuzz_leaseId_is_the_digest_of_the_terms((address,uint88,bytes32)) (runs: 1000)
  test/Solvency.t.sol:SolvencyTest
    ✔ invariant_no_money_goes_astray() (runs: 10)

  3 passing
`;
const ENDED = new Date("2026-11-22T21:00:00Z");

describe("the report of the long run", () => {
  test("counts the calls that the runner says it made, an act of a sequence each one", () => {
    const page = fuzzReport("0xabc", { status: 0, output: OUTPUT, seconds: 1_800 }, ENDED);
    expect(page).toContain("2026-11-22 21:00 UTC, 30 minutes");
    expect(page).toContain("all passed; 3 tests passing, 0 failing; 3,560 calls");
    expect(page).toContain("| `testFuzz_leaseId_is_the_digest_of_the_terms` | 1,000 | 1,000 |");
    expect(page).toContain("| `invariant_no_money_goes_astray` | 10 sequences of 256 acts | 2,560 |");
    expect(page).toContain("npm run test:long -- --seed 0xabc");
  });

  test("says that a run failed, and counts no test that did", () => {
    const output = OUTPUT.replace("✔ invariant", "1) invariant").replace(
      "3 passing",
      "2 passing\n  1 failing",
    );
    const page = fuzzReport("0xabc", { status: 1, output, seconds: 60 }, ENDED);
    expect(page).toContain("**exit status 1**; 2 tests passing, 1 failing; 1,000 calls");
  });
});

describe("npm run test:long", () => {
  test("refuses a seed that is none, before anything starts", () => {
    const long = fileURLToPath(new URL("long.ts", import.meta.url));
    const { status, stdout, stderr } = spawnSync(process.execPath, [long, "--seed", "0x1"], {
      encoding: "utf8",
    });
    expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
    expect(stderr).toBe("--seed takes 0x and 64 hex digits in lower case, not 0x1\n");
  });

  test("the effort is short unless the environment asks for more, and nothing it does not know", () => {
    expect(effortOf({})).toMatchObject({ fuzz: 128, seed: undefined });
    const seed = `0x${"0a".repeat(32)}`;
    expect(effortOf({ EFFORT: "long", FUZZ_SEED: seed })).toMatchObject({ runs: 8_192, depth: 256, seed });
    expect(() => effortOf({ EFFORT: "heroic" })).toThrow("EFFORT");
    expect(() => effortOf({ FUZZ_SEED: "0x1" })).toThrow("FUZZ_SEED");
  });
});
