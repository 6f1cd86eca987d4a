import { describe, expect, test } from "vitest";
import { executionFailure } from "./executors/executor.ts";
import { edge, executor, lease, leaseOnline, opened, runFrame, setScene, start } from "./testing/scene.ts";

setScene();

const turn = (n: number, priority = 0) => ({ priority, n });

/** A lease of one GPU on a machine that has room for two jobs, with so many jobs sent in one frame. */
async function line(...turns: { priority: number; n: number }[]) {
  await start({ concurrency: 2 });
  const scene = await opened();
  const runs = await Promise.all(turns.map((each) => runFrame(each.n, { turn: each })));
  const [one] = runs;
  if (runs.length === 1 && one !== undefined) scene.socket.say(1, 0, one);
  else scene.socket.say(1, 0, { t: "runs", runs: runs.map(({ t: _, ...run }) => run) });
  return { ...scene, job: (n: number) => runs[turns.findIndex((each) => each.n === n)]?.job };
}

describe("JOB-12 jobs that come before their turn", () => {
  test("are worked off one after another, each begun once the end of the one before is told", async () => {
    const { socket, job } = await line(turn(1), turn(2), turn(3));
    for (const n of [1, 2, 3]) {
      expect((await socket.next("started")).job).toBe(job(n));
      expect(executor.jobs).toHaveLength(n);
      executor.jobs[n - 1]?.end();
      expect((await socket.next("result")).job).toBe(job(n));
    }
  });

  test("are begun by priority and then by age, whenever they came", async () => {
    const { socket, job } = await line(turn(1), turn(2), turn(3));
    await socket.next("started");
    const urgent = await runFrame(4, { turn: turn(4, 5) });
    socket.say(2, 1, urgent);
    socket.say(3, 1, {
      t: "cancel",
      job: urgent.job,
      attempt: { epoch: 1, n: 9 },
      reason: "to hear it is there",
    });
    expect(await socket.next("stopped")).toMatchObject({ attempt: { n: 9 } });
    executor.jobs[0]?.end();
    await socket.next("result");
    expect((await socket.next("started")).job).toBe(urgent.job);
    executor.jobs[1]?.end();
    await socket.next("result");
    expect((await socket.next("started")).job).toBe(job(2));
  });

  test("JOB-7 are dropped at once when they are canceled, and those behind go on", async () => {
    const { socket, job } = await line(turn(1), turn(2), turn(3));
    await socket.next("started");
    const canceled = job(2);
    if (canceled === undefined) throw new Error("there is a second job");
    socket.say(2, 1, { t: "cancel", job: canceled, attempt: { epoch: 1, n: 1 }, reason: "no more" });
    expect(await socket.next("stopped")).toMatchObject({ job: canceled, ms: 0 });
    executor.jobs[0]?.end();
    await socket.next("result");
    expect((await socket.next("started")).job).toBe(job(3));
  });

  test("go on behind one that fails", async () => {
    const { socket, job } = await line(turn(1), turn(2));
    await socket.next("started");
    executor.jobs[0]?.end(executionFailure("device_lost", "gone", 1));
    expect(await socket.next("failed")).toMatchObject({ job: job(1) });
    expect((await socket.next("started")).job).toBe(job(2));
  });

  test("LSE-11 are not begun any more in a notice, and nothing is said of them", async () => {
    const { control, socket, job } = await line(turn(1), turn(2));
    await socket.next("started");
    control.say(3, 1, { t: "yield", lease, notice_s: 30 });
    await socket.next("yield");
    executor.jobs[0]?.end();
    expect((await socket.next("result")).job).toBe(job(1));
    // The edge calls it back, and it is unknown.
    const dropped = job(2);
    if (dropped === undefined) throw new Error("there is a second job");
    socket.say(2, 3, { t: "cancel", job: dropped, attempt: { epoch: 1, n: 1 }, reason: "called back" });
    expect(await socket.next("stopped")).toMatchObject({ job: dropped, ms: 0 });
    expect(executor.jobs).toHaveLength(1);
  });

  test("LNK-3 are named after a cut, and worked off meanwhile", async () => {
    const { socket, job } = await line(turn(1), turn(2), turn(3));
    const { seq } = await socket.next("started");
    socket.cut();
    executor.jobs[0]?.end();
    await executor.started(2);
    const attempt = { epoch: 1, n: 1 };
    const all = [1, 2, 3].flatMap((n) => job(n) ?? []).map((each) => ({ job: each, attempt }));
    const { hello, socket: again } = await leaseOnline(seq, all);
    expect(hello).toMatchObject({ prefetches: true });
    expect(hello.attempts.map((each) => each.job).sort()).toEqual(all.map((each) => each.job).sort());
    expect((await again.next("result")).job).toBe(job(1));
    expect((await again.next("started")).job).toBe(job(2));
    expect(edge.dials.length).toBeGreaterThan(2);
  });
});
