import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { parseClaim, readClaim, writeClaim } from "./claim.ts";
import { type StatePaths, statePaths } from "./state-dir.ts";

let paths: StatePaths;
beforeEach(async () => {
  paths = statePaths(await mkdtemp(join(tmpdir(), "gpux-claim-")));
});
afterEach(() => rm(paths.folder, { recursive: true }));

test.each([
  [undefined, 64],
  ["1", 1],
  ["64", 64],
  ["65", null],
  ["0", null],
  ["-1", null],
  ["all", null],
])("--gpus %s claims %s", (text, gpus) => {
  expect(parseClaim(text)).toBe(gpus);
});

test("a claim stays for the next agent until it is taken back; one that cannot be read is none", async () => {
  expect(await readClaim(paths)).toBe(0);
  expect(await writeClaim(paths, 2), "no agent runs").toBe(false);
  expect(await readClaim(paths)).toBe(2);
  await writeClaim(paths, 0);
  expect(await readClaim(paths)).toBe(0);
  for (const text of ["", "[]", '{"gpus":65}']) {
    await writeFile(paths.claim, text);
    expect(await readClaim(paths)).toBe(0);
  }
});
