import type { JobEvent, JobView } from "@gpux/protocol/job";
import { expect, it } from "vitest";
import { createProgress, type JobState, describe as line, stateAfterEvent } from "./progress.ts";
import { table } from "./terminal.ts";
import { createScreen } from "./testing/screen.ts";

const NODE = "0xa1b2000000000000000000000000000000003c4d";
const state = (change: Partial<JobState>): JobState => ({
  status: "queued",
  node: NODE,
  fraction: null,
  note: null,
  price: 0n,
  ahead: null,
  blockers: [],
  attempt: 1,
  ...change,
});

it.each([
  [{ ahead: 0, blockers: ["funding"] }, "queued · next in line · waiting for funding"],
  [{ ahead: 2 }, "queued · 2 ahead"],
  [
    { ahead: 0, blockers: ["node_away"], attempt: 2 },
    "queued · attempt 2 · next in line · waiting for node away",
  ],
  [{ status: "starting" }, "starting on 0xa1b2…3c4d"],
  [
    { status: "running", fraction: 0.426, note: "pass 3", price: 1_234n },
    "running on 0xa1b2…3c4d · 42 % · pass 3 · 0.001234 USDC",
  ],
  [{ status: "running", note: "a\x1b[31m\nb" }, "running on 0xa1b2…3c4d · a\ufffd[31m b"],
  [{ status: "timed_out", price: 50_000n }, "timed out · 0.05 USDC"],
] satisfies [Partial<JobState>, string][])("shows %o", (change, text) => {
  expect(line(state(change))).toBe(text);
});

const event = (type: JobEvent["type"], data: JobEvent["data"]): JobEvent => ({
  id: 1,
  job: `job_${"a".repeat(32)}_${"a".repeat(26)}` as JobView["id"],
  at: "2026-11-22T00:00:00Z",
  type,
  data,
});

it("follows events, and starts a new attempt at its beginning", () => {
  let now = stateAfterEvent(state({}), event("status", { status: "running", attempt: 1 }));
  now = stateAfterEvent(now, event("progress", { fraction: 0.5, note: "half" }));
  expect(now).toMatchObject({ status: "running", fraction: 0.5, note: "half" });
  now = stateAfterEvent(now, event("status", { status: "queued" }));
  expect(now).toMatchObject({ status: "queued", fraction: null, note: null });
  expect(stateAfterEvent(now, event("status", { status: "starting", attempt: 2 })).attempt).toBe(2);
});

it.each([{ fraction: "all" }, { fraction: null }, {}])("is not misled by a progress of %o", (data) => {
  const after = stateAfterEvent(state({ status: "running" }), event("progress", data));
  expect(line(after)).toBe("running on 0xa1b2…3c4d");
});

it("rewrites one line on a terminal, and lets other lines pass above it", () => {
  const { terminal, err } = createScreen({}, true);
  const progress = createProgress(terminal);
  progress.show(state({ ahead: 1 }));
  progress.line("| hello");
  progress.show(state({ status: "running", fraction: 0.5 }));
  progress.end();
  expect(err()).toBe(
    "\r\x1b[2Kqueued · 1 ahead\r\x1b[2K| hello\nqueued · 1 ahead\r\x1b[2Krunning on 0xa1b2…3c4d · 50 %\n",
  );
});

it("writes a line for each tenth elsewhere", () => {
  const { terminal, err } = createScreen();
  const progress = createProgress(terminal);
  for (let n = 0; n <= 100; n += 1) progress.show(state({ status: "running", fraction: n / 100 }));
  progress.end();
  expect(err().split("\n")).toHaveLength(12);
  expect(err()).not.toContain("\x1b");
});

it("lines columns up", () => {
  expect(
    table([
      ["a", "bb"],
      ["ccc", "d"],
    ]),
  ).toBe("a    bb\nccc  d\n");
});
