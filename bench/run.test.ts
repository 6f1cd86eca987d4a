import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const RUN = fileURLToPath(new URL("./run.ts", import.meta.url));

function bench(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [RUN, ...args], { encoding: "utf8" });
  return { status, stdout, stderr };
}

describe("npm run bench", () => {
  test("without a name lists the benches", () => {
    const { status, stdout } = bench();
    expect(status).toBe(0);
    expect(stdout).toMatch(/^ {2}dispatch /m);
    expect(stdout).toMatch(/^ {2}match /m);
    expect(stdout).toMatch(/^ {2}signatures /m);
    expect(stdout).toMatch(/^ {2}settlement /m);
  });

  test("with --help lists the variants of a bench", () => {
    const { status, stdout } = bench("dispatch", "--help");
    expect(status).toBe(0);
    expect(stdout).toMatch(/^ {2}direct +an HTTP server /m);
    expect(stdout).toMatch(/^ {2}warm-batch /m);
  });

  test.each([
    [["nonesuch"], "There is no bench nonesuch; there are: dispatch, match, signatures, settlement."],
    [["dispatch", "--rounds", "0"], "--rounds takes a number from 1 to 100."],
    [["dispatch", "--rounds", "1.5"], "--rounds takes a whole number."],
    [["dispatch", "--seconds", "soon"], "--seconds takes a number from 0.1 to 60."],
    [["settlement", "--rounds", "2"], "it takes no --rounds and no --seconds."],
    [["settlement", "--seconds", "2"], "it takes no --rounds and no --seconds."],
    [["dispatch", "match"], "One bench at a time, not also match."],
    [["dispatch", "--fast"], "--fast"],
    [["dispatch", "--only", "direct,nonesuch"], "dispatch has no variant nonesuch; it has: direct, nats, "],
    [["dispatch", "--connections", "1,65"], "--connections takes a number from 1 to 64."],
    [["dispatch", "--connections", "1.5"], "--connections takes whole numbers."],
    [["settlement", "--only", "ours"], "settlement takes no --only and no --connections."],
  ])("%j is refused in one line, before anything starts", (args, message) => {
    const { status, stdout, stderr } = bench(...args);
    expect(status).toBe(2);
    expect(stdout).toBe("");
    expect(stderr).toContain(`gpux bench: `);
    expect(stderr).toContain(message);
    expect(stderr).not.toContain("    at ");
  });
});
