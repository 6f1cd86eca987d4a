import { describe, expect, it } from "vitest";
import { committed } from "./billing.ts";
import { duties } from "./duties.ts";
import { GRACE_MS } from "./ending.ts";
import { CANCEL_MS } from "./jobs.ts";
import type { Event } from "./machine.ts";
import { claimsOf } from "./signatures.ts";
import { ALLOWANCE, FUND, FUNDED, funded, HELLO, jobId, said, submission } from "./testing/fixtures.ts";
import { active, gpu, of, running, Scene, signed } from "./testing/scene.ts";
import { issue, redeem } from "./tickets.ts";
import { jobView } from "./view.ts";

const SECRET = `0x${"5e".repeat(32)}` as const;

/** A job that was sent, and whose row a crash took; `restore`: its agent brings the ticket back. */
function lost() {
  const scene = active();
  scene.tell(submission(scene.state, 1));
  const job = scene.job(1);
  const ticket = redeem(SECRET, issue(SECRET, job) ?? "");
  if (ticket === null) throw new Error("the lease does not know its own ticket");
  return { job, restore: { t: "restore", ticket, request: job.request } as const };
}

/** Its lease, of which the consumer heard the job's end, was closed before the agent came back. */
function lostAndClosed() {
  const scene = active();
  const { allowance } = submission(scene.state, 1).request;
  const lease = { ...scene.state.lease, allowance: allowance ?? null };
  scene.state = { ...scene.state, lease };
  return { scene: scene.tell({ t: "close" }), ...lost() };
}

describe("a job", () => {
  it("JOB-1 is not queued beyond the funding", () => {
    const scene = active();
    expect(scene.try(submission(scene.state, 1, { max_price: FUNDED + 1n }))).toMatchObject({
      code: "lease_underfunded",
    });
    expect(scene.state.jobs.size).toBe(0);
  });

  it("JOB-1 is not queued beyond the consumer's allowance, and the refusal says how much to allow", () => {
    const scene = active();
    scene.tell(submission(scene.state, 1));
    const short = { ...ALLOWANCE, cumulative: 199_999n };
    const fresh = active();
    fresh.tell(submission(fresh.state, 1, { allowance: short }));
    expect(fresh.try(submission(fresh.state, 2, { allowance: short }))).toEqual({
      ok: false,
      code: "allowance_required",
      cumulative: 200_000n,
    });
  });

  it("JOB-1 is not queued when the lease's terms run out before its time-out could", () => {
    const scene = active();
    const timeouts = { queue_s: 600, start_s: 60, execution_s: 3_600 };
    expect(scene.try(submission(scene.state, 1, { timeouts }))).toMatchObject({ code: "lease_closed" });
  });

  it("ACK-5 comes back by its ticket as it was when it was sent, once", () => {
    const { job, restore } = lost();
    expect(redeem(`0x${"5f".repeat(32)}`, issue(SECRET, job) ?? "")).toBeNull();

    // Its allowance was durable before it was sent.
    const scene = active();
    scene.tell(submission(scene.state, 2));
    expect(scene.try(restore)).toMatchObject({
      journal: [{ data: { status: "queued" } }, { data: { status: "starting", attempt: 1 } }],
    });
    const { attempts, inputHash } = job;
    expect(scene.job(1)).toMatchObject({ status: "starting", attempts, inputHash, n: 2 });
    const { state } = scene.tell(restore);
    expect(state.lease.arrivals).toBe(2);
  });

  it("ACK-5 comes back also where others have its money by now, and then costs no more than they leave", () => {
    const { restore } = lost();
    const scene = active();
    // Who was told that the first cost 1,000 allows that much and what the second may cost.
    const allowance = { cumulative: 101_000n, signature: "0x00" } as const;
    const next = submission(scene.state, 2, { allowance });
    scene.tell(next, restore);
    expect(scene.state.lease.allowance).toEqual(allowance);
    expect(committed(scene.state)).toBe(101_000n);
    scene.now += 1_000;
    scene.tell(said({ t: "result", seq: 2, ...of(scene, 1), ms: 1_000, gpu, outputs: [] }));
    expect(scene.job(1)).toMatchObject({ status: "succeeded", price: 1_000n });
    expect(committed(scene.state)).toBe(101_000n);
  });

  it("ACK-5 comes back also to a lease that was closed since, whose final usage is asked for anew with it", () => {
    const { scene, restore } = lostAndClosed();
    const [first] = scene.frames("close");
    expect(first).toMatchObject({ cumulative: 0n });
    scene.tell(restore);
    expect(scene.state.lease).toMatchObject({ status: "closing", closing: null });
    const answer = {
      t: "close_signed",
      seq: 3,
      cumulative: 0n,
      valid_before: first?.valid_before ?? 0,
    } as const;
    scene.now += 1_000;
    scene.tell(said({ t: "result", seq: 2, ...of(scene, 1), ms: 1_000, gpu, outputs: [] }));
    // The agent had the question before the edge had its result: its answer is none any more, and claims nothing.
    const late = { ...answer, v: 1, ack: 0, signature: "0x03" } as const;
    expect(claimsOf(scene.state, late)).toEqual([]);
    scene.tell({ t: "frame", frame: late }, signed(scene, 4));
    expect(scene.frames("close").slice(1)).toMatchObject([
      { cumulative: 1_000n, evidence: scene.job(1).receipt?.evidence },
    ]);
    expect(scene.state.lease.closing).toMatchObject({ provider: null });
  });

  it("ACK-5, LSE-5 is not begun again on a lease that closes", () => {
    const { scene, restore } = lostAndClosed();
    scene.tell(restore, said({ t: "failed", seq: 2, ...of(scene, 1), code: "device_lost", ms: 5, gpu }));
    expect(scene.job(1)).toMatchObject({ status: "failed", price: 0n });
    expect(scene.frames("close")).toHaveLength(2);
  });

  it("ACK-5 does not come back once its agent has signed the final usage without it", () => {
    const { scene, restore } = lostAndClosed();
    const valid_before = scene.frames("close")[0]?.valid_before ?? 0;
    scene.tell(said({ t: "close_signed", seq: 2, cumulative: 0n, valid_before, signature: "0x03" }), restore);
    expect(scene.state.jobs.size).toBe(0);
    expect(scene.state.lease.closing).toMatchObject({ provider: "0x03" });
  });

  it("ACK-5 is not timed out either when a stalled connection brings it back long after the hello", () => {
    const { restore } = lost();
    const scene = active();
    scene.tell(submission(scene.state, 2));
    scene.now += 120_000;
    scene.tell(restore, said({ t: "failed", seq: 1, ...of(scene, 1), code: "device_lost", ms: 5, gpu }));
    expect(scene.job(1).attempts[0]).toMatchObject({ outcome: "device_lost" });
  });

  it("ACK-5 is not timed out for a start that its agent is about to say again, however long the edge was away", () => {
    const back = () => {
      const scene = active().tell(submission(active().state, 1), { t: "wake", connected: false });
      scene.now += 50_000;
      return scene.tell(said({ t: "hello", seq: 0, last_seq: 0, attempts: [of(scene, 1)] })).after(11_000);
    };
    expect(back().job(1).status, "its start_s of 60 s is over").toBe("aborted");
    const scene = active().tell(submission(active().state, 1), { t: "wake", connected: false });
    scene.now += 59_000;
    scene.tell(said({ t: "hello", seq: 0, last_seq: 0, attempts: [of(scene, 1)] })).after(4_999);
    scene.tell(said({ t: "started", seq: 1, ...of(scene, 1) }));
    scene.tell(said({ t: "result", seq: 2, ...of(scene, 1), ms: 1_000, gpu, outputs: [] }));
    expect(scene.job(1)).toMatchObject({ status: "succeeded", billedMs: 1_000 });
  });

  it("JOB-2 is known by its id: the same again is the same job, other input is refused", () => {
    const scene = running();
    const before = scene.state;
    scene.tell(submission(scene.state, 1));
    expect(scene.state.jobs).toEqual(before.jobs);
    expect(scene.try({ ...submission(scene.state, 1), inputHash: "e".repeat(64) })).toMatchObject({
      code: "idempotency_key_reused",
    });
  });

  it("JOB-3 waits until the lease's GPU is free, oldest first", () => {
    const scene = running();
    scene.tell(submission(scene.state, 2), submission(scene.state, 3));
    expect(scene.frames("run")).toHaveLength(1);
    scene.tell(said({ t: "result", seq: 2, ...of(scene, 1), ms: 1, gpu, outputs: [] }));
    expect([2, 3].map((n) => scene.job(n).status)).toEqual(["starting", "queued"]);
  });

  it("JOB-3 of higher priority goes before older ones, and says so to those that wait", () => {
    const scene = running();
    scene.tell(
      submission(scene.state, 2, { priority: -1 }),
      submission(scene.state, 3),
      submission(scene.state, 4, { priority: 10 }),
      submission(scene.state, 5, { priority: 10 }),
    );
    const position = (n: number) => jobView(scene.state, scene.job(n), scene.now).wait?.position;
    expect([4, 5, 3, 2].map(position)).toEqual([0, 1, 3, 4]);
    const order: number[] = [];
    for (let seq = 2; seq < 6; seq++) {
      const now = [1, 2, 3, 4, 5].find((n) => ["starting", "running"].includes(scene.job(n).status)) ?? 0;
      order.push(now);
      scene.tell(said({ t: "result", seq, ...of(scene, now), ms: 1, gpu, outputs: [] }));
    }
    expect(order).toEqual([1, 4, 5, 3]);
  });

  it.each([
    { end: "its time in the queue", outcome: { status: "aborted" } },
    { end: "a cancel", outcome: { status: "canceled" } },
  ])("JOB-8 an attempt keeps the reason of its own end when $end ends the job that waits again", (the) => {
    const scene = active();
    const timeouts = { queue_s: 5, start_s: 60, execution_s: 120 };
    scene.tell(submission(scene.state, 1, { timeouts }), said({ t: "started", seq: 1, ...of(scene, 1) }));
    scene.tell({ t: "gone" }).after(GRACE_MS);
    const [lost] = scene.job(1).attempts;
    expect(lost?.outcome).toBe("node_lost");
    if (the.outcome.status === "aborted") scene.after(5_000);
    else scene.after(1_000).tell({ t: "cancel", job: jobId(scene.state, 1) });
    expect(scene.job(1)).toMatchObject({ ...the.outcome, attempts: [lost] });
  });

  it("JOB-8 records each attempt with its node, why it ended and what was paid for it", () => {
    const scene = running().tell({ t: "gone" }, HELLO);
    scene.tell(said({ t: "started", seq: 2, ...of(scene, 1, 2) }));
    scene.now += 1_000;
    const failed = { code: "limit_exceeded", detail: "too much", ms: 1_000, gpu };
    scene.tell(said({ t: "failed", seq: 3, ...of(scene, 1, 2), ...failed }));
    const node = scene.state.lease.terms.providerSigner;
    expect(jobView(scene.state, scene.job(1), scene.now).attempts).toMatchObject([
      { n: 1, node, outcome: "node_lost", paid: 0n },
      { n: 2, node, outcome: "limit_exceeded", paid: 1_000n },
    ]);
  });

  it("JOB-4 is aborted and free when it was not started in time, and the agent told", () => {
    const scene = active();
    scene.tell(submission(scene.state, 1)).after(60_000);
    expect(scene.job(1)).toMatchObject({ status: "aborted", price: 0n, failure: { code: "start_timeout" } });
    expect(scene.frames("cancel")).toHaveLength(1);
  });

  it("JOB-4, MTR-7 is ended by the edge when the agent does not end it, and free: nobody proves that it ran", () => {
    const scene = active();
    const timeouts = { queue_s: 600, start_s: 60, execution_s: 10 };
    scene
      .tell(submission(scene.state, 1, { timeouts }), said({ t: "started", seq: 1, ...of(scene, 1) }))
      .after(20_000);
    expect(scene.job(1)).toMatchObject({ status: "timed_out", price: 0n, receipt: null });
    scene.tell({ t: "settle" });
    expect(scene.frames("settle"), "there is nothing to disagree on").toEqual([]);
  });

  it("JOB-5 takes no word from an older attempt or an older life of the lease", () => {
    const scene = running();
    const result = { t: "result" as const, ms: 5, gpu, outputs: [] };
    scene.tell(said({ ...result, seq: 2, job: jobId(scene.state, 1), attempt: { epoch: 1, n: 2 } }));
    scene.tell(said({ ...result, seq: 3, job: jobId(scene.state, 1), attempt: { epoch: 2, n: 1 } }));
    expect(scene.job(1).status).toBe("running");
  });

  it("JOB-6 whose attempt was lost runs again, free for that attempt, until its retries are spent", () => {
    const scene = running();
    scene.now += 5_000;
    scene.tell({ t: "gone" }, HELLO);
    expect(scene.job(1)).toMatchObject({ status: "starting", price: 0n });
    expect(scene.frames("run").map((frame) => frame.attempt.n)).toEqual([1, 2]);
    for (const n of [2, 3])
      scene.tell(said({ t: "started", seq: n, ...of(scene, 1, n) }), { t: "gone" }, HELLO);
    expect(scene.job(1)).toMatchObject({ status: "failed", price: 0n, failure: { code: "node_lost" } });
    expect(scene.state.lease.spent).toBe(0n);
  });

  it("JOB-6 goes back to the queue when its node stays away beyond the grace", () => {
    const scene = active();
    const timeouts = { queue_s: 600, start_s: 60, execution_s: 600 };
    scene.tell(
      submission(scene.state, 1, { timeouts, max_price: 9_000_000n }),
      said({ t: "started", seq: 1, ...of(scene, 1) }),
      { t: "gone" },
    );
    scene.after(GRACE_MS - 1);
    expect(scene.job(1).status).toBe("running");
    scene.after(1);
    expect(scene.job(1).status).toBe("queued");
  });

  it("JOB-6 is not charged when its time-out passes while the node is away", () => {
    const scene = active();
    const timeouts = { queue_s: 600, start_s: 60, execution_s: 10 };
    scene.tell(submission(scene.state, 1, { timeouts }), said({ t: "started", seq: 1, ...of(scene, 1) }), {
      t: "gone",
    });
    scene.after(20_000);
    expect(scene.job(1)).toMatchObject({ status: "queued", price: 0n });
  });

  it("JOB-7 canceled in the queue costs nothing and never reaches the node", () => {
    const scene = running();
    scene.tell(submission(scene.state, 2), { t: "cancel", job: jobId(scene.state, 2) });
    expect(scene.job(2)).toMatchObject({ status: "canceled", price: 0n });
    expect(scene.frames("run")).toHaveLength(1);
  });

  it("JOB-7 canceled while its node is away is not run when the node is back, and costs nothing", () => {
    const scene = active();
    scene.tell(submission(scene.state, 1), { t: "gone" }, { t: "cancel", job: jobId(scene.state, 1) });
    scene.now += 1_000;
    scene.tell(HELLO);
    expect(scene.job(1)).toMatchObject({ status: "canceled", price: 0n });
    expect(scene.frames("run")).toHaveLength(1);
  });

  it("JOB-6 spends a retry where its agent calls a failure the end of its node, and announced none", () => {
    const scene = active();
    scene.tell(submission(scene.state, 1, { retries: 0 }));
    scene.tell(said({ t: "failed", seq: 1, ...of(scene, 1), ms: 0, gpu, code: "node_draining" }));
    expect(scene.job(1)).toMatchObject({ status: "failed", failure: { code: "executor_failed" } });
  });

  it("JOB-7 canceled when its agent had given it up already is free, and nobody is asked to sign for it", () => {
    // Seed 28301: the notice of its yield was over by the agent's clock and not by the edge's; it refused the receipt.
    const scene = running().after(3_000);
    scene.tell(
      { t: "cancel", job: scene.job(1).id },
      said({ t: "stopped", seq: 2, ...of(scene, 1), ms: 0, gpu }),
    );
    expect(scene.job(1)).toMatchObject({ status: "canceled", price: 0n, receipt: null });
    expect(scene.state.lease.frontier.size).toBe(0);
  });

  it("JOB-7 canceled while running is billed until the agent stopped it", () => {
    const scene = running();
    scene.now += 3_000;
    scene.tell(
      { t: "cancel", job: jobId(scene.state, 1) },
      said({ t: "stopped", seq: 2, ...of(scene, 1), ms: 3_000, gpu }),
    );
    expect(scene.job(1)).toMatchObject({ status: "canceled", billedMs: 3_000, price: 3_000n });
  });

  it("JOB-7, MTR-7 canceled with an agent that does not answer ends after five seconds, free", () => {
    const scene = running().tell({ t: "cancel", job: jobId(running().state, 1) });
    scene.after(CANCEL_MS);
    expect(scene.job(1)).toMatchObject({ status: "canceled", price: 0n, receipt: null });
    scene.tell(said({ t: "result", seq: 2, ...of(scene, 1), ms: 1_000, gpu, outputs: [] }));
    expect(scene.job(1), "a word that comes late changes nothing").toMatchObject({ price: 0n });
  });
});

/** The account has no other lease that would do. */
const NOWHERE: Event = { t: "places", leases: [], awaited: [] };

describe("LSE-10 a node that is about to stop", () => {
  const draining = (deadline_s: number) => said({ t: "drain", seq: 2, deadline_s });
  const timeouts = { queue_s: 600, start_s: 60, execution_s: 600 };

  /** With one job that runs and one that waits for the GPU. */
  function busy() {
    const scene = active();
    scene.tell(submission(scene.state, 1, { timeouts, max_price: 1_000_000n }));
    return scene.tell(said({ t: "started", seq: 1, ...of(scene, 1) }), submission(scene.state, 2));
  }

  it("begins nothing more: what no other lease would have ends free, and no job is taken", () => {
    const scene = busy().tell(draining(60), NOWHERE);
    expect(scene.job(2)).toMatchObject({ status: "aborted", price: 0n, failure: { code: "node_draining" } });
    expect(scene.try(submission(scene.state, 3))).toMatchObject({ code: "lease_closed" });
    expect(scene.job(1).status).toBe("running");
  });

  it("lets what runs end, and the lease with it, by the provider's doing", () => {
    const scene = busy().tell(draining(60), NOWHERE);
    scene.after(59_000).tell(said({ t: "result", seq: 3, ...of(scene, 1), ms: 59_000, gpu, outputs: [] }));
    expect(scene.job(1)).toMatchObject({ status: "succeeded", billedMs: 59_000 });
    scene.tell(signed(scene, 4));
    expect(scene.state.lease).toMatchObject({
      status: "closing",
      end: { reason: "node_drained", fault: "provider" },
    });
    expect(scene.frames("close")).toHaveLength(1);
  });

  it("breaks off at its deadline what still runs, free of charge", () => {
    const scene = busy().tell(draining(60)).after(59_999);
    expect(scene.job(1).status).toBe("running");
    scene.after(1).tell(NOWHERE);
    expect(scene.job(1)).toMatchObject({
      status: "failed",
      price: 0n,
      failure: { code: "node_draining" },
      attempts: [{ outcome: "node_draining" }],
    });
    expect(scene.frames("cancel")).toHaveLength(1);
    expect(scene.state.lease.status).toBe("closing");
  });

  it("may come earlier than it said, never later", () => {
    const scene = busy()
      .tell(draining(60), said({ t: "drain", seq: 3, deadline_s: 600 }))
      .after(60_000)
      .tell(NOWHERE);
    expect(scene.job(1).status).toBe("failed");
    const sooner = busy()
      .tell(draining(60), said({ t: "drain", seq: 3, deadline_s: 10 }))
      .after(10_000)
      .tell(NOWHERE);
    expect(sooner.job(1).status).toBe("failed");
  });

  it("ends a lease that rested and now has work, instead of letting it wait", () => {
    const scene = active().tell({ t: "errand", done: "opened" }).after(300_000);
    scene.tell({ t: "capacity", turn: 1, blocker: null }, { t: "gone" }, submission(scene.state, 1));
    scene.tell({ t: "capacity", turn: 2, blocker: "node_draining" }, NOWHERE);
    expect(scene.job(1)).toMatchObject({ status: "aborted", failure: { code: "node_draining" } });
    expect(scene.state.lease).toMatchObject({ status: "closing", end: { reason: "node_drained" } });
    expect(duties(scene.state, scene.now).map(({ key }) => key)).toContain("node:dial");
  });

  it("is heeded also when it is said before the funding has landed", () => {
    const scene = new Scene().tell(FUND, { t: "wake", connected: true });
    scene.tell(said({ t: "drain", seq: 1, deadline_s: 60 }));
    // Seed 1015542807: it was taken, to be aborted in the same breath.
    expect(scene.try(submission(scene.state, 1))).toMatchObject({ code: "lease_closed" });
    scene.tell(funded(scene.state));
    expect(scene.state.lease.end).toEqual({ reason: "node_drained", fault: "provider" });
  });
});
