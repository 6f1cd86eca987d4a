import type { ToLease } from "@gpux/protocol/frames";
import { describe, expect, it } from "vitest";
import { duties } from "./duties.ts";
import { CANCEL_MS } from "./jobs.ts";
import { type Event, prune, type Step, step } from "./machine.ts";
import { quotedLease } from "./quoted.ts";
import type { Job, State } from "./state.ts";
import {
  ALLOWANCE,
  done,
  FUND,
  FUNDED,
  funded,
  HELLO,
  holdOf,
  jobId,
  PLACE,
  START,
  said,
  submission,
  termsOf,
} from "./testing/fixtures.ts";
import { GRACE_MS, isForgotten, LOST_MS, wakeAt } from "./timers.ts";

/** A lease and its clock; every event must be taken unless the test asks for the refusal. */
class Scene {
  state: State = quotedLease(holdOf(termsOf()), PLACE, START);
  now = START;
  sent: ToLease[] = [];

  try(event: Event): Step {
    const result = step(this.state, event, this.now);
    if (result.ok) {
      this.state = result.next;
      this.sent.push(...result.frames);
    }
    return result;
  }

  tell(...events: Event[]): this {
    for (const event of events) {
      const result = this.try(event);
      if (!result.ok) throw new Error(`${event.t} was refused: ${result.code}`);
    }
    return this;
  }

  after(ms: number): this {
    this.now += ms;
    return this.tell({ t: "tick" });
  }

  job(n: number): Job {
    const job = this.state.jobs.get(jobId(this.state, n));
    if (job === undefined) throw new Error(`job ${n} is not live`);
    return job;
  }

  frames<T extends ToLease["t"]>(t: T): Extract<ToLease, { t: T }>[] {
    return this.sent.filter((frame): frame is Extract<ToLease, { t: T }> => frame.t === t);
  }
}

function active(): Scene {
  const scene = new Scene();
  return scene.tell(FUND, funded(scene.state), { t: "wake", connected: false }, HELLO);
}

/** Attempt `n` of job `job`, in the scene's only epoch. */
const of = (scene: Scene, job: number, n = 1) => ({ job: jobId(scene.state, job), attempt: { epoch: 1, n } });
const gpu = "SWIFTSHADER";

function running(job = 1): Scene {
  const scene = active();
  return scene.tell(submission(scene.state, job), said({ t: "started", seq: 1, ...of(scene, job) }));
}

function ended(ms = 2_000): Scene {
  const scene = running();
  scene.now += ms;
  return scene.tell(said({ t: "result", seq: 2, ...of(scene, 1), ms, gpu, outputs: [] }));
}

describe("a lease", () => {
  it("LSE-1 lapses when nobody funds it before the quote ends, and is then forgotten", () => {
    const scene = new Scene().after(29_999);
    expect(scene.state.lease.status).toBe("quoted");
    scene.after(1);
    expect(scene.state.lease).toMatchObject({ status: "expired", end: { reason: "quote_lapsed" } });
    expect(duties(scene.state, scene.now).map((duty) => duty.key)).toEqual(["node:release"]);
    expect(isForgotten(scene.state, scene.now)).toBe(false);
    scene.tell({ t: "errand", done: "released" });
    expect(isForgotten(scene.state, scene.now)).toBe(true);
  });

  it("LSE-2 takes one funding: the same again changes nothing, another is refused, a late one too", () => {
    const scene = new Scene().tell(FUND);
    const before = scene.state;
    scene.tell(FUND);
    expect(scene.state.lease).toEqual(before.lease);
    if (FUND.t !== "fund") throw new Error("FUND is a funding");
    expect(
      scene.try({ t: "fund", funding: { ...FUND.funding, salt: `0x${"02".repeat(32)}` } }),
    ).toMatchObject({ code: "lease_closed" });
    const late = new Scene();
    late.now += 30_000;
    expect(late.try(FUND)).toMatchObject({ ok: false, code: "quote_expired" });
  });

  it("LSE-3 is active with what the chain says, not with what was asked for", () => {
    const scene = active();
    expect(scene.state.lease).toMatchObject({ status: "active", funded: FUNDED, openedAt: START });
    expect(duties(scene.state, scene.now).map((duty) => duty.key)).toEqual(["meter:open", "node:open"]);
  });

  it("LSE-4 ends with its jobs aborted and free when the funding cannot land", () => {
    const scene = new Scene().tell(FUND);
    scene.tell(submission(scene.state, 1), {
      t: "relay_refused",
      kind: "fund",
      code: "insufficient_balance",
      detail: "the payer holds 0",
    });
    expect(scene.state.lease).toMatchObject({
      status: "expired",
      spent: 0n,
      end: { reason: "insufficient_funds" },
    });
    expect(scene.job(1)).toMatchObject({ status: "aborted", price: 0n, failure: { code: "funding_failed" } });
  });

  it("LSE-4 stays in funding when only our own gas money is short", () => {
    const scene = new Scene().tell(FUND, {
      t: "relay_refused",
      kind: "fund",
      code: "relayer_low_balance",
      detail: "",
    });
    expect(scene.state.lease.status).toBe("funding");
  });

  it("LSE-5 lets begun jobs end before it closes on the final usage, co-signed and paid out", () => {
    const scene = running().tell({ t: "close" });
    expect(scene.state.lease.status).toBe("draining");
    expect(scene.try(submission(scene.state, 2))).toMatchObject({ code: "lease_closed" });
    scene.now += 2_000;
    scene.tell(said({ t: "result", seq: 2, ...of(scene, 1), ms: 2_000, gpu, outputs: [] }));
    expect(scene.state.lease.status).toBe("draining");
    const usage = { cumulative: 2_000n, signature: "0x01" } as const;
    scene.tell(said({ t: "signed", seq: 3, usage, receipts: [{ sequence: 1, signature: "0x02" }] }));
    expect(scene.state.lease.status).toBe("closing");
    const [close] = scene.frames("close");
    expect(close).toMatchObject({ cumulative: 2_000n, evidence: scene.job(1).receipt?.evidence });
    scene.tell(
      said({
        t: "close_signed",
        seq: 4,
        cumulative: 2_000n,
        valid_before: close?.valid_before ?? 0,
        signature: "0x03",
      }),
    );
    const [attest] = duties(scene.state, scene.now).filter((duty) => duty.t === "attest");
    expect(attest?.request).toMatchObject({
      usage: { cumulative: 2_000n },
      close: { validBefore: close?.valid_before },
    });
    scene.tell({
      t: "attested",
      sequence: 1,
      usage: "0x04",
      receipts: [{ sequence: 1, signature: "0x05" }],
      close: "0x06",
    });
    const relay = duties(scene.state, scene.now).find((duty) => duty.key === "relay:close");
    expect(relay).toMatchObject({
      intent: { cumulative: 2_000n, signatures: { provider: "0x03", meter: "0x06" }, allowance: ALLOWANCE },
    });
    const { hash, terms } = scene.state.lease;
    const result = { kind: "close", leaseId: hash, paid: "2000", refunded: "9998000", fee: "100" } as const;
    scene.tell({ t: "relayed", kind: "close", answer: done("close", result) });
    expect(scene.state.lease).toMatchObject({ status: "closed", settled: 2_000n });
    expect(scene.state.lease.errands.withdraw).toEqual([terms.provider, terms.feeRecipient, terms.payer]);
  });

  it("LSE-5 winds up by itself before its terms run out", () => {
    const scene = active();
    scene.now = scene.state.lease.terms.expiry * 1_000 - 120_000;
    scene.tell({ t: "tick" });
    expect(scene.state.lease).toMatchObject({ status: "closing", end: { reason: "terms_expired" } });
  });

  it("LNK-7 gives the agent the meter's signature at once, and again after every hello", () => {
    const scene = ended();
    const usage = { cumulative: 2_000n, signature: "0x01" } as const;
    const receipts = [{ sequence: 1, signature: "0x02" as const }];
    scene.tell(said({ t: "signed", seq: 3, usage, receipts }));
    expect(scene.frames("voucher"), "nothing before the meter signed").toEqual([]);
    scene.tell({ t: "attested", sequence: 1, usage: "0x04", receipts, close: null });
    const voucher = {
      seq: 0,
      cumulative: 2_000n,
      evidence: scene.job(1).receipt?.evidence,
      meter_signature: "0x04",
    };
    expect(scene.frames("voucher")).toMatchObject([voucher]);
    scene.tell({ t: "gone" }, said({ t: "hello", seq: 0, attempts: [], last_seq: 0 }));
    expect(scene.frames("voucher")).toMatchObject([voucher, voucher]);
  });

  it("LSE-6 is lost after a quarter of an hour without its node: the voucher is settled, the rest reclaimed later", () => {
    const scene = ended();
    const usage = { cumulative: 2_000n, signature: "0x01" } as const;
    scene.tell(
      said({ t: "signed", seq: 3, usage, receipts: [{ sequence: 1, signature: "0x02" }] }),
      {
        t: "attested",
        sequence: 1,
        usage: "0x04",
        receipts: [{ sequence: 1, signature: "0x05" }],
        close: null,
      },
      { t: "gone" },
    );
    scene.after(LOST_MS);
    expect(scene.state.lease).toMatchObject({
      status: "lost",
      end: { reason: "node_lost", fault: "provider" },
    });
    expect(duties(scene.state, scene.now).map((duty) => duty.key)).toContain("relay:settle");
    scene.now = scene.state.lease.terms.expiry * 1_000 + 86_400_000;
    expect(duties(scene.state, scene.now).map((duty) => duty.key)).toContain("relay:reclaim");
  });

  it("LSE-6 ends every job of a lost lease, also one that was never sent, and wakes to reclaim the money", () => {
    const scene = active().tell({ t: "gone" });
    const timeouts = { queue_s: 86_400, start_s: 60, execution_s: 60 };
    scene.tell(submission(scene.state, 1, { timeouts, retries: 0 })).after(LOST_MS);
    expect(scene.state.lease.status).toBe("lost");
    expect(scene.job(1)).toMatchObject({ status: "aborted", price: 0n, failure: { code: "node_lost" } });
    const reclaimAt = (scene.state.lease.terms.expiry + 86_400) * 1_000;
    expect(wakeAt(scene.state, scene.now)).toBe(reclaimAt);
    scene.after(reclaimAt - scene.now);
    expect(duties(scene.state, scene.now).map((duty) => duty.key)).toContain("relay:reclaim");
    expect(wakeAt(scene.state, scene.now)).toBeGreaterThan(scene.now);
  });

  it("LSE-3 waits for a funding that lands late without an alarm that rings for nothing", () => {
    const scene = new Scene().tell(FUND).after(4_000_000);
    expect(scene.state.lease.status).toBe("funding");
    expect(wakeAt(scene.state, scene.now)).toBe(Number.POSITIVE_INFINITY);
  });

  it("LSE-3 finds an agent that dialled before the funding landed", () => {
    const scene = new Scene().tell({ t: "wake", connected: false }, FUND, HELLO);
    scene.tell(submission(scene.state, 1), funded(scene.state));
    expect(scene.job(1).status).toBe("starting");
  });
});

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

  it("JOB-4 is aborted and free when it was not started in time, and the agent told", () => {
    const scene = active();
    scene.tell(submission(scene.state, 1)).after(60_000);
    expect(scene.job(1)).toMatchObject({ status: "aborted", price: 0n, failure: { code: "start_timeout" } });
    expect(scene.frames("cancel")).toHaveLength(1);
  });

  it("JOB-4 is ended by the edge when the agent does not end it, and billed no more than its time-out", () => {
    const scene = active();
    const timeouts = { queue_s: 600, start_s: 60, execution_s: 10 };
    scene
      .tell(submission(scene.state, 1, { timeouts }), said({ t: "started", seq: 1, ...of(scene, 1) }))
      .after(20_000);
    expect(scene.job(1)).toMatchObject({ status: "timed_out", billedMs: 10_000, price: 10_000n });
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

  it("JOB-7 canceled while running is billed until the agent stopped it", () => {
    const scene = running();
    scene.now += 3_000;
    scene.tell(
      { t: "cancel", job: jobId(scene.state, 1) },
      said({ t: "stopped", seq: 2, ...of(scene, 1), ms: 3_000, gpu }),
    );
    expect(scene.job(1)).toMatchObject({ status: "canceled", billedMs: 3_000, price: 3_000n });
  });

  it("JOB-7 canceled with an agent that does not answer stops costing after five seconds", () => {
    const scene = running().tell({ t: "cancel", job: jobId(running().state, 1) });
    scene.after(CANCEL_MS);
    expect(scene.job(1)).toMatchObject({ status: "canceled", billedMs: CANCEL_MS });
  });
});

describe("the meter", () => {
  it.each([
    { what: "the agent's clock", agentMs: 1_500, edgeMs: 2_000, billed: 1_500 },
    { what: "the edge's clock", agentMs: 9_000, edgeMs: 2_000, billed: 2_000 },
    { what: "what max_price pays for", agentMs: 101_000, edgeMs: 102_000, billed: 100_000 },
  ])("MTR-1 bills the least of the clocks: $what", ({ agentMs, edgeMs, billed }) => {
    const scene = running();
    scene.now += edgeMs;
    scene.tell(said({ t: "result", seq: 2, ...of(scene, 1), ms: agentMs, gpu, outputs: [] }));
    expect(scene.job(1).billedMs).toBe(billed);
  });

  it.each([
    { what: "all of it, when it ended meanwhile", ms: 4_000, after: 0, billed: 4_000 },
    { what: "all of it, when it ended after that", ms: 4_000, after: 1_000, billed: 4_000 },
    { what: "never more than since it was sent", ms: 40_000, after: 1_000, billed: 31_000 },
  ])("MTR-1 bills work done while an outage held `started` back: $what", ({ ms, after, billed }) => {
    const scene = active();
    scene.tell(submission(scene.state, 1));
    scene.now += 30_000;
    scene.tell({ t: "wake", connected: false });
    scene.tell(said({ t: "hello", seq: 0, last_seq: 0, attempts: [of(scene, 1)] }));
    scene.tell(said({ t: "started", seq: 1, ...of(scene, 1) }));
    scene.now += after;
    scene.tell(said({ t: "result", seq: 2, ...of(scene, 1), ms, gpu, outputs: [] }));
    expect(scene.job(1).billedMs).toBe(billed);
  });

  it.each([
    { code: "wgsl_invalid", status: "failed", price: 0n },
    { code: "execution_timeout", status: "timed_out", price: 1_000n },
    { code: "limit_exceeded", status: "failed", price: 1_000n },
    { code: "device_lost", status: "starting", price: 0n },
    { code: "something_else", status: "starting", price: 0n },
  ])("MTR-2 charges a failure by its fault: $code ends $status at $price", ({ code, status, price }) => {
    const scene = running();
    scene.now += 1_000;
    scene.tell(said({ t: "failed", seq: 2, ...of(scene, 1), ms: 1_000, gpu, code }));
    expect(scene.job(1)).toMatchObject({ status, price });
  });

  it("MTR-1 never charges more than max_price, also where that pays for no millisecond", () => {
    const scene = active();
    scene.tell(
      submission(scene.state, 1, { max_price: 0n }),
      said({ t: "started", seq: 1, ...of(scene, 1) }),
    );
    expect(scene.frames("run")[0]?.execution_ms).toBe(1);
    scene.now += 1_000;
    scene.tell(said({ t: "result", seq: 2, ...of(scene, 1), ms: 1_000, gpu, outputs: [] }));
    expect(scene.job(1)).toMatchObject({ status: "succeeded", billedMs: 0, price: 0n });
  });

  it("MTR-3 bills nothing before running, however long the agent says it ran", () => {
    const scene = active();
    scene.tell(submission(scene.state, 1));
    scene.now += 30_000;
    scene.tell(said({ t: "started", seq: 1, ...of(scene, 1) }));
    scene.now += 250;
    scene.tell(said({ t: "result", seq: 2, ...of(scene, 1), ms: 9_000, gpu, outputs: [] }));
    expect(scene.job(1)).toMatchObject({ billedMs: 250, price: 250n });
  });

  it("MTR-4 numbers receipts without a gap and asks the provider for exactly those it has not signed", () => {
    const scene = ended();
    scene.tell(submission(scene.state, 2), said({ t: "started", seq: 3, ...of(scene, 2) }));
    scene.now += 1_000;
    scene.tell(said({ t: "result", seq: 4, ...of(scene, 2), ms: 1_000, gpu, outputs: [] }));
    const asked = scene.frames("settle");
    expect(asked.map((frame) => frame.receipts.map((receipt) => receipt.sequence))).toEqual([[1], [2]]);
    expect(asked[1]?.usage.cumulative).toBe(3_000n);
    scene.tell({ t: "gone" }, HELLO);
    expect(scene.frames("settle")[2]?.receipts.map((receipt) => receipt.sequence)).toEqual([1, 2]);
  });

  it("MTR-4 takes the usage's signature for the last receipt that it signs, and for none that costs as much", () => {
    const scene = ended(0);
    scene.tell(submission(scene.state, 2), said({ t: "started", seq: 3, ...of(scene, 2) }));
    scene.now += 1_000;
    scene.tell(said({ t: "result", seq: 4, ...of(scene, 2), ms: 1_000, gpu, outputs: [] }));
    const receipts = [1, 2].map((sequence) => ({ sequence, signature: "0x02" as const }));
    scene.tell(said({ t: "signed", seq: 5, usage: { cumulative: 0n, signature: "0x01" }, receipts }));
    expect(scene.state.lease.voucher).toBeNull();
    expect([1, 2].map((n) => scene.job(n).receipt?.provider)).toEqual(["0x02", "0x02"]);
  });

  it("MTR-5 completes a receipt by the meter's signature, and the job then leaves memory", () => {
    const scene = ended();
    const usage = { cumulative: 2_000n, signature: "0x01" } as const;
    scene.tell(said({ t: "signed", seq: 3, usage, receipts: [{ sequence: 1, signature: "0x02" }] }));
    expect(prune(scene.state).jobs.size).toBe(1);
    scene.tell({
      t: "attested",
      sequence: 1,
      usage: "0x04",
      receipts: [{ sequence: 1, signature: "0x05" }],
      close: null,
    });
    expect(scene.state.lease.voucher).toMatchObject({ cumulative: 2_000n, provider: "0x01", meter: "0x04" });
    expect(prune(scene.state).jobs.size).toBe(0);
    expect(duties(scene.state, scene.now).filter((duty) => duty.t === "attest")).toEqual([]);
  });
});

describe("a dispute", () => {
  it("MTR-6 does not owe what the node refuses to sign, and the lease then closes on what it did sign", () => {
    const scene = ended();
    const usage = { cumulative: 2_000n, signature: "0x01" } as const;
    scene.tell(said({ t: "signed", seq: 3, usage, receipts: [{ sequence: 1, signature: "0x02" }] }));
    scene.tell(submission(scene.state, 2), said({ t: "started", seq: 4, ...of(scene, 2) }));
    scene.now += 1_000;
    scene.tell(said({ t: "result", seq: 5, ...of(scene, 2), ms: 1_000, gpu, outputs: [] }));
    expect(scene.state.lease.spent).toBe(3_000n);
    scene.tell(said({ t: "refused", seq: 6, what: "settle", reason: "the job ran longer" }));
    expect(scene.job(2)).toMatchObject({ status: "succeeded", price: 0n, receipt: null });
    expect(scene.state.lease).toMatchObject({
      status: "closing",
      spent: 2_000n,
      end: { reason: "node_refused" },
    });
    const evidence = scene.job(1).receipt?.evidence;
    expect(scene.frames("close").at(-1)).toMatchObject({ cumulative: 2_000n, evidence });
  });
});

describe("the link", () => {
  it("LNK-1 raises the epoch in each life, and a socket that did not survive counts as gone", () => {
    const scene = running();
    scene.now += 10;
    scene.tell({ t: "wake", connected: false });
    expect(scene.state.lease).toMatchObject({ epoch: 2, awayAt: scene.now });
  });

  it("LNK-2 deals with a frame once, however often it is sent", () => {
    const scene = ended();
    const before = scene.state;
    scene.tell(said({ t: "result", seq: 2, ...of(scene, 1), ms: 9_999, gpu, outputs: [] }));
    expect(scene.state).toEqual(before);
  });

  it("LNK-3 keeps an attempt that survived the cut, and sends again what the agent never got", () => {
    const scene = running();
    scene.tell({ t: "gone" }, said({ t: "hello", seq: 0, last_seq: 0, attempts: [of(scene, 1)] }));
    expect(scene.job(1).status).toBe("running");
    expect(scene.frames("welcome").at(-1)?.attempts).toEqual([of(scene, 1)]);
    const unheard = active();
    unheard.tell(submission(unheard.state, 1), { t: "gone" }, HELLO);
    expect(unheard.frames("run").map((frame) => frame.attempt)).toEqual([
      { epoch: 1, n: 1 },
      { epoch: 1, n: 1 },
    ]);
  });

  it("sends nothing while the agent is away and still knows when to wake", () => {
    const scene = active().tell({ t: "gone" });
    const before = scene.sent.length;
    scene.tell(submission(scene.state, 1));
    expect(scene.sent).toHaveLength(before);
    expect(wakeAt(scene.state, scene.now)).toBeLessThanOrEqual(START + 600_000);
  });
});
