import { describe, expect, it } from "vitest";
import { duties } from "./duties.ts";
import { HELLO, said, submission } from "./testing/fixtures.ts";
import { active, attested, gpu, of, type Scene, signed } from "./testing/scene.ts";
import { wakeAt } from "./timers.ts";
import { jobView } from "./view.ts";

const timeouts = { queue_s: 600, start_s: 60, execution_s: 600 };
const DEAR = { timeouts, max_price: 1_000_000n, retries: 0 };
const yields = (seq: number, notice_s = 30) => said({ t: "yield", seq, notice_s });
const asked = (scene: Scene) =>
  duties(scene.state, scene.now).flatMap(({ key }) => (key.startsWith("node:") ? [key] : []));

/** Opened at its node, with a job that runs and one that waits. */
function busy(tier: "firm" | "yieldable" = "yieldable"): Scene {
  const scene = active().tell({ t: "errand", done: "opened" });
  const { lease } = scene.state;
  scene.state = { ...scene.state, lease: { ...lease, text: { ...lease.text, tier } } };
  scene.tell(submission(scene.state, 1, DEAR), said({ t: "started", seq: 1, ...of(scene, 1) }));
  return scene.tell(submission(scene.state, 2, DEAR));
}

describe("LSE-11 a yieldable lease", () => {
  it("begins nothing more from the notice on, and lets what runs end until it has passed", () => {
    const scene = busy().tell(yields(2));
    expect(wakeAt(scene.state, scene.now)).toBe(scene.now + 30_000);
    scene.after(29_999).tell(said({ t: "result", seq: 3, ...of(scene, 1), ms: 29_999, gpu, outputs: [] }));
    expect(scene.job(1)).toMatchObject({ status: "succeeded", billedMs: 29_999 });
    expect(scene.job(2).status).toBe("queued");
    expect(jobView(scene.state, scene.job(2), scene.now).wait).toMatchObject({ blockers: { yielding: 1 } });
    // The receipt is to be signed before the agent hangs up.
    expect(asked(scene)).toEqual([]);
    scene.tell(signed(scene, 4));
    scene.tell(attested(scene));
    expect(scene.state.lease.capacity).toMatchObject({ state: "resting", turn: 1 });
  });

  it("gives way when the notice has passed: its job waits again, uncharged, and no retry is spent", () => {
    const scene = busy().tell(yields(2)).after(30_000);
    expect(scene.frames("cancel")).toHaveLength(1);
    expect(scene.job(1)).toMatchObject({
      status: "queued",
      price: 0n,
      attempts: [{ outcome: "yielded", endedAt: scene.now }],
    });
    expect(scene.state.lease).toMatchObject({ status: "active", spent: 0n, capacity: { state: "resting" } });
    // The node hears of the rest first: else it would find the lease still there, and the owner would get nothing.
    expect(asked(scene.after(0))).toEqual(["node:rest:1"]);
    scene.tell({ t: "capacity", turn: 1, blocker: null });
    expect(asked(scene.after(0))).toEqual(["node:rouse:2"]);
    scene.tell({ t: "capacity", turn: 2, blocker: null }, { t: "gone" }, HELLO);
    expect(scene.job(1)).toMatchObject({ status: "starting", attempts: [{}, { outcome: null }] });
    scene.tell(said({ t: "started", seq: 3, ...of(scene, 1, 2) }), { t: "gone" }, HELLO);
    expect(scene.job(1)).toMatchObject({ status: "failed", failure: { code: "node_lost" } });
  });

  it("spends no retry either when its agent was cut off and comes back without what it had stopped", () => {
    const scene = busy().tell(yields(2), { t: "gone" }).after(29_999).tell(HELLO);
    expect(scene.job(1)).toMatchObject({ status: "queued", price: 0n, attempts: [{ outcome: "yielded" }] });
  });

  it("gives way at once where nothing runs", () => {
    const scene = active().tell({ t: "errand", done: "opened" });
    const { lease } = scene.state;
    scene.state = { ...scene.state, lease: { ...lease, text: { ...lease.text, tier: "yieldable" } } };
    expect(asked(scene.tell(yields(1)))).toEqual(["node:rest:1"]);
  });

  it("ends a job whose cancel was under way as canceled, free", () => {
    const scene = busy();
    scene.tell({ t: "cancel", job: scene.job(1).id }, yields(2, 0));
    expect(scene.job(1)).toMatchObject({ status: "canceled", price: 0n });
  });

  it("takes no word from an older attempt that the node stopped late", () => {
    const scene = busy().tell(yields(2, 0));
    scene.tell(said({ t: "result", seq: 3, ...of(scene, 1), ms: 1, gpu, outputs: [] }));
    expect(scene.job(1)).toMatchObject({ status: "queued", price: 0n });
  });

  it("is no firm lease: that one keeps its GPUs whatever the agent says", () => {
    const scene = busy("firm").tell(yields(2, 0)).after(60_000);
    expect(scene.job(1).status).toBe("running");
  });
});
