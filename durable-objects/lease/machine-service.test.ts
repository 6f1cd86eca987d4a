import { NO_JOB } from "@gpux/protocol/eip712";
import { describe, expect, it } from "vitest";
import { duties } from "./duties.ts";
import { LAST_COUNT_MS, spentAt } from "./service.ts";
import { FUND, FUNDED, funded, HELLO, START, said, submission } from "./testing/fixtures.ts";
import { active, attested, counted, dedicated, gpu, of, type Scene, signed } from "./testing/scene.ts";
import { LOST_MS, wakeAt } from "./timers.ts";

const MINUTE = 60_000;

/** The agent's next sequence number. */
const next = (scene: Scene) => scene.state.lease.seen + 1;

/** The time since the last count, as the agent says it, billed and signed for. */
function tick(scene: Scene, agentMs: number): void {
  scene.tell(counted(scene, agentMs));
  if (scene.state.lease.block !== null) scene.tell(signed(scene, next(scene)), attested(scene));
}

function runningJob(scene: Scene): void {
  scene.tell(submission(scene.state, 1, { max_price: 0n }));
  scene.tell(said({ t: "started", seq: next(scene), ...of(scene, 1) }));
}

const drop = { t: "gone" } as const;

describe("time of a dedicated lease", () => {
  it("MTR-9 counts from the agent's word that it serves, and not before", () => {
    const scene = dedicated();
    expect(scene.frames("tick")).toMatchObject([{ n: 1, runs: true, seq: 0 }]);
    const waiting = active();
    waiting.after(10 * MINUTE);
    expect(waiting.frames("tick")).toEqual([]);
    expect(scene.state.lease).toMatchObject({ billedMs: 0, spent: 0n });
  });

  it("MTR-10 asks every tick, and wakes for it", () => {
    const scene = dedicated();
    expect(wakeAt(scene.state, scene.now)).toBe(START + MINUTE);
    scene.after(MINUTE - 1);
    expect(scene.frames("tick")).toHaveLength(1);
    scene.after(1);
    expect(scene.frames("tick")).toMatchObject([{ n: 1 }, { n: 2, runs: true }]);
    tick(scene, MINUTE);
    expect(wakeAt(scene.state, scene.now)).toBe(START + 2 * MINUTE);
  });

  it.each([
    { what: "the agent's clock", agentMs: 59_000, billedMs: 59_000, spent: 59_000n },
    { what: "the edge's clock", agentMs: 400_000, billedMs: 60_250, spent: 60_250n },
  ])("MTR-9 bills the least of the clocks: $what", ({ agentMs, billedMs, spent }) => {
    const scene = dedicated();
    scene.after(MINUTE);
    scene.now += 250;
    tick(scene, agentMs);
    expect(scene.state.lease).toMatchObject({ billedMs, spent });
  });

  it("MTR-9 never bills above what the terms allow by now, and makes up for it when they do", () => {
    const scene = dedicated();
    // The block that opened it bears a time two minutes ahead of ours; a minute is due at once.
    scene.state = { ...scene.state, lease: { ...scene.state.lease, openedAt: START + 2 * MINUTE } };
    scene.after(MINUTE);
    scene.now += 30_000;
    tick(scene, 90_000);
    expect(scene.state.lease.spent).toBe(60_000n);
    scene.after(MINUTE + 30_000);
    tick(scene, 180_000);
    expect(scene.state.lease.spent).toBe(120_000n);
  });

  it("MTR-10 makes a receipt of no job, in one numbered row with those of jobs, and puts it to the provider at once", () => {
    const scene = dedicated();
    runningJob(scene);
    scene.now += 2_000;
    scene.tell(said({ t: "result", seq: next(scene), ...of(scene, 1), ms: 2_000, gpu, outputs: [] }));
    scene.after(MINUTE - 2_000);
    scene.tell(signed(scene, next(scene)), attested(scene));
    scene.tell(counted(scene, MINUTE));
    expect(scene.frames("settle").flatMap(({ receipts }) => receipts)).toMatchObject([
      { sequence: 1, price: 0n, cumulative: 0n, billedMs: 2_000n },
      {
        sequence: 2,
        job: NO_JOB,
        attempt: 2,
        inputHash: scene.state.lease.terms.quote,
        outputHashes: [],
        billedMs: 60_000n,
        price: 60_000n,
        cumulative: 60_000n,
        endedAt: (START + MINUTE) / 1_000,
      },
    ]);
    scene.tell(signed(scene, next(scene)), attested(scene));
    expect(scene.state.lease.voucher).toMatchObject({ cumulative: 60_000n, sequence: 2 });
    expect(scene.state.lease.ticks[0]?.receipt.settled).toMatchObject({ size: 2, provider: "0x01" });
  });

  it("MTR-12 charges the start with the first tick, and ends by itself when both are used up", () => {
    const scene = dedicated({ start_price: "30000" });
    scene.now += MINUTE;
    tick(scene, MINUTE);
    expect(scene.state.lease).toMatchObject({ spent: 90_000n, billedMs: MINUTE });
    scene.after(MINUTE);
    tick(scene, 2 * MINUTE);
    expect(scene.state.lease.spent).toBe(150_000n);
    // 10 USDC: a thousand base units a second, but for the start.
    expect(spentAt(scene.state.lease)).toBe(START + 9_970_000);
  });

  it("MTR-9 bills no time while the node is away", () => {
    const scene = dedicated();
    scene.after(20_000).tell(drop);
    scene.after(MINUTE).tell(HELLO);
    expect(scene.frames("tick").at(-1)).toMatchObject({ n: 2, runs: true });
    tick(scene, 20_000);
    scene.after(MINUTE);
    tick(scene, 80_000);
    expect(scene.state.lease).toMatchObject({ billedMs: 80_000, spent: 80_000n });
  });

  it("MTR-9 believes the agent for one tick beyond what was due, when a crash took the socket unseen", () => {
    for (const [agentMs, billedMs] of [
      [30_000, 30_000],
      [3_000_000, 120_000],
    ] as const) {
      const scene = dedicated();
      scene.now += 10 * MINUTE;
      scene.tell({ t: "wake", connected: false }, HELLO);
      tick(scene, agentMs);
      expect(scene.state.lease.billedMs).toBe(billedMs);
    }
  });

  it("MTR-9 goes on through a hibernation, with the socket there", () => {
    const scene = dedicated();
    scene.after(MINUTE).tell({ t: "wake", connected: true });
    tick(scene, MINUTE);
    expect(scene.state.lease.billedMs).toBe(MINUTE);
  });

  it("MTR-10 asks again a tick later when the agent does not answer, and takes no answer to an older question", () => {
    const scene = dedicated();
    scene.after(MINUTE);
    const late = counted(scene, MINUTE);
    scene.after(MINUTE).tell(late);
    expect(scene.state.lease.billedMs).toBe(0);
    tick(scene, 2 * MINUTE);
    expect(scene.state.lease.billedMs).toBe(2 * MINUTE);
  });

  it("MTR-9 an agent that counts less than before takes nothing back", () => {
    const scene = dedicated();
    scene.after(MINUTE);
    tick(scene, MINUTE);
    scene.after(MINUTE);
    tick(scene, 0);
    expect(scene.state.lease).toMatchObject({ billedMs: MINUTE, spent: 60_000n });
  });
});

describe("jobs of a dedicated lease", () => {
  it("MTR-9 cost nothing, need no allowance, and their receipts say how long they ran", () => {
    const scene = dedicated();
    scene.tell(submission(scene.state, 1, { max_price: FUNDED * 2n, allowance: undefined }));
    scene.tell(said({ t: "started", seq: next(scene), ...of(scene, 1) }));
    expect(scene.frames("run")).toMatchObject([{ committed: 0n, execution_ms: 120_000 }]);
    scene.now += 5_000;
    scene.tell(said({ t: "result", seq: next(scene), ...of(scene, 1), ms: 5_000, gpu, outputs: [] }));
    expect(scene.job(1)).toMatchObject({ status: "succeeded", price: 0n, billedMs: 5_000 });
    expect(scene.job(1).receipt?.receipt).toMatchObject({ price: 0n, billedMs: 5_000n });
    expect(scene.state.lease).toMatchObject({ billedMs: 0, spent: 0n });
  });
});

describe("jobs side by side", () => {
  it.each([
    { concurrency: undefined, sent: 1 },
    { concurrency: 3, sent: 3 },
  ])("LSE-16 are as many as the text says ($concurrency), else one a GPU: $sent", ({ concurrency, sent }) => {
    const scene = dedicated(concurrency === undefined ? {} : { concurrency });
    for (const n of [1, 2, 3, 4]) scene.tell(submission(scene.state, n));
    expect(scene.frames("run")).toHaveLength(sent);
  });
});

describe("the end of a dedicated lease", () => {
  /** Everything that a close needs, answered; the usage that it was signed over. */
  function closedAt(scene: Scene): bigint | undefined {
    const [close] = scene.frames("close");
    return close?.cumulative;
  }

  it("MTR-10 settles the last part of a tick before the close", () => {
    const scene = dedicated();
    scene.after(MINUTE);
    tick(scene, MINUTE);
    scene.after(7_123).tell({ t: "close" });
    expect(scene.frames("tick").at(-1)).toMatchObject({ runs: false });
    expect(scene.state.lease.status).toBe("draining");
    scene.after(900);
    tick(scene, MINUTE + 8_000);
    expect(scene.state.lease).toMatchObject({ status: "closing", spent: 67_123n });
    expect(closedAt(scene)).toBe(67_123n);
  });

  it("MTR-9 goes on counting after a consumer's close until what was begun has ended", () => {
    const scene = dedicated();
    runningJob(scene);
    scene.after(10_000).tell({ t: "close" });
    expect(scene.state.lease.service.since).not.toBeNull();
    scene.now += 25_000;
    scene.tell(said({ t: "result", seq: next(scene), ...of(scene, 1), ms: 35_000, gpu, outputs: [] }));
    tick(scene, 35_100);
    while (scene.state.lease.block !== null) scene.tell(signed(scene, next(scene)), attested(scene));
    expect(closedAt(scene)).toBe(35_000n);
  });

  it.each([
    { by: "drains", frame: { t: "drain", deadline_s: 60 }, tier: "firm", reason: "node_drained" },
    {
      by: "takes a yieldable one back",
      frame: { t: "yield", notice_s: 30 },
      tier: "yieldable",
      reason: "yielded",
    },
  ] as const)("LSE-13 when its node $by, it ends and pays for what was delivered until then", (each) => {
    const { frame, tier, reason } = each;
    const scene = dedicated({ tier });
    runningJob(scene);
    scene.after(10_000).tell(said({ ...frame, seq: next(scene) }));
    expect(scene.state.lease).toMatchObject({ status: "draining", end: { reason, fault: "provider" } });
    tick(scene, 10_001);
    scene.after(60_000);
    expect(scene.job(1)).toMatchObject({ status: "failed", price: 0n, failure: { code: "node_draining" } });
    expect(scene.state.lease).toMatchObject({ status: "closing", spent: 10_000n });
  });

  it("LSE-9 never rests", () => {
    const scene = dedicated({ keep_warm_s: 0, tier: "yieldable" });
    scene.tell({ t: "errand", done: "opened" });
    for (let minute = 1; minute < 10; minute++) {
      scene.after(MINUTE);
      tick(scene, minute * MINUTE);
    }
    expect(scene.state.lease).toMatchObject({ status: "active", capacity: { state: "held", turn: 0 } });
    expect(duties(scene.state, scene.now).filter(({ t }) => t === "node_rest")).toEqual([]);
  });

  it("MTR-10 does not wait for ever for an agent that does not say how long it served", () => {
    const scene = dedicated();
    scene.after(MINUTE);
    tick(scene, MINUTE);
    scene.after(30_000).tell({ t: "close" });
    expect(wakeAt(scene.state, scene.now)).toBe(scene.now + LAST_COUNT_MS);
    scene.after(LAST_COUNT_MS);
    expect(scene.state.lease).toMatchObject({ status: "closing", spent: 60_000n });
  });

  it("LSE-6 an agent that stays away is paid what was signed, and no more", () => {
    const scene = dedicated();
    scene.after(MINUTE);
    tick(scene, MINUTE);
    scene.after(30_000).tell(drop, { t: "close" });
    expect(scene.state.lease.status).toBe("draining");
    scene.after(LOST_MS);
    expect(scene.state.lease).toMatchObject({ status: "lost", spent: 60_000n });
    expect(scene.state.lease.voucher?.cumulative).toBe(60_000n);
  });

  it("MTR-6 what the node refuses to sign is taken back, and nothing more is counted", () => {
    const scene = dedicated();
    scene.after(MINUTE);
    tick(scene, MINUTE);
    scene.after(MINUTE).tell(counted(scene, 2 * MINUTE));
    scene.tell(said({ t: "refused", seq: next(scene), what: "settle", reason: "no" }));
    expect(scene.state.lease).toMatchObject({
      status: "closing",
      spent: 60_000n,
      billedMs: MINUTE,
      ticks: [{}],
    });
    scene.after(MINUTE);
    expect(scene.frames("close").at(-1)?.cumulative).toBe(60_000n);
  });
});

describe("the money of a dedicated lease", () => {
  /** 90 s worth. */
  function small(): Scene {
    const scene = dedicated();
    scene.state = { ...scene.state, lease: { ...scene.state.lease, funded: 90_000n } };
    return scene.after(0);
  }

  it("MTR-11 says once that a fifth is left, before the next tick would", () => {
    const scene = small();
    scene.after(MINUTE);
    tick(scene, MINUTE);
    expect(wakeAt(scene.state, scene.now)).toBe(START + 72_001);
    scene.now = START + 72_001;
    const step = scene.try({ t: "tick" });
    expect(step.ok && step.events).toEqual([
      { type: "low_balance", data: { left: "17999", funded: "90000" } },
    ]);
    scene.after(1);
    expect(scene.state.lease.service.low).toBe(17_999n);
  });

  it("MTR-11 ends the lease when its money is used up, and bills all of it", () => {
    const scene = small();
    runningJob(scene);
    scene.after(MINUTE);
    tick(scene, MINUTE);
    scene.after(30_000);
    expect(scene.state.lease).toMatchObject({
      status: "draining",
      end: { reason: "funds_spent", fault: "tenant" },
    });
    expect(scene.frames("cancel")).toHaveLength(1);
    expect(scene.job(1)).toMatchObject({ status: "failed", failure: { code: "lease_ended" }, price: 0n });
    expect(scene.frames("tick").at(-1)).toMatchObject({ runs: false });
    scene.after(2_000);
    tick(scene, 92_000);
    expect(scene.state.lease).toMatchObject({ status: "closing", spent: 90_000n, billedMs: 90_000 });
  });

  it("MTR-11 never bills more than was paid in, however late the alarm rings", () => {
    const scene = small();
    scene.after(10 * MINUTE);
    tick(scene, 10 * MINUTE);
    expect(scene.state.lease).toMatchObject({ status: "closing", spent: 90_000n });
  });

  it("LSE-8 goes on when more money has landed, and says again when that runs low", () => {
    const scene = small();
    scene.after(80_000);
    expect(scene.state.lease.service.low).not.toBeNull();
    const more = { ...FUND.funding, salt: `0x${"09".repeat(32)}` } as const;
    scene.tell({ t: "top_up", funding: more });
    const landed = funded(scene.state);
    scene.tell({ ...landed, funding: more.salt });
    expect(scene.state.lease).toMatchObject({ funded: FUNDED, service: { low: null } });
    scene.after(20_000);
    tick(scene, 100_000);
    expect(scene.state.lease).toMatchObject({ status: "active", spent: 100_000n });
  });
});
