import type { JobRequest } from "@gpux/protocol/job";
import { describe, expect, it } from "vitest";
import { committed } from "./billing.ts";
import { duties } from "./duties.ts";
import { GRACE_MS } from "./ending.ts";
import { Job } from "./job-state.ts";
import { jobId, said, submission } from "./testing/fixtures.ts";
import { active, gpu, of, type Scene } from "./testing/scene.ts";
import { issue, redeem } from "./tickets.ts";
import { wakeAt } from "./timers.ts";
import { jobView } from "./view.ts";

const timeouts = { queue_s: 600, start_s: 60, execution_s: 600 };
const ASKED = { timeouts, retries: 0, max_price: 1_000_000n };
type Named = Parameters<typeof of>[1];

function hello(scene: Scene, ...has: (readonly [job: Named, n?: number])[]) {
  const attempts = has.map(([job, n]) => of(scene, job, n));
  return said({ t: "hello", seq: 0, attempts, last_seq: 0, prefetches: true });
}

/** A lease of so many GPUs whose agent prefetches, with so many jobs. */
function line(jobs: number, gpus = 1, change: (n: number) => Partial<JobRequest> = () => ({})): Scene {
  const scene = active();
  const { lease } = scene.state;
  const text = { ...lease.text, resources: { ...lease.text.resources, gpus }, tier: "yieldable" as const };
  scene.state = { ...scene.state, lease: { ...lease, text } };
  scene.tell({ t: "errand", done: "opened" }, { t: "gone" }, hello(scene));
  scene.sent = [];
  const arrivals = Array.from({ length: jobs }, (_, at) => {
    const { t: _t, ...arrival } = submission(scene.state, at + 1, { ...ASKED, ...change(at + 1) });
    return { ...arrival, batch: null };
  });
  return scene.tell({ t: "submit_all", arrivals, allowance: arrivals[0]?.request.allowance ?? null });
}

/** With its first job begun. */
function begun(jobs: number): Scene {
  const scene = line(jobs);
  return scene.tell(started(scene, 1));
}

let frames = 0;
/** Of the agent's next frame: rising, whichever scene it is told. */
const seq = () => {
  frames += 1;
  return frames;
};
const started = (scene: Scene, job: number, ms?: number) =>
  said({ t: "started", seq: seq(), ...of(scene, job), ...(ms === undefined ? {} : { ms }) });
const result = (scene: Scene, job: number, ms: number, n = 1) =>
  said({ t: "result", seq: seq(), ...of(scene, job, n), ms, gpu, outputs: [] });
const told = (scene: Scene) =>
  scene.sent.flatMap((frame) => {
    if (frame.t === "run") return [frame];
    return frame.t === "runs" ? frame.runs : [];
  });
const sent = (scene: Scene) => told(scene).map(({ job }) => job);
const ids = (scene: Scene, ...jobs: number[]) => jobs.map((n) => jobId(scene.state, n));
const recalled = (scene: Scene) => scene.frames("cancel").map(({ job, attempt }) => ({ job, attempt }));
const statuses = (scene: Scene, ...jobs: number[]) => jobs.map((n) => scene.job(n).status);

describe("JOB-12 what an agent is sent before its turn", () => {
  it("leaves in one frame with what may begin, in order, and waits in the queue until the agent begins it", () => {
    const scene = line(4, 2);
    expect(scene.frames("run")).toEqual([]);
    expect(scene.frames("runs")).toHaveLength(1);
    expect(sent(scene)).toEqual(ids(scene, 1, 2, 3, 4));
    expect(told(scene).map(({ turn }) => turn)).toEqual([1, 2, 3, 4].map((n) => ({ priority: 0, n })));
    expect(statuses(scene, 1, 2, 3, 4)).toEqual(["starting", "starting", "queued", "queued"]);
    expect(jobView(scene.state, scene.job(3), scene.now)).toMatchObject({
      attempts: [],
      price: 0n,
      billed_ms: 0,
    });
    expect(jobView(scene.state, scene.job(3), scene.now).wait).toMatchObject({ position: 2 });
    // JOB-1: all of it is covered, sent or not.
    expect(committed(scene.state)).toBe(4_000_000n);
    expect(told(scene).at(-1)).toMatchObject({ committed: 4_000_000n, max_price: 1_000_000n });

    scene.after(1_000).tell(result(scene, 1, 900), started(scene, 3));
    expect(statuses(scene, 1, 2, 3, 4)).toEqual(["succeeded", "starting", "running", "queued"]);
    expect(sent(scene)).toHaveLength(4);
  });

  it("is not sent to an agent that has not said that it prefetches", () => {
    const scene = line(3);
    const older = line(0).tell({ t: "gone" }, said({ t: "hello", seq: 0, attempts: [], last_seq: 0 }));
    for (const n of [1, 2, 3]) older.tell(submission(older.state, n, ASKED));
    expect(sent(scene)).toHaveLength(3);
    expect(sent(older)).toEqual(ids(older, 1));
    expect(told(older)[0]).not.toHaveProperty("turn");
    older.tell(result(older, 1, 0));
    expect(sent(older)).toEqual(ids(older, 1, 2));
  });

  it("is bounded: the first 64 in turn, and more of them as those end", () => {
    const scene = line(70, 1, () => ({ max_price: 1n }));
    expect(sent(scene)).toHaveLength(65);
    scene.tell(result(scene, 1, 0), result(scene, 2, 0));
    expect(sent(scene)).toEqual(ids(scene, ...Array.from({ length: 66 }, (_, at) => at + 1)));
  });

  it("waits while the start of the lease is not paid: what a job may then take depends on who pays it", () => {
    const scene = line(0);
    const { lease } = scene.state;
    scene.state = { ...scene.state, lease: { ...lease, text: { ...lease.text, start_price: "50" } } };
    for (const n of [1, 2, 3]) scene.tell(submission(scene.state, n, ASKED));
    expect(sent(scene)).toEqual(ids(scene, 1));
    scene.after(1_000).tell(result(scene, 1, 1_000));
    expect(sent(scene)).toEqual(ids(scene, 1, 2, 3));
    expect(statuses(scene, 2, 3)).toEqual(["starting", "queued"]);
  });

  it("has a place by its priority and age, also where it comes to the agent after others", () => {
    const scene = line(3);
    scene.tell(submission(scene.state, 9, { ...ASKED, priority: 5 }));
    expect(told(scene).at(-1)).toMatchObject({ job: jobId(scene.state, 9), turn: { priority: 5, n: 4 } });
    scene.after(1_000).tell(result(scene, 1, 1_000), started(scene, 9));
    expect(statuses(scene, 9, 2, 3)).toEqual(["running", "queued", "queued"]);
  });

  it("is believed of whichever the agent has begun: the word of a better one may have been on its way", () => {
    const scene = line(3);
    scene.tell(submission(scene.state, 9, { ...ASKED, priority: 5 }));
    scene.after(1_000).tell(result(scene, 1, 1_000), started(scene, 2));
    expect(statuses(scene, 9, 2, 3)).toEqual(["queued", "running", "queued"]);
    // JOB-4: its start is not counted while another is before it.
    scene.after(61_000);
    expect(statuses(scene, 9, 2)).toEqual(["queued", "running"]);
    scene.tell(result(scene, 2, 61_000), started(scene, 9));
    expect(scene.job(9).status).toBe("running");
  });

  it("is not believed where there is no room for it yet", () => {
    const scene = begun(3);
    scene.tell(started(scene, 2), result(scene, 3, 5));
    expect(statuses(scene, 1, 2, 3)).toEqual(["running", "queued", "queued"]);
  });

  it("goes on whatever becomes of the one before it", () => {
    const scene = line(4);
    const failed = { seq: seq(), ...of(scene, 1), ms: 0, gpu, code: "wgsl_invalid" };
    scene.tell(said({ t: "failed", ...failed }), started(scene, 2), {
      t: "cancel",
      job: jobId(scene.state, 2),
    });
    scene.tell(said({ t: "stopped", seq: seq(), ...of(scene, 2), ms: 0, gpu }), started(scene, 3));
    expect(statuses(scene, 1, 2, 3, 4)).toEqual(["failed", "canceled", "running", "queued"]);
    expect(sent(scene)).toHaveLength(4);
  });

  it("is begun after one that was lost before it and waits again, which comes first by its age", () => {
    const scene = line(3, 1, () => ({ retries: 1 }));
    scene.tell(said({ t: "failed", seq: seq(), ...of(scene, 1), ms: 0, gpu, code: "device_lost" }));
    expect(told(scene).at(-1)).toMatchObject({
      job: jobId(scene.state, 1),
      attempt: { n: 2 },
      turn: { n: 1 },
    });
    expect(statuses(scene, 1, 2, 3)).toEqual(["queued", "queued", "queued"]);
    scene.tell(said({ t: "started", seq: seq(), ...of(scene, 1, 2) }));
    expect(statuses(scene, 1, 2, 3)).toEqual(["running", "queued", "queued"]);
  });

  it("JOB-7 is canceled at once and free, and its agent is told not to begin it", () => {
    const scene = line(3);
    scene.tell({ t: "cancel", job: jobId(scene.state, 2) });
    expect(scene.job(2)).toMatchObject({ status: "canceled", price: 0n, prefetched: null, attempts: [] });
    expect(recalled(scene)).toEqual([of(scene, 2)]);
    scene.tell(
      said({ t: "stopped", seq: seq(), ...of(scene, 2), ms: 5, gpu }),
      result(scene, 1, 0),
      started(scene, 3),
    );
    expect(statuses(scene, 2, 3)).toEqual(["canceled", "running"]);
    expect(scene.job(2).price).toBe(0n);
  });
});

describe("JOB-4 the time-outs of what an agent has before its turn", () => {
  it("count its wait for those before it as the queue's, and its start from when there is room", () => {
    const scene = begun(2);
    scene.after(300_000);
    expect(statuses(scene, 1, 2)).toEqual(["running", "queued"]);
    scene.tell(result(scene, 1, 300_000));
    expect(wakeAt(scene.state, scene.now)).toBeLessThanOrEqual(scene.now + 60_000);
    scene.after(59_999);
    expect(scene.job(2).status).toBe("queued");
    scene.after(1);
    expect(scene.job(2)).toMatchObject({ status: "aborted", failure: { code: "start_timeout" } });
    expect(recalled(scene)).toEqual([of(scene, 2)]);
  });

  it("count its start from when the edge heard of the room, however long that was there by then", () => {
    const scene = begun(2);
    scene.now += 120_000;
    scene.tell(result(scene, 1, 10_000)).after(0);
    scene.tell(started(scene, 2));
    expect(statuses(scene, 1, 2)).toEqual(["succeeded", "running"]);
    scene.tell(result(scene, 2, 100_000));
    expect(scene.job(2).billedMs).toBe(0);
  });

  it("end it by its queue time-out while another is before it", () => {
    const scene = line(2, 1, (n) => (n === 2 ? { timeouts: { ...timeouts, queue_s: 10 } } : {}));
    scene.tell(started(scene, 1));
    scene.after(9_999);
    expect(scene.job(2).status).toBe("queued");
    expect(wakeAt(scene.state, scene.now)).toBe(scene.now + 1);
    scene.after(1);
    expect(scene.job(2)).toMatchObject({ status: "aborted", price: 0n, failure: { code: "start_timeout" } });
    expect(recalled(scene)).toEqual([of(scene, 2)]);
  });

  it("wait after an outage for what the agent says again of it", () => {
    const scene = line(2, 1, (n) => (n === 2 ? { timeouts: { ...timeouts, queue_s: 10 } } : {}));
    scene.tell(started(scene, 1)).after(5_000);
    scene.tell({ t: "gone" });
    scene.now += 5_500;
    scene.tell(hello(scene, [1], [2]), result(scene, 1, 6_000), started(scene, 2));
    expect(scene.job(2).status).toBe("running");
  });

  it("count its execution from its own begin", () => {
    const scene = line(2, 1, () => ({ timeouts: { ...timeouts, execution_s: 20 } }));
    scene.tell(started(scene, 1));
    scene.after(15_000).tell(result(scene, 1, 15_000), started(scene, 2));
    scene.after(29_999);
    expect(scene.job(2).status).toBe("running");
    scene.after(1);
    expect(scene.job(2)).toMatchObject({ status: "timed_out", price: 0n });
  });
});

describe("MTR-1 the edge's clock of what an agent had before its turn", () => {
  it("begins when the one before had ended by the agent's word, not when it was sent", () => {
    const scene = line(2);
    scene.after(10_000).tell(result(scene, 1, 9_000));
    // It claims more than it can have had.
    scene.after(1_000).tell(result(scene, 2, 9_000));
    expect(scene.job(1).billedMs).toBe(9_000);
    expect(scene.job(2).billedMs).toBe(2_000);
    expect(scene.state.lease.billedMs).toBe(scene.now - scene.job(1).createdAt);
  });

  it("bills what ran of several whose ends come together, LNK-9 without a word of their begin", () => {
    const scene = line(4);
    scene.now += 40;
    for (const n of [1, 2, 3]) scene.tell(result(scene, n, 10));
    expect([1, 2, 3].map((n) => scene.job(n).billedMs)).toEqual([10, 10, 10]);
    scene.tell(result(scene, 4, 100));
    expect(scene.job(4).billedMs).toBe(10);
  });

  it("counts from what it heard of the begin, where it was told", () => {
    const scene = begun(2);
    scene.after(10_000).tell(result(scene, 1, 10_000));
    scene.after(5_000).tell(started(scene, 2, 25));
    expect(scene.job(2).attempts[0]).toMatchObject({ startedAt: scene.now - 25 });
    scene.after(1_000).tell(result(scene, 2, 4_000));
    expect(scene.job(2).billedMs).toBe(1_025);
  });

  it("MTR-3 bills nothing that did not run", () => {
    const scene = line(2);
    scene.tell({ t: "cancel", job: jobId(scene.state, 2) }).after(1_000);
    expect(scene.state.lease.spent).toBe(0n);
  });
});

describe("JOB-12 what was sent before its turn and does not come to it", () => {
  const WITHDRAWN = { outcome: "withdrawn", startedAt: null };

  it("LSE-11 is called back when the GPUs are taken back, keeps its retries, and goes on under a new number", () => {
    const scene = begun(2);
    scene.tell(said({ t: "yield", seq: seq(), notice_s: 30 }));
    expect(recalled(scene)).toEqual([of(scene, 2)]);
    expect(scene.job(2)).toMatchObject({ status: "queued", prefetched: null, attempts: [WITHDRAWN] });
    expect(scene.job(2).queuedAt).toBe(scene.job(2).createdAt);
    // What the agent had begun just then is nobody's, whatever it says.
    scene.tell(started(scene, 2), result(scene, 2, 5));
    expect(scene.job(2)).toMatchObject({ status: "queued", price: 0n });
    scene.after(30_000);
    scene.tell({ t: "capacity", turn: 1, blocker: null }).after(0);
    scene.tell({ t: "capacity", turn: 2, blocker: null }, { t: "gone" }, hello(scene));
    expect(told(scene).slice(-2)).toMatchObject([{ attempt: { n: 2 } }, { attempt: { n: 2 } }]);
    expect(statuses(scene, 1, 2)).toEqual(["starting", "queued"]);
    scene.tell(result(scene, 1, 0, 2), result(scene, 2, 0, 2));
    expect(scene.job(2)).toMatchObject({
      status: "succeeded",
      attempts: [WITHDRAWN, { outcome: "succeeded" }],
    });
  });

  it("JOB-4 waits anew where there was room for it, as a lost attempt does", () => {
    const scene = begun(2);
    scene.after(1_000).tell(result(scene, 1, 1_000));
    scene.after(500).tell(said({ t: "yield", seq: seq(), notice_s: 30 }));
    expect(scene.job(2)).toMatchObject({ status: "queued", queuedAt: scene.now, attempts: [WITHDRAWN] });
  });

  it("LSE-10 ends free with its node's stop, as one that was not sent", () => {
    const scene = line(0);
    scene.tell({ t: "gone" }, hello(scene));
    const arrivals = [1, 2].map((n) => {
      const { t: _, ...arrival } = submission(scene.state, n, ASKED);
      return { ...arrival, batch: "ba".repeat(32) };
    });
    scene.tell({ t: "submit_all", arrivals, allowance: arrivals[0]?.request.allowance ?? null });
    scene.tell(started(scene, 1), said({ t: "drain", seq: seq(), deadline_s: 60 }));
    expect(recalled(scene)).toEqual([of(scene, 2)]);
    expect(scene.job(1).status).toBe("running");
    expect(scene.job(2)).toMatchObject({
      status: "aborted",
      failure: { code: "node_draining" },
      attempts: [],
    });
  });

  it("LSE-10, JOB-11 waits to move from a node that stops, with nothing on record that it did not do", () => {
    const scene = begun(2);
    scene.tell(said({ t: "drain", seq: seq(), deadline_s: 60 }));
    expect(recalled(scene)).toEqual([of(scene, 2)]);
    expect(scene.job(2)).toMatchObject({ status: "queued", prefetched: null, attempts: [] });
    expect(duties(scene.state, scene.now).map(({ t }) => t)).toContain("places");
  });

  it("JOB-11 moves with all its retries once its node has been away too long", () => {
    const scene = begun(2);
    scene.tell({ t: "gone" });
    scene.after(GRACE_MS - 1);
    expect(scene.job(2).prefetched).not.toBeNull();
    expect(duties(scene.state, scene.now).map(({ t }) => t)).not.toContain("places");
    scene.after(1);
    expect(scene.job(2)).toMatchObject({ status: "queued", prefetched: null, attempts: [WITHDRAWN] });
    expect(duties(scene.state, scene.now).map(({ t }) => t)).toContain("places");
    scene.tell(hello(scene, [1], [2]));
    expect(scene.frames("welcome").at(-1)?.attempts).toEqual([]);
  });

  it("LSE-14 is called back while a reorganisation has the funding", () => {
    const scene = begun(2);
    scene.tell({ t: "unfunded" });
    expect(scene.state.lease.status).toBe("suspended");
    expect(scene.job(2)).toMatchObject({ status: "queued", attempts: [WITHDRAWN] });
    expect(recalled(scene)).toEqual([of(scene, 2)]);
  });

  it("is sent again under its number to an agent that is back without it, and stays with one that has it", () => {
    const scene = begun(3);
    scene.tell({ t: "gone" });
    scene.sent = [];
    scene.tell(hello(scene, [1], [2]));
    expect(scene.frames("welcome")[0]?.attempts).toEqual([of(scene, 1), of(scene, 2)]);
    expect(sent(scene)).toEqual(ids(scene, 3));
    expect(told(scene)[0]?.attempt).toEqual({ epoch: 1, n: 1 });
    expect(recalled(scene)).toEqual([]);
  });

  it("JOB-6 outlives the one that its agent lost with its process", () => {
    const scene = begun(2);
    scene.tell({ t: "gone" }, hello(scene));
    expect(scene.job(1)).toMatchObject({ status: "failed", failure: { code: "node_lost" } });
    expect(scene.job(2)).toMatchObject({ status: "starting", attempts: [{ outcome: null }] });
  });
});

it("ACK-5 a ticket names the attempt that a job was sent ahead for", () => {
  const scene = line(2);
  const secret = `0x${"5e".repeat(32)}` as const;
  expect(redeem(secret, issue(secret, scene.job(2)) ?? "")).toMatchObject({
    attempt: { epoch: 1, n: 1 },
    sentAt: scene.now,
  });
});

it("a job's row of before it could be prefetched is read", () => {
  const { prefetched: _, ...before } = Job.encode(line(1).job(1));
  expect(Job.parse(before).prefetched).toBeNull();
});
