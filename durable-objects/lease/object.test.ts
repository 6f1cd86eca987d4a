import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { CLOSE } from "@gpux/protocol/frames";
import { Address, type HexBytes } from "@gpux/protocol/ids";
import { JobEvent, SignedReceipt } from "@gpux/protocol/job";
import { LeaseEvent } from "@gpux/protocol/lease-event";
import { verifyProof } from "@gpux/protocol/merkle";
import { recoverSigner } from "@gpux/protocol/signature";
import { expect, test, vi } from "vitest";
import { z } from "zod";
import { newP256Key } from "../../test/setup/p256-key.ts";
import { BLOCK_MS } from "./blocks.ts";
import { address, termsOf } from "./testing/fixtures.ts";
import { meetNeighbours, neighbours, upgradeBy } from "./testing/neighbours.ts";
import { active, CONSUMER, consumer, hasher, Line, NODE, node, request } from "./testing/open-lease.ts";

const STRANGER = address(0x99);

meetNeighbours();

test("an allowance is the consumer's to sign, by a P-256 key too where the terms name one", async () => {
  const browser = await newP256Key();
  const { stub, hash, job } = await active(neighbours, { terms: { consumerSigner: browser.address } });
  const cumulative = 10_100_000n;
  const digest = hasher.allowance({ leaseId: hash, cumulative });
  const submit = async (signature: HexBytes) => {
    const allowance = { cumulative, signature };
    const dear = { ...request, max_price: 9_000_000n, allowance };
    return stub.submit(browser.address, job(1), dear, null, 0);
  };
  const other = await (await newP256Key()).sign(digest);
  expect(await submit(other)).toMatchObject({ ok: false, code: "allowance_invalid" });
  expect(await submit(await consumer.sign({ hash: digest }))).toMatchObject({ code: "allowance_invalid" });
  expect(await submit(await browser.sign(digest))).toMatchObject({ ok: true, replayed: false });
});

test("nobody but the payer and the consumer may ask anything of a lease", async () => {
  const { stub, job } = await active(neighbours);
  await stub.submit(CONSUMER, job(1), request, null, 0);
  const refused = { ok: false, code: "forbidden" };
  for (const stranger of [STRANGER, NODE]) {
    expect(await stub.submit(stranger, job(2), request, null, 0)).toEqual(refused);
    expect(await stub.job(stranger, job(1), 0)).toEqual(refused);
    expect(await stub.events(stranger, job(1), 0, 10)).toEqual(refused);
    expect(await stub.cancel(stranger, job(1))).toEqual(refused);
    expect(await stub.close(stranger)).toEqual(refused);
    expect(await stub.view(stranger)).toEqual(refused);
    const watch = new Request(`https://lease/watch?job=${job(1)}&as=${stranger}`, {
      headers: { upgrade: "websocket" },
    });
    expect((await stub.fetch(watch)).status).toBe(403);
  }
  expect((await stub.fetch(upgradeBy(STRANGER))).status).toBe(403);
  expect(await stub.view(termsOf().payer)).toMatchObject({ ok: true, lease: { jobs_open: 1 } });
});

test("a lease that was never quoted knows nothing, and takes no socket", async () => {
  const stub = env.LEASE.getByName("lse_nobody");
  expect(await stub.view(CONSUMER)).toMatchObject({ ok: false, code: "lease_unknown" });
  expect((await stub.fetch(upgradeBy(NODE))).status).toBe(410);
  expect((await stub.fetch("https://lease/agent")).status).toBe(426);
});

test("a job runs over the data socket, its watcher sees all of it, and both signatures cover the receipt", async () => {
  const { stub, job, hash } = await active(neighbours);
  await stub.submit(CONSUMER, job(1), request, null, 0);
  const watch = new Request(`https://lease/watch?job=${job(1)}&as=${CONSUMER}&after=0`, {
    headers: { upgrade: "websocket" },
  });
  const watcher = new Line((await stub.fetch(watch)).webSocket);
  const event = async () => JobEvent.parse(JSON.parse(await watcher.next()));
  expect(await event()).toMatchObject({ type: "status", data: { status: "queued" } });

  const agent = await Line.dial(stub);
  agent.hello();
  await agent.frame("welcome");
  const { attempt } = await agent.frame("run");
  expect(await event()).toMatchObject({ data: { status: "starting" } });
  agent.say({ t: "started", seq: 1, job: job(1), attempt });
  agent.say({ t: "progress", seq: 0, job: job(1), attempt, fraction: 0.5 });
  agent.say({ t: "result", seq: 2, job: job(1), attempt, ms: 0, gpu: "SWIFTSHADER", outputs: [] });
  const seen = [await event(), await event(), await event()];
  expect(seen.map(({ type, data }) => data.status ?? type)).toEqual(["running", "progress", "succeeded"]);
  expect(await watcher.closed).toBe(1000);

  // Whoever was told to come back is told the end; whoever knows that and waits wants the receipt (MTR-4).
  expect(await stub.job(CONSUMER, job(1), 60_000)).toMatchObject({
    ok: true,
    job: { status: "succeeded", receipt: { usage: null } },
  });
  const waiting = stub.job(CONSUMER, job(1), 60_000);
  const { usage, receipts } = await agent.frame("settle");
  const [receipt] = receipts;
  if (receipt === undefined) throw new Error("nothing is asked for");
  const digest = hasher.usage({ leaseId: hash, ...usage });
  const signature = await node.sign({ hash: digest });
  const wire = { cumulative: usage.cumulative.toString(), evidence: usage.evidence };
  agent.say({ t: "signed", seq: 3, usage: { ...wire, signature } });
  const both = z.object({ job: z.object({ receipt: SignedReceipt.extend({ usage: z.unknown() }) }) });
  const settled = both.parse(await waiting).job.receipt;
  expect(settled).toMatchObject({ provider_signature: signature, proof: [], usage: { size: 1 } });
  expect(await recoverSigner(digest, settled.edge_signature ?? "0x")).toBe(Address.parse(env.METER_ADDRESS));
  expect(verifyProof(usage.evidence, hasher.receipt(receipt), 0, 1, [])).toBe(true);

  const late = new Line((await stub.fetch(watch)).webSocket);
  expect(JobEvent.parse(JSON.parse(await late.next()))).toMatchObject({ data: { status: "queued" } });
  expect(await late.closed).toBe(1000);
});

test.each([
  ["no JSON", "{"],
  ["another version", JSON.stringify({ v: 2, seq: 0, ack: 0, t: "hello", attempts: [], last_seq: 0 })],
  ["a frame that nobody knows", JSON.stringify({ v: 1, seq: 0, ack: 0, t: "made_up" })],
  ["a field too many", JSON.stringify({ v: 1, seq: 0, ack: 0, t: "ack", more: 1 })],
  ["more than a frame may hold", JSON.stringify({ v: 1, seq: 0, ack: 0, t: "x".repeat(70_000) })],
  ["bytes", new Uint8Array([1])],
])("an agent that sends %s is closed with 4400", async (_, text) => {
  const { stub } = await active(neighbours);
  const agent = await Line.dial(stub);
  agent.send(text);
  expect(await agent.closed).toBe(CLOSE.badFrame);
});

test("a signature that is not the provider's closes with 4403 and leaves the receipt unsigned", async () => {
  const { stub, job, hash } = await active(neighbours);
  const agent = await Line.dial(stub);
  agent.hello();
  await agent.frame("welcome");
  await stub.submit(CONSUMER, job(1), request, null, 0);
  const { attempt } = await agent.frame("run");
  agent.say({ t: "result", seq: 1, job: job(1), attempt, ms: 0, gpu: "SWIFTSHADER", outputs: [] });
  const waiting = stub.job(CONSUMER, job(1), 200);
  const { usage } = await agent.frame("settle");
  const forged = await consumer.sign({ hash: hasher.usage({ leaseId: hash, ...usage }) });
  const wire = { cumulative: usage.cumulative.toString(), evidence: usage.evidence };
  agent.say({ t: "signed", seq: 2, usage: { ...wire, signature: forged } });
  expect(await agent.closed).toBe(CLOSE.forbidden);
  expect(await waiting).toMatchObject({ ok: true, job: { receipt: { provider_signature: null } } });
});

test("a newer data socket takes over from the older, whose upgrade cannot be used again", async () => {
  const { stub } = await active(neighbours);
  const upgrade = upgradeBy(NODE);
  const older = new Line((await stub.fetch(upgrade.clone())).webSocket);
  expect((await stub.fetch(upgrade)).status).toBe(401);
  const newer = await Line.dial(stub);
  expect(await older.closed).toBe(CLOSE.replaced);
  newer.hello();
  expect(await newer.frame("welcome")).toMatchObject({ attempts: [] });
  expect(await stub.view(CONSUMER)).toMatchObject({ lease: { node_connected: true } });
});

test("an idle lease hibernates with its data socket, answers heartbeats, and hears its agent again", async () => {
  const { stub } = await active(neighbours);
  const agent = await Line.dial(stub);
  agent.hello();
  const { epoch } = await agent.frame("welcome");
  await evictDurableObject(stub);
  agent.send("ping");
  expect(await agent.next()).toBe("pong");
  agent.hello();
  expect((await agent.frame("welcome")).epoch).toBe(epoch + 1);
});

test("what falls due as an evicted lease wakes is said to its agent at once", async () => {
  vi.useFakeTimers({ toFake: ["Date"] });
  try {
    const { stub, job } = await active(neighbours);
    const agent = await Line.dial(stub);
    agent.hello();
    await agent.frame("welcome");
    await stub.submit(CONSUMER, job(1), request, null, 0);
    const { job: id, attempt } = await agent.frame("run");
    agent.say({ t: "started", seq: 1, job: id, attempt });
    agent.say({ t: "result", seq: 2, job: id, attempt, ms: 0, gpu: "SWIFTSHADER", outputs: [] });
    for (let heard = 0; heard < 2; heard = (await agent.frame("ack")).ack);
    await evictDurableObject(stub);
    vi.setSystemTime(Date.now() + BLOCK_MS);
    await runDurableObjectAlarm(stub);
    expect((await agent.frame("settle")).receipts).toMatchObject([{ sequence: 1 }]);
  } finally {
    vi.useRealTimers();
  }
});

test("LSE-12 many read the lease's events, each from where it left off, and reading keeps nothing awake", async () => {
  const { stub } = await active(neighbours);
  const watch = async (query: string) => {
    const url = `https://lease/watch?as=${CONSUMER}&${query}`;
    return stub.fetch(new Request(url, { headers: { upgrade: "websocket" } }));
  };
  const read = async (line: Line) => LeaseEvent.parse(JSON.parse(await line.next()));
  const first = new Line((await watch("after=0")).webSocket);
  const opening = [await read(first), await read(first), await read(first)];
  expect(opening.map(({ id, type }) => [id, type])).toEqual([
    [1, "status"],
    [2, "funded"],
    [3, "status"],
  ]);
  const late = new Line((await watch("after=3")).webSocket);
  await evictDurableObject(stub);

  const agent = await Line.dial(stub);
  agent.hello();
  await agent.frame("welcome");
  for (const line of [first, late])
    expect(await read(line)).toMatchObject({ id: 4, type: "node_back", lease: opening[0]?.lease });
  expect(await stub.close(CONSUMER)).toMatchObject({ ok: true });
  for (const line of [first, late])
    expect(await read(line)).toMatchObject({
      id: 5,
      data: { status: "closing", reason: "closed_by_consumer" },
    });
  const as = `https://lease/watch?as=${STRANGER}`;
  expect((await stub.fetch(new Request(as, { headers: { upgrade: "websocket" } }))).status).toBe(403);
});

test("an alarm that throws is caught and set again", async () => {
  const { stub } = await active(neighbours);
  const broken = vi.spyOn(console, "error").mockImplementation(() => undefined);
  await evictDurableObject(stub);
  await runInDurableObject(stub, (_, ctx) => ctx.storage.sql.exec("ALTER TABLE tail RENAME TO away"));
  expect(await runDurableObjectAlarm(stub)).toBe(true);
  expect(broken).toHaveBeenCalledWith(expect.stringContaining("alarm_failed"));
  broken.mockRestore();
  const at = await runInDurableObject(stub, (_, ctx) => ctx.storage.getAlarm());
  expect(at).toBeGreaterThan(Date.now());
  await runInDurableObject(stub, (_, ctx) => ctx.storage.sql.exec("ALTER TABLE away RENAME TO tail"));
  expect(await stub.view(CONSUMER)).toMatchObject({ ok: true, lease: { status: "active" } });
});

/** Only the chain would look at its signature. */
