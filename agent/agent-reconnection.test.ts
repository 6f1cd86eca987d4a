import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { jobOf } from "./fixtures.ts";
import {
  edge,
  entries,
  executor,
  folder,
  lease,
  leaseOnline,
  online,
  opened,
  runFrame,
  setScene,
  start,
} from "./testing/scene.ts";

setScene();

describe("reconnection", () => {
  test("what was not acknowledged is said again, what was is not, and a replayed frame is dealt with once", async () => {
    await start();
    const { socket } = await opened();
    const run = await runFrame(1);
    socket.say(1, 0, run);
    await socket.next("started");
    await executor.started(1);
    executor.jobs[0]?.end();
    await socket.next("result");
    socket.cut();

    const again = await leaseOnline(1, [{ job: run.job, attempt: run.attempt }]);
    expect(again.hello).toMatchObject({ ack: 1, last_seq: 1, attempts: [{ job: run.job }] });
    again.socket.say(1, 1, run);
    expect(await again.socket.next("result")).toMatchObject({ seq: 2 });
    expect(executor.jobs.length).toBe(1);
  });

  test("a job goes on while the edge is away, unless the edge no longer wants it", async () => {
    await start();
    const { socket } = await opened();
    const [kept, dropped] = [await runFrame(1), await runFrame(2)];
    socket.say(1, 0, kept);
    await socket.next("started");
    socket.say(2, 1, dropped);
    socket.cut();
    const again = await leaseOnline(1, [{ job: kept.job, attempt: kept.attempt }]);
    // Its answer to a later frame tells that it has taken the welcome in.
    again.socket.say(3, 1, { t: "cancel", job: jobOf(lease, 3), attempt: kept.attempt, reason: "test" });
    await again.socket.next("stopped");
    executor.jobs[0]?.end();
    expect(await again.socket.next("result")).toMatchObject({ job: kept.job });
    expect(executor.jobs.length).toBe(1);
  });

  test("an agent that was killed says its unacknowledged result again", async () => {
    const agent = await start();
    const { socket } = await opened();
    const run = await runFrame(1);
    socket.say(1, 0, run);
    await socket.next("started");
    await executor.started(1);
    executor.jobs[0]?.end();
    const result = await socket.next("result");
    await agent.kill();
    await start();
    await online([lease]);
    const again = await leaseOnline(1);
    expect(again.hello).toMatchObject({ last_seq: 1, attempts: [{ job: run.job }] });
    expect(await again.socket.next("result")).toMatchObject({
      seq: 2,
      ms: result.ms,
      outputs: result.outputs,
    });
  });

  test("an edge that forgot an acknowledged result gets it again under a new seq", async () => {
    await start();
    const { socket } = await opened();
    const run = await runFrame(1);
    socket.say(1, 0, run);
    await socket.next("started");
    await executor.started(1);
    executor.jobs[0]?.end();
    const result = await socket.next("result");
    socket.say(0, result.seq, { t: "ack" });
    socket.cut();
    const again = await leaseOnline(1, [{ job: run.job, attempt: run.attempt }]);
    expect(await again.socket.next("result")).toMatchObject({ seq: result.seq + 1, outputs: result.outputs });
  });

  test.each([-600_000, 600_000])(
    "LNK-10 a node whose clock is off by ten minutes (%i ms) is let in, works and uploads, and its owner is told",
    async (off) => {
      edge.aheadMs = -off;
      await start();
      const { socket } = await opened();
      const clocks = () => entries.filter(({ event }) => event === "clock");
      expect(clocks()).toMatchObject([{ level: "warn", text: expect.stringContaining("set it") }]);
      expect(Math.abs(Number(clocks()[0]?.facts?.ahead_s) - off / 1_000)).toBeLessThan(30);
      const run = await runFrame(1);
      socket.say(1, 0, run);
      await socket.next("started");
      await executor.started(1);
      executor.jobs[0]?.end();
      expect(await socket.next("result")).toMatchObject({ job: run.job });
      expect(edge.objects.size, "the function and the output").toBe(2);
      expect(clocks()).toHaveLength(1);
    },
  );

  test("LNK-10 a clock that is off by hours is told, and not let in before it is set", async () => {
    edge.aheadMs = 10 * 3_600_000;
    await start();
    await expect.poll(() => entries.filter(({ event }) => event === "clock")).toHaveLength(1);
    await expect.poll(() => entries.filter(({ event }) => event === "offline").length).toBeGreaterThan(1);
    expect(edge.dials).toEqual([]);
    edge.aheadMs = 0;
    await online();
  });

  test("a lease that the welcome does not list is forgotten", async () => {
    await start();
    const { control } = await opened();
    control.cut();
    await online([]);
    await expect.poll(() => readdir(join(folder, "leases"))).toEqual([]);
  });
});
