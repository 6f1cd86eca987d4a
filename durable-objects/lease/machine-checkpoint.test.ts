import { describe, expect, it } from "vitest";
import { committed } from "./billing.ts";
import { Job } from "./job-state.ts";
import { said, submission } from "./testing/fixtures.ts";
import { active, attested, gpu, of, type Scene, signed } from "./testing/scene.ts";
import { broughtBack, issue } from "./tickets.ts";
import { jobView } from "./view.ts";

const timeouts = { queue_s: 600, start_s: 60, execution_s: 60 };
const ASKED = { timeouts, max_price: 100_000n, retries: 0, checkpoint: true };
const CHECKPOINT = { sha256: "c0".repeat(32), bytes: 4_096 };
const hello = (checkpoints: boolean | null) =>
  said({
    t: "hello",
    seq: 0,
    attempts: [],
    last_seq: 0,
    ...(checkpoints === null ? {} : { checkpoints }),
  });
const yields = (seq: number) => said({ t: "yield", seq, notice_s: 30 });
const kept = (scene: Scene, seq: number, ms: number, n = 1) =>
  said({ t: "yielded", seq, ...of(scene, 1, n), ms, gpu, checkpoint: CHECKPOINT });

/** A yieldable lease whose job has begun; its agent keeps what gives way, unless it is older than that. */
function busy(asked: Partial<typeof ASKED> = ASKED, checkpoints: boolean | null = true): Scene {
  const scene = active().tell({ t: "errand", done: "opened" });
  const { lease } = scene.state;
  scene.state = { ...scene.state, lease: { ...lease, text: { ...lease.text, tier: "yieldable" } } };
  scene.tell({ t: "gone" }, hello(checkpoints));
  return scene.tell(submission(scene.state, 1, asked), said({ t: "started", seq: 1, ...of(scene, 1) }));
}

/** Given way after 20 of 30 s, with the receipt of that signed, and at its node again. */
function resumed(): Scene {
  const scene = busy().tell(yields(2)).after(20_000);
  return again(scene.tell(kept(scene, 3, 20_000)), 4);
}

function again(scene: Scene, seq: number): Scene {
  scene.tell(signed(scene, seq));
  scene.tell(attested(scene));
  const { turn } = scene.state.lease.capacity;
  scene.tell({ t: "capacity", turn, blocker: null }, { t: "capacity", turn: turn + 1, blocker: null });
  return scene.tell({ t: "gone" }, hello(true));
}

describe("CKP-1 an attempt that gives way with a checkpoint", () => {
  it("is asked to keep its work only where its agent knows of it and others may take its GPUs", () => {
    const runs = (scene: Scene) =>
      scene.frames("run").map((run) => ("checkpoint" in run ? run.checkpoint : 0));
    expect(runs(busy())).toEqual([null]);
    expect(runs(busy({ ...ASKED, checkpoint: false }))).toEqual([0]);
    expect(runs(busy(ASKED, null))).toEqual([0]);
    const firm = active().tell({ t: "gone" }, hello(true));
    expect(runs(firm.tell(submission(firm.state, 1, ASKED)))).toEqual([0]);
  });

  it("goes back to the queue without spending a retry, and the next one is given what it kept", () => {
    const scene = busy().tell(yields(2)).after(20_000);
    scene.tell(kept(scene, 3, 20_000));
    expect(scene.job(1)).toMatchObject({
      status: "queued",
      checkpoint: CHECKPOINT,
      attempts: [{ outcome: "yielded" }],
    });
    again(scene, 4);
    expect(scene.frames("run").at(-1)).toMatchObject({ checkpoint: CHECKPOINT, attempt: { n: 2 } });
    scene.tell(said({ t: "failed", seq: 5, ...of(scene, 1, 2), ms: 0, gpu, code: "device_lost" }));
    expect(scene.job(1)).toMatchObject({ status: "failed", failure: { code: "device_lost" } });
  });

  it("lets the lease rest only when its receipt is settled: its agent hangs up then", () => {
    const scene = busy().tell(yields(2)).after(20_000);
    scene.tell(kept(scene, 3, 20_000));
    expect(scene.frames("settle")).toHaveLength(1);
    expect(scene.after(20_000).state.lease.capacity.state).toBe("held");
    scene.tell(signed(scene, 4));
    scene.tell(attested(scene));
    expect(scene.state.lease.capacity.state).toBe("resting");
  });

  it("is as one that kept nothing when its word comes after the notice, or when nobody had told it to go", () => {
    const late = busy()
      .tell(yields(2))
      .after(30_000)
      .tell(kept(busy(), 3, 20_000));
    expect(late.job(1)).toMatchObject({ status: "queued", price: 0n, checkpoint: null });
    const unasked = busy()
      .after(20_000)
      .tell(kept(busy(), 2, 20_000));
    expect(unasked.job(1)).toMatchObject({
      status: "failed",
      price: 0n,
      failure: { code: "executor_failed" },
    });
    const unwanted = busy({ ...ASKED, checkpoint: false })
      .tell(yields(2))
      .after(20_000);
    expect(unwanted.tell(kept(unwanted, 3, 20_000)).job(1)).toMatchObject({ status: "failed", price: 0n });
  });

  it("is known by its ticket to have asked for it", () => {
    const { state } = busy();
    const job = [...state.jobs.values()][0];
    if (job === undefined) throw new Error("there is a job");
    const secret = `0x${"5e".repeat(32)}` as const;
    const attempt = { epoch: 1, n: 1 };
    const ticket = issue(secret, job) ?? "";
    const said = { v: 1, seq: 0, ack: 0, t: "accepted", job: job.id, attempt, ticket } as const;
    const { function: code, inputs } = job.request;
    expect(broughtBack(secret, { ...said, function: code, inputs })?.request.checkpoint).toBe(true);
  });
});

describe("CKP-2 several attempts of a job that are paid", () => {
  it("each have a receipt, and together never cost more than max_price, nor run longer than the time-out", () => {
    const scene = resumed();
    expect(scene.job(1)).toMatchObject({ status: "starting", price: 20_000n, billedMs: 20_000 });
    expect(scene.frames("run").at(-1)).toMatchObject({ execution_ms: 40_000, max_price: 80_000n });
    expect(committed(scene.state)).toBe(100_000n);
    scene.tell(said({ t: "started", seq: 5, ...of(scene, 1, 2) })).after(5_000);
    expect(jobView(scene.state, scene.job(1), scene.now)).toMatchObject({
      price: 25_000n,
      billed_ms: 25_000,
    });
    scene.tell(said({ t: "result", seq: 6, ...of(scene, 1, 2), ms: 5_000, gpu, outputs: [] }));
    expect(scene.job(1)).toMatchObject({ status: "succeeded", price: 25_000n, billedMs: 25_000 });
    expect(scene.state.lease).toMatchObject({ spent: 25_000n, billedMs: 25_000 });
    const view = jobView(scene.state, scene.job(1), scene.now);
    expect(view.attempts).toMatchObject([
      { n: 1, outcome: "yielded", paid: 20_000n, billed_ms: 20_000, receipt: { proof: expect.any(Array) } },
      { n: 2, outcome: "succeeded", paid: 5_000n },
    ]);
    expect(view.receipt?.receipt).toMatchObject({ attempt: 2, sequence: 2, price: "5000" });
  });

  it("share the money: what one has used the next cannot", () => {
    const scene = busy({ ...ASKED, max_price: 30_000n })
      .tell(yields(2))
      .after(20_000);
    again(scene.tell(kept(scene, 3, 20_000)), 4);
    expect(scene.frames("run").at(-1)).toMatchObject({ execution_ms: 10_000, max_price: 10_000n });
    scene.tell(said({ t: "started", seq: 5, ...of(scene, 1, 2) })).after(15_000);
    scene.tell(said({ t: "failed", seq: 6, ...of(scene, 1, 2), ms: 15_000, gpu, code: "execution_timeout" }));
    expect(scene.job(1)).toMatchObject({ status: "timed_out", price: 30_000n, billedMs: 30_000 });
  });

  it("is paid for what it kept also when the job is canceled, waits in vain, or fails later", () => {
    const canceled = busy()
      .tell({ t: "cancel", job: busy().job(1).id }, yields(2))
      .after(4_000);
    canceled.tell(kept(canceled, 3, 4_000));
    expect(canceled.job(1)).toMatchObject({ status: "canceled", price: 4_000n, checkpoint: null });
    const waiting = busy().tell(yields(2)).after(20_000);
    waiting.tell(kept(waiting, 3, 20_000)).after(600_000);
    expect(waiting.job(1)).toMatchObject({ status: "aborted", price: 20_000n });
    const failed = resumed();
    failed.tell(said({ t: "failed", seq: 5, ...of(failed, 1, 2), ms: 0, gpu, code: "wgsl_invalid" }));
    expect(failed.job(1)).toMatchObject({ status: "failed", price: 20_000n, receipt: null });
    expect(jobView(failed.state, failed.job(1), failed.now).attempts).toMatchObject([
      { paid: 20_000n },
      { paid: 0n },
    ]);
  });

  it("bills no longer than the edge saw it run, as any attempt", () => {
    const scene = busy().tell(yields(2)).after(20_000);
    expect(scene.tell(kept(scene, 3, 90_000)).job(1)).toMatchObject({ price: 20_000n, billedMs: 20_000 });
  });

  it("MTR-6 is not owed what its node then refuses to sign", () => {
    const scene = busy().tell(yields(2)).after(20_000);
    scene.tell(kept(scene, 3, 20_000), said({ t: "refused", seq: 4, what: "settle", reason: "no" }));
    expect(scene.job(1)).toMatchObject({ status: "failed", price: 0n, billedMs: 0, kept: [] });
    expect(scene.state.lease).toMatchObject({ spent: 0n, billedMs: 0 });
  });

  it("settles several receipts of one job in one block", () => {
    const scene = resumed();
    const { block } = scene.state.lease;
    expect(block).toBeNull();
    scene.tell(
      said({ t: "started", seq: 5, ...of(scene, 1, 2) }),
      said({ t: "yield", seq: 6, notice_s: 30 }),
    );
    scene.after(10_000).tell(kept(scene, 7, 10_000, 2));
    expect(scene.job(1).kept.map(({ receipt, settled }) => [receipt.attempt, settled === null])).toEqual([
      [1, false],
      [2, true],
    ]);
    again(scene, 8);
    expect(scene.job(1).kept.every(({ settled }) => settled !== null)).toBe(true);
    expect(scene.frames("run").at(-1)).toMatchObject({ execution_ms: 30_000, max_price: 70_000n });
  });

  it("reads jobs of before it as ones that kept nothing", () => {
    const { kept: _kept, checkpoint: _checkpoint, ...older } = busy().job(1);
    const wire = JSON.parse(
      JSON.stringify(older, (_, value) => (typeof value === "bigint" ? `${value}` : value)),
    );
    expect(Job.parse(wire)).toMatchObject({ kept: [], checkpoint: null });
  });
});
