import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CHALLENGE_FUNCTION, UNITS } from "@gpux/protocol/challenge/function";
import { inputsOf, isRight } from "@gpux/protocol/challenge/work";
import type { ToNode } from "@gpux/protocol/frames";
import { LIMITS } from "@gpux/protocol/manifest";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { type Executor, executionFailure, type FunctionJob } from "../executors/executor.ts";
import { createWebGpuExecutor } from "../executors/webgpu/executor.ts";
import { createSlots, type Slots } from "../leases/slots.ts";
import { type Answer, createChallenges } from "./challenges.ts";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 });

const work = { seedA: 123_456_789, seedB: 4_123_456_789, depth: 32 };
const frame: Extract<ToNode, { t: "challenge" }> = {
  v: 1,
  seq: 0,
  ack: 0,
  t: "challenge",
  challenge: "11111111-1111-4111-8111-111111111111",
  function: CHALLENGE_FUNCTION,
  inputs: inputsOf(work),
  execution_ms: 60_000,
};

let cacheDir: string;
let executor: Executor<FunctionJob>;
let slots: Slots;
let now: number;

beforeAll(async () => {
  cacheDir = await mkdtemp(join(tmpdir(), "gpux-challenge-"));
  executor = createWebGpuExecutor({ cacheDir, adapter: "software" });
});
beforeEach(() => {
  slots = createSlots(1);
  now = 0;
});
afterAll(async () => {
  await executor.close();
  await rm(cacheDir, { recursive: true, force: true });
});

const challengesOn = (run: Executor<FunctionJob>["run"]) =>
  createChallenges({ executor: { ...executor, run }, slots, limits: LIMITS }, () => now);
const reasonOf = (answer: Answer) => (answer.t === "unproven" ? answer.reason : answer.t);

test("CHL-2 what a device makes of the challenge's function is right in every unit that is looked at", async () => {
  const challenges = createChallenges({ executor, slots, limits: LIMITS }, () => now);
  const answer = await challenges.answer(frame);
  if (answer.t !== "proof") throw new Error(answer.reason);
  const hashes = new Uint8Array(Buffer.from(answer.output, "base64"));
  const looks = [0, 1, 127, 128, 8_191, UNITS - 1];
  expect(isRight(work, hashes, looks)).toBe(true);
  expect(isRight({ ...work, seedA: 1 }, hashes, looks)).toBe(false);
  expect(answer.output.length).toBeLessThan(48 * 1024);
});

test("CHL-6 work that is paid for comes first: a busy GPU is not asked, and a slot is given back whatever happens", async () => {
  const challenges = challengesOn(async () => executionFailure("executor_failed", "no"));
  const giveBack = slots.takeFree();
  expect(reasonOf(await challenges.answer(frame))).toBe("busy");
  giveBack?.();
  expect(reasonOf(await challenges.answer(frame))).toBe("executor_failed: no");
  const throwing = challengesOn(async () => {
    throw new Error("broken");
  });
  expect(reasonOf(await throwing.answer(frame))).toBe("broken");
  expect(slots.takeFree()).not.toBeNull();
});

test("CHL-6 an edge that asks for more than a minute of an hour gets nothing more", async () => {
  const challenges = challengesOn(async (job) => {
    expect(job.limits.wallMs).toBe(60_000);
    now += 31_000;
    return {
      ok: true,
      outputs: [{ name: "x", contentType: "", bytes: new Uint8Array(4) }],
      wallMs: 1,
      gpuMs: 1,
    };
  });
  expect(reasonOf(await challenges.answer(frame))).toBe("proof");
  expect(reasonOf(await challenges.answer(frame))).toBe("proof");
  expect(reasonOf(await challenges.answer(frame))).toBe("asked too much of this hour");
  now += 3_600_000;
  expect(reasonOf(await challenges.answer(frame))).toBe("proof");
});

test("CHL-6 a function that breaks the limits, or makes more than a frame holds, is not run", async () => {
  let runs = 0;
  const counted = challengesOn(async (...args) => {
    runs += 1;
    return executor.run(...args);
  });
  expect(reasonOf(await counted.answer({ ...frame, function: { version: 1 } }))).toContain("/");
  expect(runs).toBe(0);
  const big = {
    ...CHALLENGE_FUNCTION,
    outputs: [{ name: "all", kind: "array", buffer: "product", type: "u32", length: 100_000 }],
  };
  expect(reasonOf(await counted.answer({ ...frame, function: big }))).toContain("limit_exceeded");
});

test("CHL-6 an agent that leaves breaks off the challenge that runs", async () => {
  const challenges = createChallenges({ executor, slots, limits: LIMITS }, () => now);
  const answering = challenges.answer({ ...frame, inputs: inputsOf({ ...work, depth: 2 ** 18 }) });
  challenges.close();
  expect(reasonOf(await answering)).toContain("canceled");
});
