import { sha256Hex } from "@gpux/protocol/canonical";
import { describe, expect, test } from "vitest";
import { pauseAfter } from "./leases/notice.ts";
import { readStatus, statePaths } from "./state-dir.ts";
import {
  edge,
  executor,
  folder,
  GPU,
  lease,
  leaseOnline,
  opened,
  runFrame,
  setScene,
  start,
} from "./testing/scene.ts";

setScene();

const STATE = new TextEncoder().encode("what was done");
const paused = { ok: false, code: "paused", state: STATE, wallMs: 1 } as const;

/** An agent whose lease has a job on the executor, which is to keep what it does, and that gives way in so long. */
async function giving(noticeS: number, checkpoint: { sha256: string; bytes: number } | null = null) {
  await start();
  const { control, socket } = await opened();
  const run = await runFrame(1, { checkpoint });
  socket.say(1, 0, run);
  const started = await socket.next("started");
  control.say(3, 1, { t: "yield", lease, notice_s: noticeS });
  await socket.next("yield");
  const [job] = executor.jobs;
  if (job === undefined) throw new Error("the executor has the job");
  return { control, socket, run, job, seq: started.seq };
}

async function isPaused(signal: AbortSignal | undefined): Promise<void> {
  await expect.poll(() => signal?.aborted).toBe(true);
}

describe("CKP-1 a job that keeps what it has done", () => {
  test("is paused before its notice is over, and its end is told once its state is in the store", async () => {
    const { socket, run, job } = await giving(2);
    expect(job.pause?.aborted).toBe(false);
    await isPaused(job.pause);
    job.end(paused);
    const checkpoint = { sha256: await sha256Hex(STATE), bytes: STATE.length };
    const told = await socket.next("yielded");
    expect(told).toMatchObject({ job: run.job, attempt: run.attempt, gpu: GPU, checkpoint });
    expect(told.ms).toBeGreaterThan(500);
    expect(new Uint8Array(edge.objects.get(checkpoint.sha256) ?? [])).toEqual(STATE);
  });

  test("may end within its notice as if there were none", async () => {
    const { socket, job } = await giving(2);
    await isPaused(job.pause);
    job.end();
    expect(await socket.next("result")).toMatchObject({ outputs: [{ name: "image" }] });
  });

  test("that does not come to an end in time is stopped, and nothing is said of it", async () => {
    const { socket, control, job } = await giving(1);
    await isPaused(job.pause);
    await expect
      .poll(async () => (await readStatus(statePaths(folder)))?.leases)
      .toEqual([{ id: lease, executing: 0 }]);
    control.say(4, 1, { t: "rest", lease });
    expect(await socket.closed).toBe(1000);
  });

  test("goes on from what another attempt kept; where that is not to be had, from the beginning", async () => {
    const sha256 = await edge.putObject(STATE);
    const { job, socket } = await giving(30, { sha256, bytes: STATE.length });
    expect(new Uint8Array(job.job.resume ?? [])).toEqual(STATE);
    job.end();
    await socket.next("result");
    socket.say(2, 1, await runFrame(2, { checkpoint: { sha256: "0".repeat(64), bytes: 8 } }));
    await executor.started(2);
    expect(executor.jobs[1]?.job.resume).toBeUndefined();
  });

  test("is not paused when nobody wants that, so that an edge of before never hears of it", async () => {
    await start();
    const { socket } = await opened();
    socket.say(1, 0, await runFrame(1));
    await executor.started(1);
    expect(executor.jobs[0]?.pause).toBeUndefined();
  });

  test("tells that end again until the edge has it", async () => {
    const { socket, run, job } = await giving(2);
    await isPaused(job.pause);
    job.end(paused);
    const told = await socket.next("yielded");
    socket.cut();
    const { hello, socket: again } = await leaseOnline(told.seq - 1);
    expect(hello).toMatchObject({ checkpoints: true, attempts: [{ job: run.job, attempt: run.attempt }] });
    expect(await again.next("yielded")).toMatchObject({ seq: told.seq, checkpoint: told.checkpoint });
  });

  test("has ten seconds of the notice for its upload, of a short one half", () => {
    expect([30_000, 15_000, 4_000, 0].map(pauseAfter)).toEqual([20_000, 7_500, 2_000, 0]);
  });
});
