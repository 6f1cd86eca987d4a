import { verifyProof } from "@gpux/protocol/merkle";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { BLOCK_MS, BLOCK_RECEIPTS, BLOCK_VALUE } from "./blocks.ts";
import { duties } from "./duties.ts";
import { isFinal, Job } from "./job-state.ts";
import { prune } from "./machine.ts";
import { FUND, funded, HELLO, holdOf, START, said, submission, termsOf } from "./testing/fixtures.ts";
import { active, attested, ended, gpu, of, running, Scene, signed } from "./testing/scene.ts";
import { wakeAt } from "./timers.ts";

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
    { what: "since it began", ago: 25, billed: 125 },
    { what: "never more than since it was sent", ago: 9_000, billed: 1_100 },
  ])("MTR-1 bills what ran before `started` was told: $what", ({ ago, billed }) => {
    const scene = active();
    scene.tell(submission(scene.state, 1));
    scene.now += 1_000;
    scene.tell(said({ t: "started", seq: 1, ...of(scene, 1), ms: ago }));
    scene.now += 100;
    scene.tell(said({ t: "result", seq: 2, ...of(scene, 1), ms: 60_000, gpu, outputs: [] }));
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

  /** Another job that ends after a second. */
  const another = (scene: Scene, n: number, ms = 1_000) => {
    scene.tell(submission(scene.state, n), said({ t: "started", seq: 2 * n - 1, ...of(scene, n) }));
    scene.now += ms;
    scene.tell(said({ t: "result", seq: 2 * n, ...of(scene, n), ms, gpu, outputs: [] }));
  };
  const asked = (scene: Scene) =>
    scene.frames("settle").map((frame) => frame.receipts.map(({ sequence }) => sequence));

  it("MTR-4 numbers receipts without a gap and asks for all of a block in one question", () => {
    const scene = ended();
    another(scene, 2);
    expect(asked(scene), "nobody waits, little is at stake").toEqual([]);
    scene.tell({ t: "settle" }, { t: "settle" });
    expect(asked(scene), "one question at a time").toEqual([[1, 2]]);
    expect(scene.frames("settle")[0]?.usage.cumulative).toBe(3_000n);
    scene.tell({ t: "gone" }, HELLO);
    expect(asked(scene), "again after a new hello").toEqual([
      [1, 2],
      [1, 2],
    ]);
  });

  it("MTR-1 bills each job its GPU's share of the rate, so that a lease never runs up more than its terms allow", () => {
    const scene = active();
    const { lease } = scene.state;
    const text = { ...lease.text, resources: { ...lease.text.resources, gpus: 2 } };
    scene.state = { ...scene.state, lease: { ...lease, text } };
    scene.tell(submission(scene.state, 1), submission(scene.state, 2));
    for (const n of [1, 2]) scene.tell(said({ t: "started", seq: n, ...of(scene, n) }));
    scene.now += 4_000;
    for (const n of [1, 2])
      scene.tell(said({ t: "result", seq: n + 2, ...of(scene, n), ms: 4_000, gpu, outputs: [] }));
    expect([scene.job(1), scene.job(2)]).toMatchObject([
      { billedMs: 4_000, price: 2_000n },
      { billedMs: 4_000, price: 2_000n },
    ]);
    expect(scene.state.lease.spent).toBe(4_000n);
  });

  it("MTR-4 asks when the oldest receipt has waited long enough, and wakes for it", () => {
    const scene = ended();
    expect(wakeAt(scene.state, scene.now)).toBe(scene.now + BLOCK_MS);
    another(scene, 2, BLOCK_MS - 1);
    expect(asked(scene)).toEqual([]);
    scene.after(1);
    expect(asked(scene)).toEqual([[1, 2]]);
  });

  it("MTR-4 asks when so much is at stake, or so many receipts are", () => {
    const dear = ended(Number(BLOCK_VALUE));
    expect(asked(dear)).toEqual([[1]]);
    const many = ended(1);
    for (let n = 2; n < BLOCK_RECEIPTS; n++) another(many, n, 1);
    expect(asked(many)).toEqual([]);
    another(many, BLOCK_RECEIPTS, 1);
    expect(asked(many).map((each) => each.length)).toEqual([BLOCK_RECEIPTS - 8]);
  });

  it("MTR-4 asks at once when the lease winds up, and while the agent is away not at all", () => {
    const scene = ended().tell({ t: "gone" });
    scene.tell({ t: "settle" }).after(BLOCK_MS);
    expect(asked(scene)).toEqual([]);
    expect(wakeAt(scene.state, scene.now)).toBeGreaterThan(scene.now);
    scene.tell(HELLO);
    expect(asked(scene)).toEqual([[1]]);
    expect(asked(ended().tell({ t: "close" }))).toEqual([[1]]);
  });

  it("MTR-4 asks together for what ended while a block was under way, and passes over stale answers", () => {
    const scene = ended().tell({ t: "settle" });
    for (const n of [2, 3]) another(scene, n);
    const first = signed(scene, 7);
    scene.tell(said({ t: "signed", seq: 6, usage: { cumulative: 2_000n, signature: "0x07" } }));
    expect(scene.state.lease.block, "an answer of an agent before 0.2").toMatchObject({ provider: null });
    scene.tell(first, attested(scene), { t: "settle" });
    expect(asked(scene)).toEqual([[1], [2, 3]]);
    expect(scene.frames("settle")[1]?.usage.cumulative).toBe(4_000n);
    if (first.t === "frame") scene.tell({ t: "frame", frame: { ...first.frame, seq: 8 } });
    expect(scene.state.lease.block).toMatchObject({ sequence: 3, provider: null });
  });

  it("MTR-5 completes a block by the meter's signature: each receipt has its proof, and leaves memory", () => {
    const scene = ended();
    for (const n of [2, 3, 4, 5]) another(scene, n, 100);
    scene.tell({ t: "settle" });
    scene.tell(signed(scene, 11));
    expect(prune(scene.state).jobs.size).toBe(5);
    scene.tell(attested(scene));
    const { voucher } = scene.state.lease;
    expect(voucher).toMatchObject({ cumulative: 2_400n, provider: "0x01", meter: "0x04" });
    for (const n of [1, 2, 3, 4, 5]) {
      const { digest, settled } = scene.job(n).receipt ?? {};
      expect(settled).toMatchObject({ size: 5, provider: "0x01", meter: "0x04" });
      expect(
        verifyProof(voucher?.evidence ?? "0x", digest ?? "0x", n - 1, 5, settled?.path ?? []),
        `receipt ${n}`,
      ).toBe(true);
    }
    expect(prune(scene.state).jobs.size).toBe(0);
    expect(duties(scene.state, scene.now).filter((duty) => duty.t === "attest")).toEqual([]);
  });

  it("MTR-5 keeps the voucher that it has until the next is complete", () => {
    const scene = ended().tell({ t: "settle" });
    scene.tell(signed(scene, 3));
    scene.tell(attested(scene));
    another(scene, 2);
    scene.tell({ t: "settle" });
    scene.tell(signed(scene, 5), { t: "gone" });
    expect(scene.state.lease.voucher).toMatchObject({ cumulative: 2_000n, meter: "0x04" });
  });

  it("reads a receipt that was stored when each was signed by itself", () => {
    const job = ended().job(1);
    const { settled: _settled, digest: _digest, ...receipt } = z.encode(Job, job).receipt ?? {};
    const older = (edge: string | null) =>
      Job.parse({ ...z.encode(Job, job), receipt: { ...receipt, provider: "0x02", edge } });
    expect([older("0x03"), older(null)].map(isFinal)).toEqual([true, false]);
  });
});

describe("a start price", () => {
  /** As {@link active}, of a node that asks so much for a start. */
  function starting(start_price: string): Scene {
    const hold = holdOf(termsOf());
    const scene = new Scene({ ...hold, text: { ...hold.text, start_price } });
    return scene.tell(FUND, funded(scene.state), { t: "wake", connected: false }, HELLO);
  }
  function ran(scene: Scene, n: number, ms: number, maxPrice = 100_000n): void {
    const seq = scene.state.lease.seen;
    scene.tell(submission(scene.state, n, { max_price: maxPrice }));
    scene.tell(said({ t: "started", seq: seq + 1, ...of(scene, n) }));
    scene.now += ms;
    scene.tell(said({ t: "result", seq: seq + 2, ...of(scene, n), ms, gpu, outputs: [] }));
  }

  it("MTR-12 is charged once, with the first time that is billed, whatever ended for nothing before", () => {
    const scene = starting("5000");
    ran(scene, 1, 0);
    const seq = scene.state.lease.seen;
    scene.tell(submission(scene.state, 2));
    scene.tell(said({ t: "failed", seq: seq + 1, ...of(scene, 2), ms: 900, gpu, code: "wgsl_invalid" }));
    expect(scene.state.lease.spent).toBe(0n);
    ran(scene, 3, 1_000);
    ran(scene, 4, 1_000);
    const prices = [1, 2, 3, 4].map((n) => scene.job(n).price);
    expect(prices).toEqual([0n, 0n, 6_000n, 1_000n]);
    expect(scene.state.lease).toMatchObject({ spent: 7_000n, billedMs: 2_000 });
  });

  it("MTR-12 is part of what max_price pays for: what it leaves is time, and without it there is none", () => {
    const scene = starting("5000");
    scene.tell(submission(scene.state, 1, { max_price: 5_000n }));
    expect(scene.frames("run")[0]?.execution_ms, "a millisecond, which is free").toBe(1);
    ran(starting("5000"), 1, 1);
    const paid = starting("5000");
    ran(paid, 1, 60_000, 15_000n);
    expect(paid.frames("run")[0]?.execution_ms).toBe(10_000);
    expect(paid.job(1)).toMatchObject({ price: 15_000n, billedMs: 10_000 });
  });

  it("MTR-12 comes back to who refuses to sign for it, and is then charged with the next time", () => {
    const scene = starting("5000");
    ran(scene, 1, 1_000);
    expect(scene.state.lease.spent).toBe(6_000n);
    scene.tell({ t: "settle" });
    scene.tell(said({ t: "refused", seq: scene.state.lease.seen + 1, what: "settle", reason: "no" }));
    expect(scene.state.lease).toMatchObject({ spent: 0n, billedMs: 0 });
  });
});

describe("a dispute", () => {
  it("MTR-6 does not owe what the node refuses to sign, and the lease then closes on what it did sign", () => {
    const scene = ended();
    scene.tell({ t: "settle" });
    scene.tell(signed(scene, 3));
    scene.tell(submission(scene.state, 2), said({ t: "started", seq: 4, ...of(scene, 2) }));
    scene.now += 1_000;
    scene.tell(said({ t: "result", seq: 5, ...of(scene, 2), ms: 1_000, gpu, outputs: [] }));
    expect(scene.state.lease.spent).toBe(3_000n);
    const refused = said({ t: "refused", seq: 6, what: "settle", reason: "the job ran longer" });
    expect(scene.try(refused)).toMatchObject({
      journal: [{ type: "receipt", job: scene.job(2).id, data: { sequence: 2, refused: true } }],
    });
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
