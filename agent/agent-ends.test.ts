import { readFile } from "node:fs/promises";
import { Receipt as ReceiptWire } from "@gpux/protocol/eip712";
import { CLOSE } from "@gpux/protocol/frames";
import type { LeaseId } from "@gpux/protocol/ids";
import { emptyFrontier, root } from "@gpux/protocol/merkle";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { AgentStartError, EXIT } from "./exit.ts";
import { NODE } from "./fixtures.ts";
import { readStatus, statePaths } from "./state-dir.ts";
import {
  billOf,
  edge,
  entries,
  executor,
  folder,
  GPU,
  holding,
  lease,
  leaseOnline,
  online,
  opened,
  runFrame,
  setScene,
  start,
  wire,
} from "./testing/scene.ts";

setScene();

describe("ends", () => {
  test.each([
    { code: CLOSE.replaced, exit: EXIT.replaced },
    { code: CLOSE.forbidden, exit: EXIT.forbidden },
    { code: CLOSE.badFrame, exit: EXIT.badFrame },
  ])("close $code ends the agent for good with exit code $exit", async ({ code, exit }) => {
    const agent = await start();
    const { control } = await online();
    control.close(code);
    expect(await agent.ended).toMatchObject({ exitCode: exit });
    expect(edge.dials).toEqual(["/v1/agent/connect"]);
    expect(executor.closed).toBe(1);
  });

  test("an edge that says what the agent cannot read is closed with 4400", async () => {
    const agent = await start();
    const { control } = await online();
    control.say(1, 0, { t: "release", hold: "lse_short" as LeaseId });
    expect(await control.closed).toBe(CLOSE.badFrame);
    expect(await agent.ended).toMatchObject({ exitCode: EXIT.badFrame });
  });

  test("an upgrade that is refused with 403 ends it too", async () => {
    edge.refuseWith = 403;
    const agent = await start();
    expect(await agent.ended).toMatchObject({ exitCode: EXIT.forbidden });
  });

  test("a drain says so, lets the running job end, flushes it, and leaves", async () => {
    const agent = await start();
    const { control, socket } = await opened();
    const run = await runFrame(1);
    socket.say(1, 0, run);
    await socket.next("started");
    const stopping = agent.stop();
    const drain = await control.next("drain");
    control.say(0, drain.seq, { t: "ack" });
    expect(await socket.next("drain")).toMatchObject({ deadline_s: drain.deadline_s });
    socket.say(2, 2, await runFrame(2));
    executor.jobs[0]?.end();
    const result = await socket.next("result");
    expect(result.job).toBe(run.job);
    const { receipt, evidence } = await billOf(run.job, result.ms);
    const usage = { cumulative: receipt.cumulative.toString(), evidence };
    socket.say(3, result.seq, { t: "settle", usage, receipts: [z.encode(ReceiptWire, receipt)] });
    await socket.next("signed");
    const validBefore = Math.floor(Date.now() / 1_000) + 600;
    socket.say(4, result.seq, { t: "close", ...usage, valid_before: validBefore });
    const closed = await socket.next("close_signed");
    socket.say(0, closed.seq, { t: "ack" });
    await stopping;
    expect(await agent.ended).toMatchObject({ exitCode: EXIT.stopped });
    expect(executor.jobs.length).toBe(1);
    expect(await socket.closed).toBe(1000);
    expect(await readStatus(statePaths(folder))).toMatchObject({ state: "stopped", address: NODE });
  });

  test("LSE-10 a lease whose opening crosses the drain is written down, served, and told of it", async () => {
    const agent = await start();
    const control = await holding();
    const leaving = agent.drain(20);
    const { seq } = await control.next("drain");
    control.say(2, seq - 1, { t: "open", lease, terms: wire() });
    const { socket } = await leaseOnline();
    expect(await socket.next("drain")).toMatchObject({ deadline_s: expect.any(Number) });
    control.say(0, seq, { t: "ack" });
    await leaving;
    const restarted = await start();
    expect((await online([lease])).hello.leases).toEqual([lease]);
    await restarted.stop();
  });

  test("LSE-10 a drain breaks off at its deadline what still runs, and leaves", async () => {
    const agent = await start();
    const { control, socket } = await opened();
    socket.say(1, 0, await runFrame(1));
    await socket.next("started");
    const leaving = agent.drain(0);
    control.say(0, (await control.next("drain")).seq, { t: "ack" });
    const { seq, deadline_s } = await socket.next("drain");
    expect(deadline_s).toBe(0);
    const nothing = { cumulative: "0", evidence: root(emptyFrontier()) };
    const validBefore = Math.floor(Date.now() / 1_000) + 600;
    socket.say(2, seq, { t: "close", ...nothing, valid_before: validBefore });
    socket.say(0, (await socket.next("close_signed")).seq, { t: "ack" });
    await leaving;
    expect(await agent.ended).toMatchObject({ exitCode: EXIT.stopped });
  });

  test("two agents do not share a folder", async () => {
    await start();
    const second = await start().catch((error: unknown) => error);
    expect(second).toBeInstanceOf(AgentStartError);
    expect(second).toMatchObject({ exitCode: EXIT.replaced });
  });

  test("its status is a file that says where it stands", async () => {
    await start();
    await opened();
    await expect
      .poll(async () => JSON.parse(await readFile(statePaths(folder).status, "utf8")))
      .toMatchObject({ state: "online", pid: process.pid, gpu: GPU, leases: [{ id: lease, executing: 0 }] });
  });

  test("CHL-6 what the edge found of its GPU is in its log and its status; a challenge that it cannot answer now is declined", async () => {
    await start();
    const { control } = await online();
    const challenge = "11111111-1111-4111-8111-111111111111";
    control.say(0, 0, {
      t: "challenge",
      challenge,
      function: { version: 1 },
      inputs: {},
      execution_ms: 1_000,
    });
    expect(await control.next("unproven")).toMatchObject({ challenge });
    const verdict = { result: "slow", gops: 0.5, at: 1_700_000_000_000 } as const;
    control.say(0, 0, { t: "verdict", verdict });
    await expect
      .poll(async () => JSON.parse(await readFile(statePaths(folder).status, "utf8")))
      .toMatchObject({ verdict });
    expect(entries.find(({ event }) => event === "challenge.verdict")).toMatchObject({
      level: "warn",
      facts: { result: "slow", gops: 0.5 },
    });
  });
});
