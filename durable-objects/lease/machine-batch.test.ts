import { FRAME_LIMIT, FRAME_VERSION, ToLease } from "@gpux/protocol/frames";
import { jobIdOf } from "@gpux/protocol/ids";
import type { JobRequest } from "@gpux/protocol/job";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { highestAllowance } from "./batch.ts";
import { type Arrival, QUEUE_LIMIT } from "./jobs.ts";
import { inFrames, type Run } from "./runs.ts";
import { ALLOWANCE, FUNDED, jobId, submission } from "./testing/fixtures.ts";
import { active, type Scene } from "./testing/scene.ts";
import { issue, redeem } from "./tickets.ts";

const BATCH = "ba".repeat(32);

function batch(scene: Scene, jobs: readonly Partial<JobRequest>[], allowance: object | null = ALLOWANCE) {
  const arrivals = jobs.map((overrides, index): Arrival => {
    const { t: _, ...arrival } = submission(scene.state, index + 1, { allowance: undefined, ...overrides });
    return { ...arrival, batch: BATCH };
  });
  const highest = allowance === null ? null : { ...ALLOWANCE, ...allowance };
  return { t: "submit_all", arrivals, allowance: highest } as const;
}

function withGpus(gpus: number): Scene {
  const scene = active();
  const { lease } = scene.state;
  const text = { ...lease.text, resources: { ...lease.text.resources, gpus } };
  scene.state = { ...scene.state, lease: { ...lease, text } };
  return scene;
}

describe("a batch of jobs", () => {
  it("JOB-10 is queued in its order, and as many as have a GPU leave in one frame", () => {
    const scene = withGpus(3);
    scene.tell(batch(scene, [{}, {}, {}, {}]));
    expect([1, 2, 3, 4].map((n) => [scene.job(n).n, scene.job(n).status])).toEqual([
      [1, "starting"],
      [2, "starting"],
      [3, "starting"],
      [4, "queued"],
    ]);
    expect(scene.frames("run")).toEqual([]);
    const [frame, ...more] = scene.frames("runs");
    expect(more).toEqual([]);
    expect(frame?.runs.map(({ job }) => job)).toEqual([1, 2, 3].map((n) => jobId(scene.state, n)));
    expect(scene.state.lease.allowance).toEqual(ALLOWANCE);
  });

  it.each([
    ["the funding", [{}, { max_price: FUNDED }, {}], ALLOWANCE, { code: "lease_underfunded", index: 1 }],
    [
      "the allowance, of which it says how much all of them need",
      [{}, {}, {}],
      { cumulative: 199_999n },
      { code: "allowance_required", index: 1, cumulative: 300_000n },
    ],
    [
      "the lease's terms",
      [{}, {}, { timeouts: { queue_s: 600, start_s: 60, execution_s: 3_600 } }],
      ALLOWANCE,
      { code: "lease_closed", index: 2 },
    ],
  ])("JOB-10 is not taken at all where one job is not covered by %s", (_, jobs, allowance, refusal) => {
    const scene = active();
    const before = scene.state;
    expect(scene.try(batch(scene, jobs, allowance))).toMatchObject(refusal);
    expect(scene.state).toBe(before);
    expect(scene.frames("run")).toEqual([]);
  });

  it("JOB-10 finds what it cannot have room for in the queue, with what is there already", () => {
    const scene = active();
    const free = { max_price: 0n };
    for (let n = 0; n < QUEUE_LIMIT - 2; n += 1) {
      const job = jobIdOf(
        scene.state.lease.id,
        Uint8Array.from({ length: 16 }, (_, at) => n >> (8 * at)),
      );
      scene.tell({ ...submission(scene.state, 9, free), job });
    }
    expect(scene.try(batch(scene, [free, free, free]))).toMatchObject({ code: "queue_full", index: 2 });
    expect(scene.state.jobs.size).toBe(QUEUE_LIMIT - 2);
  });

  it("JOB-2 is the same under the same ids only as a whole", () => {
    const scene = active();
    scene.tell(batch(scene, [{}, {}]));
    const { jobs } = scene.state;
    scene.tell(batch(scene, [{}, {}]));
    expect(scene.state.jobs).toEqual(jobs);
    const other = batch(scene, [{}, {}, {}]);
    const longer = {
      ...other,
      arrivals: other.arrivals.map((each) => ({ ...each, batch: "bb".repeat(32) })),
    };
    expect(scene.try(longer)).toMatchObject({ code: "idempotency_key_reused", index: 0 });
    expect(scene.try(submission(scene.state, 1))).toMatchObject({ code: "idempotency_key_reused" });
  });

  it("ACK-5 knows by a job's ticket that it came in this batch", () => {
    const scene = active();
    scene.tell(batch(scene, [{}, {}]));
    const secret = `0x${"5e".repeat(32)}` as const;
    expect(redeem(secret, issue(secret, scene.job(1)) ?? "")).toMatchObject({ batch: BATCH });
  });

  it("counts the highest of the allowances that its jobs bring", () => {
    const of = (cumulative: bigint) => ({ allowance: { cumulative, signature: "0x00" as const } });
    expect(highestAllowance([of(1n), {}, of(3n), of(2n)])).toEqual({ ...of(3n), index: 2 });
    expect(highestAllowance([{}, {}])).toBeNull();
  });
});

describe("the jobs that leave at once", () => {
  const run = (n: number, json = "x"): Run => {
    const scene = active();
    return {
      job: jobId(scene.state, n),
      attempt: { epoch: 1, n: 1 },
      function: "f".repeat(64),
      inputs: { n: { json } },
      execution_ms: 1,
      max_price: 1n,
      committed: 1n,
      turn: { priority: -10, n: 2 ** 31 },
      allowance: { cumulative: FUNDED, signature: `0x${"ab".repeat(500)}` },
    };
  };

  it("are told in their order by frames that stay within the limit with their tickets", () => {
    const runs = Array.from({ length: 40 }, (_, n) => run(n, '"'.repeat(n * 500)));
    const frames = inFrames(runs);
    expect(
      frames.flatMap((frame) => (frame.t === "run" ? [frame.job] : frame.runs.map(({ job }) => job))),
    ).toEqual(runs.map(({ job }) => job));
    expect(frames.length).toBeLessThan(runs.length);
    const ticket = '"'.repeat(2_000);
    for (const frame of frames) {
      const head = { v: FRAME_VERSION, seq: 2 ** 48, ack: 2 ** 48 } as const;
      const full: ToLease =
        frame.t === "run"
          ? { ...head, ...frame, ticket }
          : { ...head, ...frame, runs: frame.runs.map((each) => ({ ...each, ticket })) };
      expect(JSON.stringify(z.encode(ToLease, full)).length).toBeLessThan(FRAME_LIMIT);
    }
  });

  it("are a plain frame where there is but one, and none where there is none", () => {
    expect(inFrames([run(1)])).toEqual([{ t: "run", ...run(1) }]);
    expect(inFrames([])).toEqual([]);
  });
});
