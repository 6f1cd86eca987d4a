import { KEEP_WARM_S } from "@gpux/protocol/lease";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { duties } from "./duties.ts";
import { step } from "./machine.ts";
import { Lease } from "./state.ts";
import { HELLO, jobId, said, submission } from "./testing/fixtures.ts";
import { active, attested, gpu, of, type Scene, signed } from "./testing/scene.ts";
import { LOST_MS, wakeAt } from "./timers.ts";
import { jobView, leaseView } from "./view.ts";

const WARM_MS = KEEP_WARM_S * 1_000;

/** The node's part: what the lease asks of it now is answered. */
function nodeAnswers(scene: Scene, blocker: "gpus" | "node_offline" | null = null): Scene {
  for (const duty of duties(scene.state, scene.now))
    if (duty.t === "node_rest" || duty.t === "node_rouse")
      scene.tell({ t: "capacity", turn: duty.turn, blocker });
  return scene;
}

const asked = (scene: Scene) =>
  duties(scene.state, scene.now).flatMap(({ key }) => (key.startsWith("node:") ? [key] : []));

/** Funded and opened at its node. */
const opened = () => active().tell({ t: "errand", done: "opened" });

/** Its GPUs are the node's again, and its agent has hung up. */
function resting(): Scene {
  return nodeAnswers(opened().after(WARM_MS)).tell({ t: "gone" });
}

describe("a serverless lease's capacity", () => {
  it("LSE-9 stays held for keep_warm_s after the last job, then the node is told that others may have it", () => {
    const scene = opened();
    expect(wakeAt(scene.state, scene.now)).toBe(scene.now + WARM_MS);
    scene.after(WARM_MS - 1);
    expect(asked(scene)).toEqual([]);
    scene.after(1);
    expect(asked(scene)).toEqual(["node:rest:1"]);
    expect(leaseView(scene.state)).toMatchObject({ status: "active", warm: false });
    nodeAnswers(scene);
    expect(asked(scene)).toEqual([]);
  });

  it("LSE-9 is kept while a job or the signature under its receipt is outstanding", () => {
    const scene = opened().tell(submission(opened().state, 1));
    scene.after(20_000).tell(said({ t: "started", seq: 1, ...of(scene, 1) }));
    scene.after(30_000).tell(said({ t: "result", seq: 2, ...of(scene, 1), ms: 30_000, gpu, outputs: [] }));
    scene.after(WARM_MS);
    expect(asked(scene)).toEqual([]);
    scene.tell(signed(scene, 3));
    scene.tell(attested(scene));
    scene.after(WARM_MS - 1);
    expect(asked(scene)).toEqual([]);
    scene.after(1);
    expect(asked(scene)).toEqual(["node:rest:1"]);
  });

  it("LSE-9 is not given back before the node has opened the lease, however short it is kept", () => {
    const scene = active();
    const text = { ...scene.state.lease.text, keep_warm_s: 0 };
    scene.state = { ...scene.state, lease: { ...scene.state.lease, text } };
    expect(asked(scene.after(1_000))).toEqual(["node:open"]);
    expect(asked(scene.tell({ t: "errand", done: "opened" }))).toEqual(["node:rest:1"]);
  });

  it("LSE-9 does not lose a resting lease over its agent's absence, and asks nothing of the node by itself", () => {
    const scene = resting().after(LOST_MS * 2);
    expect(scene.state.lease).toMatchObject({ status: "active", awayAt: expect.any(Number) });
    expect(asked(scene)).toEqual([]);
  });

  it("LSE-9 asks the node again with the next job, which waits and says for what", () => {
    const scene = resting();
    scene.tell(submission(scene.state, 1));
    expect(asked(scene)).toEqual(["node:rouse:2"]);
    const waits = () => jobView(scene.state, scene.job(1), scene.now).wait;
    expect(waits()).toMatchObject({ possible: true, blockers: { warming: 1 } });
    nodeAnswers(scene, "gpus");
    expect(waits()).toMatchObject({ blockers: { gpus: 1 } });
    expect(asked(scene)).toEqual(["node:rouse:2"]);
    nodeAnswers(scene);
    expect(scene.state.lease.capacity).toMatchObject({ state: "held", blocker: null });
    expect(waits()).toMatchObject({ blockers: { node_away: 1 } });
    scene.tell(HELLO);
    expect(scene.job(1).status).toBe("starting");
  });

  it("LSE-9 counts the agent's absence from when the node gave its GPUs again", () => {
    const scene = resting().after(LOST_MS);
    const timeouts = { queue_s: 1_800, start_s: 60, execution_s: 120 };
    nodeAnswers(scene.tell(submission(scene.state, 1, { timeouts })));
    scene.after(LOST_MS - 1);
    expect(scene.state.lease.status).toBe("active");
    scene.after(1);
    expect(scene.state.lease).toMatchObject({ status: "lost", end: { reason: "node_lost" } });
  });

  it.each(["gpus", "node_offline"] as const)(
    "JOB-4, LSE-9 ends a job that waited for %s in queue_s, says so, and stops asking",
    (blocker) => {
      const scene = resting();
      scene.tell(submission(scene.state, 1));
      nodeAnswers(scene, blocker);
      expect(jobView(scene.state, scene.job(1), scene.now).wait).toMatchObject({
        blockers: { [blocker]: 1 },
      });
      scene.after(600_000);
      const failure = { code: "start_timeout", detail: `it waited for its GPUs (${blocker})` };
      expect(scene.job(1)).toMatchObject({ status: "aborted", price: 0n, failure });
      // The node may have given them just now: it is told that they are not wanted.
      expect(asked(scene)).toEqual(["node:rest:3"]);
    },
  );

  it("LSE-9 heeds no answer to a question before the last one", () => {
    const scene = opened().after(WARM_MS);
    scene.tell(submission(scene.state, 1), { t: "capacity", turn: 1, blocker: null });
    expect(scene.state.lease.capacity).toMatchObject({ state: "asking", turn: 2 });
    expect(scene.job(1).status).toBe("queued");
  });

  it("LSE-9 sends nothing to an agent that has not hung up yet before the node gave the GPUs again", () => {
    const scene = nodeAnswers(opened().after(WARM_MS));
    scene.tell(submission(scene.state, 1));
    expect(scene.frames("run")).toEqual([]);
    nodeAnswers(scene);
    expect(scene.frames("run")).toMatchObject([{ job: jobId(scene.state, 1) }]);
  });

  it("LSE-5 has the agent of a resting lease dialled for its close alone, and gives it up when it does not come", () => {
    const scene = resting().after(LOST_MS).tell({ t: "close" });
    expect(scene.state.lease.status).toBe("closing");
    expect(asked(scene)).toEqual(["node:dial"]);
    const silent = step(scene.state, { t: "tick" }, scene.now + LOST_MS);
    expect(silent.ok && silent.next.lease.status).toBe("lost");
    scene.tell(HELLO);
    expect(asked(scene)).toEqual([]);
    expect(scene.frames("close").length).toBeGreaterThan(0);
  });

  it("LSE-5 has it dialled also where a socket seems to be there: a dead one may not be known to be", () => {
    const scene = nodeAnswers(opened().after(WARM_MS)).tell({ t: "close" });
    expect(scene.state.lease).toMatchObject({ status: "closing", awayAt: null });
    expect(asked(scene)).toEqual(["node:dial"]);
    expect(asked(scene.tell(HELLO))).toEqual([]);
  });

  it("LSE-5 has it dialled again when it came and does not sign: nobody tells of a connection that died since", () => {
    // Seed 2620: the agent signed into a dead connection, and the refund came a day after expiry.
    const scene = resting().tell({ t: "close" }, HELLO);
    expect(asked(scene)).toEqual([]);
    expect(wakeAt(scene.state, scene.now)).toBeLessThanOrEqual(scene.now + 75_000);
    expect(asked(scene.after(75_000))).toEqual(["node:dial"]);
    expect(asked(scene.tell({ t: "gone" }, HELLO))).toEqual([]);
  });

  it("reads a lease that was stored before it could rest", () => {
    const { capacity: _capacity, ...older } = z.encode(Lease, active().state.lease);
    const { capacity } = Lease.parse(older);
    expect(capacity).toMatchObject({ state: "held", turn: 0 });
  });
});
