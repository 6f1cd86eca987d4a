import { describe, expect, it } from "vitest";
import { duties } from "./duties.ts";
import { prune } from "./machine.ts";
import { HELLO, START, said, submission } from "./testing/fixtures.ts";
import { active, ended, gpu, of, running } from "./testing/scene.ts";
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
    const asked = () => scene.frames("settle").map((frame) => frame.receipts.map(({ sequence }) => sequence));
    expect(asked(), "one question at a time").toEqual([[1]]);
    scene.tell({ t: "gone" }, HELLO);
    expect(asked()).toEqual([[1], [1, 2]]);
    expect(scene.frames("settle")[1]?.usage.cumulative).toBe(3_000n);
  });

  it("MTR-4 asks together for what ended while the provider was asked", () => {
    const scene = ended();
    for (const n of [2, 3]) {
      scene.tell(submission(scene.state, n), said({ t: "started", seq: 2 * n - 1, ...of(scene, n) }));
      scene.now += 1_000;
      scene.tell(said({ t: "result", seq: 2 * n, ...of(scene, n), ms: 1_000, gpu, outputs: [] }));
    }
    const usage = { cumulative: 2_000n, signature: "0x01" } as const;
    const signed = (seq: number, sequence: number) =>
      said({ t: "signed", seq, usage, receipts: [{ sequence, signature: "0x02" }] });
    scene.tell(signed(7, 2));
    expect(scene.frames("settle"), "nothing of what was asked is signed").toHaveLength(1);
    scene.tell(signed(8, 1));
    const [, second] = scene.frames("settle");
    expect(second?.receipts.map(({ sequence }) => sequence)).toEqual([2, 3]);
    expect(second?.usage.cumulative).toBe(4_000n);
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
