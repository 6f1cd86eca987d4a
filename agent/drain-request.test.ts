import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { parseDeadline, requestDrain, takeDrainRequest } from "./drain-request.ts";
import { type StatePaths, statePaths } from "./state-dir.ts";

let paths: StatePaths;
beforeEach(async () => {
  paths = statePaths(await mkdtemp(join(tmpdir(), "gpux-drain-")));
});
afterEach(() => rm(paths.folder, { recursive: true }));

test.each([
  ["0", 0],
  ["90", 90],
  ["90s", 90],
  ["10m", 600],
  ["24h", 86_400],
  ["25h", null],
  ["1d", null],
  ["-1", null],
  ["", null],
  ["soon", null],
])("a deadline of %j is %j seconds", (text, seconds) => {
  expect(parseDeadline(text)).toBe(seconds);
});

test("nobody is told to drain where no agent runs, and no request is left for the next one", async () => {
  expect(await requestDrain(paths, 60)).toBeNull();
  expect(await takeDrainRequest(paths)).toBeNull();
});

test("a request is taken once, and one that is none counts as none", async () => {
  await writeFile(paths.drain, JSON.stringify({ deadline_s: 60 }));
  expect(await takeDrainRequest(paths)).toBe(60);
  expect(await takeDrainRequest(paths)).toBeNull();
  for (const text of ["", "[]", JSON.stringify({ deadline_s: -1 })]) {
    await writeFile(paths.drain, text);
    expect(await takeDrainRequest(paths)).toBeNull();
  }
});
