import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { LeaseTerms as LeaseTermsWire } from "@gpux/protocol/eip712";
import { CLOSE } from "@gpux/protocol/frames";
import { emptyFrontier, root } from "@gpux/protocol/merkle";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { leaseOf, termsWith, textWith } from "./fixtures.ts";
import { readStatus, statePaths } from "./state-dir.ts";
import {
  edge,
  executor,
  folder,
  holding,
  lease,
  leaseOnline,
  online,
  opened,
  runFrame,
  setScene,
  soon,
  start,
  terms,
  wire,
} from "./testing/scene.ts";

setScene();

describe("LSE-9 a lease without work", () => {
  const dialled = () => edge.dials.filter((path) => path.includes(lease)).length;
  const oneGpu = { gpus: 1, cpu: 0, memory_gb: 0 };

  function holdOfAnother() {
    const others = termsWith({ ...terms, feeBps: 1 });
    const { id } = leaseOf(others);
    const frame = {
      t: "hold" as const,
      hold: id,
      resources: oneGpu,
      terms: z.encode(LeaseTermsWire, others),
      text: textWith(),
      expires_at: soon(),
    };
    return { id, frame };
  }

  test("hangs up, leaves its GPU to others, and goes on where it was when it is opened again", async () => {
    await start();
    const { control, socket } = await opened();
    const run = await runFrame(1);
    socket.say(1, 0, run);
    await socket.next("started");
    executor.jobs[0]?.end();
    const result = await socket.next("result");
    socket.say(0, result.seq, { t: "ack" });

    control.say(3, 2, { t: "rest", lease });
    expect(await socket.closed).toBe(1000);
    const other = holdOfAnother();
    control.say(4, 2, other.frame);
    expect(await control.next("held")).toMatchObject({ hold: other.id });
    control.say(5, 3, { t: "release", hold: other.id });

    control.say(6, 3, { t: "open", lease, terms: wire() });
    const { hello, socket: again } = await leaseOnline(result.seq);
    expect(hello).toMatchObject({ last_seq: 1, attempts: [{ job: run.job }] });
    again.say(2, result.seq, await runFrame(2));
    expect(await again.next("started")).toMatchObject({ seq: result.seq + 1 });
    control.say(7, 3, { ...other.frame });
    expect(await control.next("declined")).toMatchObject({ reason: expect.stringContaining("no_capacity") });
  });

  test("stays without a socket over a restart, dials for its close alone, and is forgotten when it is over", async () => {
    const first = await start();
    const { control, socket } = await opened();
    control.say(3, 1, { t: "rest", lease });
    await socket.closed;
    await first.kill();
    await start();
    const { control: next, hello } = await online([lease]);
    expect(hello.leases).toEqual([lease]);
    expect(dialled()).toBe(1);

    next.say(4, 1, { t: "dial", lease });
    const { socket: last } = await leaseOnline();
    next.say(5, 1, holdOfAnother().frame);
    expect(await next.next("held")).toMatchObject({ hold: holdOfAnother().id });
    const validBefore = Math.floor(Date.now() / 1_000) + 600;
    const nothing = { cumulative: "0", evidence: root(emptyFrontier()) };
    last.say(1, 0, { t: "close", ...nothing, valid_before: validBefore });
    expect(await last.next("close_signed")).toMatchObject({ cumulative: 0n });
    last.close(CLOSE.gone);
    await expect.poll(() => readdir(join(folder, "leases"))).toEqual([]);
  });

  test("is forgotten without a dial when the edge releases it", async () => {
    await start();
    const { control, socket } = await opened();
    control.say(3, 1, { t: "rest", lease });
    await socket.closed;
    control.say(4, 1, { t: "release", hold: lease });
    await expect.poll(() => readdir(join(folder, "leases"))).toEqual([]);
    expect(dialled()).toBe(1);
  });

  test("does not rest over a job that came since it was told to", async () => {
    await start();
    const { control, socket } = await opened();
    socket.say(1, 0, await runFrame(1));
    await socket.next("started");
    control.say(3, 1, { t: "rest", lease });
    control.say(4, 1, { t: "open", lease, terms: wire() });
    control.say(5, 1, holdOfAnother().frame);
    await control.next("declined");
    executor.jobs[0]?.end();
    await socket.next("result");
    expect(dialled()).toBe(1);
  });

  test("lets a job whose end is stuck in a dead connection go when others are given its GPU", async () => {
    await start();
    const { control, socket } = await opened();
    socket.say(1, 0, await runFrame(1));
    await socket.next("started");
    // The edge ended it five seconds after a cancel that never arrived.
    control.say(3, 1, { t: "rest", lease });
    const another = holdOfAnother();
    control.say(4, 1, another.frame);
    expect(await control.next("held")).toMatchObject({ hold: another.id });
    expect(dialled()).toBe(1);
    control.say(5, 1, { t: "open", lease: another.id, terms: another.frame.terms });
    expect(await socket.closed).toBe(1000);
  });
});

describe("LSE-11 a lease that gives way", () => {
  test("is told on its socket, with the executor; what runs is stopped when the notice has passed, and not said", async () => {
    await start();
    const { control, socket } = await opened();
    socket.say(1, 0, await runFrame(1));
    const started = await socket.next("started");
    control.say(3, 1, { t: "yield", lease, notice_s: 0 });
    expect(await socket.next("yield")).toMatchObject({ notice_s: 0, seq: started.seq + 1 });
    expect(executor.notices).toEqual([0]);
    await expect
      .poll(async () => (await readStatus(statePaths(folder)))?.leases)
      .toEqual([{ id: lease, executing: 0 }]);
    control.say(4, 1, { t: "rest", lease });
    expect(await socket.closed).toBe(1000);
  });

  test("the owner's claim is said at once and after every hello, and its GPUs are held for nobody", async () => {
    const agent = await start();
    const { control, hello } = await online();
    expect(hello.claimed).toBe(0);
    agent.claim(64);
    expect(await control.next("claim")).toMatchObject({ gpus: 1 });
    control.say(1, 1, {
      t: "hold",
      hold: lease,
      resources: { gpus: 1, cpu: 0, memory_gb: 0 },
      terms: wire(),
      text: textWith(),
      expires_at: soon(),
    });
    expect(await control.next("declined")).toMatchObject({ reason: expect.stringContaining("no_capacity") });
    control.cut();
    expect((await online()).hello.claimed).toBe(1);
  });

  test("rests all the same with a job that the edge sent before it heard that the notice is over", async () => {
    await start();
    const { control, socket } = await opened();
    control.say(3, 1, { t: "yield", lease, notice_s: 0 });
    const { seq } = await socket.next("yield");
    socket.say(0, seq, { t: "ack" });
    socket.say(1, seq, await runFrame(1));
    control.say(4, 1, { t: "rest", lease });
    expect(await socket.closed).toBe(1000);
  });

  test("the owner's claim takes nothing of what is held: it is opened and served all the same", async () => {
    const agent = await start();
    const control = await holding();
    agent.claim(1);
    await control.next("claim");
    control.say(2, 2, { t: "open", lease, terms: wire() });
    const { socket } = await leaseOnline();
    socket.say(1, 0, await runFrame(1));
    await socket.next("started");
  });
});
