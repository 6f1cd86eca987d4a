import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import { CLOSE, ToLease } from "@gpux/protocol/frames";
import { Address, type Bytes32, type HexBytes, type JobId, jobIdOf } from "@gpux/protocol/ids";
import { AllocateIntent } from "@gpux/protocol/intent";
import { JobEvent, JobRequest, SignedReceipt } from "@gpux/protocol/job";
import type { QuoteText } from "@gpux/protocol/lease";
import { LeaseEvent } from "@gpux/protocol/lease-event";
import { verifyProof } from "@gpux/protocol/merkle";
import { MAX_AMOUNT } from "@gpux/protocol/money";
import { recoverSigner } from "@gpux/protocol/signature";
import { privateKeyToAccount } from "viem/accounts";
import { beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { z } from "zod";
import { newP256Key } from "../../test/setup/p256-key.ts";
import { hasherOf } from "./billing.ts";
import { BLOCK_MS } from "./blocks.ts";
import { address, CONSUMER_KEY, done, holdOf, NODE_KEY, PLACE, termsOf } from "./testing/fixtures.ts";
import { Neighbours, upgradeBy } from "./testing/neighbours.ts";
import { LOST_MS, RETENTION_MS } from "./timers.ts";

const consumer = privateKeyToAccount(CONSUMER_KEY);
const node = privateKeyToAccount(NODE_KEY);
const NODE = Address.parse(node.address);
const CONSUMER = Address.parse(consumer.address);
const STRANGER = address(0x99);
const hasher = hasherOf(PLACE);

let neighbours: Neighbours;
beforeAll(async () => {
  neighbours = await Neighbours.meet();
});
beforeEach(() => {
  neighbours.relayed.clear();
  neighbours.broken = false;
});

/** A quoted lease that no other test has. */
async function quoted({
  expiresAt = Date.now() + 600_000,
  consumerSigner = CONSUMER,
  terms: change = {},
  text = {},
}: {
  expiresAt?: number;
  consumerSigner?: Address;
  terms?: Partial<LeaseTerms>;
  text?: Partial<QuoteText>;
} = {}) {
  const terms = termsOf({
    consumerSigner,
    providerSigner: NODE,
    meter: Address.parse(env.METER_ADDRESS),
    upfront: MAX_AMOUNT,
    unattended: 10_000_000n,
    expiry: Math.floor(Date.now() / 1_000) + 3_600,
    quote: `0x${crypto.randomUUID().replaceAll("-", "").padEnd(64, "0")}`,
    ...change,
  });
  const usual = holdOf(terms);
  const hold = { ...usual, text: { ...usual.text, ...text }, expiresAt };
  const stub = env.LEASE.getByName(hold.lease);
  expect(await stub.quote({ ...hold, amount: 0n })).toEqual({ ok: true });
  const hash = hasher.leaseTerms(terms);
  const job = (n: number): JobId => jobIdOf(hold.lease, new Uint8Array(16).fill(n));
  return { stub, terms, hash, job };
}

async function active(consumerSigner = CONSUMER, text: Partial<QuoteText> = {}) {
  const lease = await quoted({ consumerSigner, text });
  const leases = [{ leaseId: lease.hash, funded: "10000000", openedAt: Math.floor(Date.now() / 1_000) }];
  neighbours.relayed.set("fund", done("fund", { kind: "fund", leases }));
  const funded = await lease.stub.fund({
    amount: 10_000_000n,
    salt: `0x${"01".repeat(32)}`,
    valid_after: 0,
    valid_before: Math.floor(Date.now() / 1_000) + 600,
    signature: "0x00",
  });
  expect(funded).toMatchObject({ ok: true, lease: { status: "active" } });
  await neighbours.quiet();
  return lease;
}

const request = JobRequest.parse({ function: "f".repeat(64), inputs: {}, max_price: "100000" });

type Stub = Awaited<ReturnType<typeof quoted>>["stub"];

/** One end of a socket: what came, in order, and how it closed. */
class Line {
  readonly #socket: WebSocket;
  readonly #came: string[] = [];
  #wanted: ((text: string) => void) | null = null;
  readonly closed: Promise<number>;

  constructor(socket: WebSocket | null) {
    if (socket === null) throw new Error("no socket was given");
    this.#socket = socket;
    this.closed = new Promise((resolve) => {
      socket.addEventListener("close", ({ code }) => resolve(code));
    });
    socket.addEventListener("message", ({ data }) => {
      const want = this.#wanted;
      this.#wanted = null;
      if (want === null) this.#came.push(String(data));
      else want(String(data));
    });
    socket.accept();
  }

  static async dial(stub: Stub): Promise<Line> {
    return new Line((await stub.fetch(upgradeBy(NODE))).webSocket);
  }

  async next(): Promise<string> {
    return this.#came.shift() ?? (await new Promise<string>((resolve) => (this.#wanted = resolve)));
  }

  async frame<T extends ToLease["t"]>(t: T): Promise<Extract<ToLease, { t: T }>> {
    for (;;) {
      const frame = ToLease.parse(JSON.parse(await this.next()));
      if (is(frame, t)) return frame;
    }
  }

  say(frame: object): void {
    this.#socket.send(JSON.stringify({ v: 1, ack: 0, ...frame }));
  }

  send(text: string | Uint8Array<ArrayBuffer>): void {
    this.#socket.send(text);
  }

  hello(): void {
    this.say({ t: "hello", seq: 0, attempts: [], last_seq: 0 });
  }
}

function is<T extends ToLease["t"]>(frame: ToLease, t: T): frame is Extract<ToLease, { t: T }> {
  return frame.t === t;
}

test("an allowance is the consumer's to sign, by a P-256 key too where the terms name one", async () => {
  const browser = await newP256Key();
  const { stub, hash, job } = await active(browser.address);
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
  const { stub, job } = await active();
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
  const { stub, job, hash } = await active();
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

test("CKP-1, CKP-2 what an attempt kept is paid, survives an eviction, and is what the next one goes on from", async () => {
  const { stub, hash, job } = await active(CONSUMER, { tier: "yieldable" });
  neighbours.asked.length = 0;
  const first = await Line.dial(stub);
  first.say({ t: "hello", seq: 0, attempts: [], last_seq: 0, checkpoints: true });
  await first.frame("welcome");
  await stub.submit(CONSUMER, job(1), { ...request, checkpoint: true }, null, 0);
  const { attempt, ...run } = await first.frame("run");
  expect(run).toMatchObject({ checkpoint: null, max_price: 100_000n });
  first.say({ t: "started", seq: 1, job: job(1), attempt });
  first.say({ t: "yield", seq: 2, notice_s: 30 });
  await scheduler.wait(50);
  const checkpoint = { sha256: "c0".repeat(32), bytes: 8 };
  first.say({ t: "yielded", seq: 3, job: job(1), attempt, ms: 20, gpu: "SWIFTSHADER", checkpoint });
  const { usage, receipts } = await first.frame("settle");
  expect(receipts).toMatchObject([{ attempt: 1, outputHashes: [], price: 20n, billedMs: 20n }]);
  const signature = await node.sign({ hash: hasher.usage({ leaseId: hash, ...usage }) });
  const wire = { cumulative: usage.cumulative.toString(), evidence: usage.evidence };
  first.say({ t: "signed", seq: 4, usage: { ...wire, signature } });
  await vi.waitUntil(() => neighbours.asked.includes("node:rouse"), { timeout: 60_000 });
  await neighbours.quiet();
  await evictDurableObject(stub, { webSockets: "close" });

  const next = await Line.dial(stub);
  next.say({ t: "hello", seq: 0, attempts: [], last_seq: 0, checkpoints: true });
  const again = await next.frame("run");
  expect(again).toMatchObject({ job: job(1), attempt: { n: 2 }, checkpoint, max_price: 99_980n });
  next.say({
    t: "result",
    seq: 5,
    job: job(1),
    attempt: again.attempt,
    ms: 0,
    gpu: "SWIFTSHADER",
    outputs: [],
  });
  const view = await stub.job(CONSUMER, job(1), 60_000);
  expect(view).toMatchObject({
    job: {
      status: "succeeded",
      price: 20n,
      billed_ms: 20,
      attempts: [
        { outcome: "yielded", paid: 20n, billed_ms: 20, receipt: { edge_signature: expect.any(String) } },
        { paid: 0n },
      ],
    },
  });
  expect(await stub.retry(CONSUMER, job(1), job(2), null, 0)).toMatchObject({ ok: true });
  expect(await next.frame("run")).toMatchObject({ job: job(2), attempt: { n: 1 }, checkpoint });
});

test("a batch that is waited for is answered in its order when its last job has ended", async () => {
  const { stub, job } = await active();
  const agent = await Line.dial(stub);
  agent.hello();
  await agent.frame("welcome");
  const asked = [3, 1, 2].map((n) => ({ id: job(n), request }));
  const waiting = stub.submitAll(CONSUMER, asked, 60_000);
  for (const [index, { id }] of asked.entries()) {
    const run = await agent.frame("run");
    expect(run.job).toBe(id);
    const end = { job: id, attempt: run.attempt, ms: 0, gpu: "SWIFTSHADER", outputs: [] };
    agent.say({ t: "result", seq: index + 1, ...end });
  }
  const answer = await waiting;
  expect(answer).toMatchObject({
    ok: true,
    replayed: false,
    jobs: asked.map(({ id }) => ({ id, status: "succeeded" })),
  });
});

test("ACK-5 a batch of which a crash left a part is made whole by the same request", async () => {
  const { stub, job } = await active();
  const agent = await Line.dial(stub);
  agent.hello();
  await agent.frame("welcome");
  const asked = [1, 2].map((n) => ({ id: job(n), request }));
  vi.useFakeTimers({ toFake: ["setTimeout"] });
  const waiting = stub.submitAll(CONSUMER, asked, 60_000);
  const run = await agent.frame("run");
  const { attempt, ticket } = run;
  const end = { t: "result", attempt, ms: 0, gpu: "SWIFTSHADER", outputs: [] };
  agent.say({ ...end, seq: 1, job: job(1) });
  const { seq } = await agent.frame("run");
  agent.say({ ...end, seq: 2, job: job(2) });
  expect(await waiting).toMatchObject({ jobs: [{ status: "succeeded" }, { status: "succeeded" }] });
  await evictDurableObject(stub, { webSockets: "close" });
  vi.useRealTimers();
  const back = await Line.dial(stub);
  back.say({ t: "hello", seq: 0, attempts: [{ job: job(1), attempt }], last_seq: seq });
  await back.frame("welcome");
  back.say({ t: "accepted", seq: 0, job: job(1), attempt, inputs: {}, ticket, function: request.function });
  back.say({ ...end, seq: 3, job: job(1) });
  await back.frame("ack");
  expect(await stub.job(CONSUMER, job(2), 0)).toMatchObject({ code: "job_unknown" });
  expect(await stub.submitAll(CONSUMER, asked, 0)).toMatchObject({
    ok: true,
    replayed: false,
    jobs: [{ status: "succeeded" }, { status: "starting" }],
  });
  expect((await back.frame("run")).job).toBe(job(2));
});

test.each([
  ["no JSON", "{"],
  ["another version", JSON.stringify({ v: 2, seq: 0, ack: 0, t: "hello", attempts: [], last_seq: 0 })],
  ["a frame that nobody knows", JSON.stringify({ v: 1, seq: 0, ack: 0, t: "made_up" })],
  ["a field too many", JSON.stringify({ v: 1, seq: 0, ack: 0, t: "ack", more: 1 })],
  ["more than a frame may hold", JSON.stringify({ v: 1, seq: 0, ack: 0, t: "x".repeat(70_000) })],
  ["bytes", new Uint8Array([1])],
])("an agent that sends %s is closed with 4400", async (_, text) => {
  const { stub } = await active();
  const agent = await Line.dial(stub);
  agent.send(text);
  expect(await agent.closed).toBe(CLOSE.badFrame);
});

test("a signature that is not the provider's closes with 4403 and leaves the receipt unsigned", async () => {
  const { stub, job, hash } = await active();
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
  const { stub } = await active();
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
  const { stub } = await active();
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
    const { stub, job } = await active();
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

test("JOB-9 an ended job is done again as another, once for each key; one that has not ended is not", async () => {
  const { stub, job } = await active();
  const asked = { ...request, priority: 3 };
  await stub.submit(CONSUMER, job(1), asked, null, 0);
  expect(await stub.retry(CONSUMER, job(1), job(2), null, 0)).toMatchObject({ code: "job_not_ended" });
  await stub.cancel(CONSUMER, job(1));
  await evictDurableObject(stub);
  const again = await stub.retry(CONSUMER, job(1), job(2), null, 0);
  expect(again).toMatchObject({
    ok: true,
    replayed: false,
    job: { id: job(2), retry_of: job(1), status: "queued" },
  });
  expect(await stub.retry(CONSUMER, job(1), job(2), null, 0)).toMatchObject({ replayed: true });
  expect(await stub.retry(CONSUMER, job(9), job(3), null, 0)).toMatchObject({ code: "job_unknown" });
  expect(await stub.retry(STRANGER, job(1), job(3), null, 0)).toMatchObject({ code: "forbidden" });
});

test("JOB-8 an ended job and its events are answered again until seven days after its lease has ended", async () => {
  const { stub, job } = await active();
  await stub.submit(CONSUMER, job(1), request, null, 0);
  await stub.cancel(CONSUMER, job(1));
  await stub.close(CONSUMER);
  vi.useFakeTimers({ toFake: ["Date"] });
  try {
    // Nobody comes to sign the close: the lease is lost after a quarter of an hour, and that is its end.
    vi.setSystemTime(Date.now() + LOST_MS);
    await runDurableObjectAlarm(stub);
    expect(await stub.view(CONSUMER)).toMatchObject({ lease: { status: "lost" } });
    await evictDurableObject(stub);
    vi.setSystemTime(Date.now() + RETENTION_MS - 1_000);
    expect(await stub.submit(CONSUMER, job(1), request, null, 0)).toMatchObject({
      replayed: true,
      job: { status: "canceled" },
    });
    expect(await stub.events(CONSUMER, job(1), 0, 10)).toMatchObject({
      ok: true,
      events: [{ id: 1 }, { id: 2 }],
    });
  } finally {
    vi.useRealTimers();
  }
});

test("LSE-12 many read the lease's events, each from where it left off, and reading keeps nothing awake", async () => {
  const { stub } = await active();
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
  const { stub } = await active();
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
const unsigned = () => ({
  amount: 1n,
  salt: `0x${"01".repeat(32)}` as const,
  valid_after: 0,
  valid_before: Math.floor(Date.now() / 1_000) + 600,
  signature: "0x00" as const,
});

test("LSE-2 a quote that lapses while its node is asked to reserve is not funded, and the payer is told", async () => {
  const { stub } = await quoted({ expiresAt: Date.now() + 50 });
  neighbours.reserving = true;
  const funding = stub.fund(unsigned());
  await expect.poll(() => stub.view(CONSUMER)).toMatchObject({ ok: false, code: "lease_unknown" });
  neighbours.reserving = false;
  expect(await funding).toEqual({ ok: false, code: "quote_expired" });
});

test("a duty whose neighbour is away is tried again, and done once it is back", async () => {
  const { stub } = await quoted();
  neighbours.broken = true;
  const broken = vi.spyOn(console, "error").mockImplementation(() => undefined);
  const funding = stub.fund(unsigned());
  await expect.poll(() => broken).toHaveBeenCalledWith(expect.stringContaining("relay:fund"));
  neighbours.broken = false;
  neighbours.relayed.set("fund", {
    status: "rejected",
    key: null,
    code: "insufficient_balance",
    detail: "the payer holds 0",
  });
  expect(await funding).toEqual({ ok: false, code: "insufficient_funds", detail: "the payer holds 0" });
  broken.mockRestore();
});

describe("CRD-1 funding from credit", () => {
  /** Terms as a quote has them. */
  const market = { upfront: 60_000n, unattended: 0n };
  type Sign = (hash: Bytes32) => Promise<HexBytes>;
  const byConsumer: Sign = (hash) => consumer.sign({ hash });

  async function creditFor(hash: Bytes32, funded_to: bigint, sign: Sign = byConsumer) {
    const valid_before = Math.floor(Date.now() / 1_000) + 600;
    const message = { leaseIds: [hash], fundedTo: [funded_to], validBefore: valid_before };
    const signature = await sign(hasher.allocate(message));
    return { kind: "credit", funded_to, valid_before, signature } as const;
  }
  const landed = (hash: Bytes32, funded: bigint) =>
    done("allocate", {
      kind: "allocate",
      leases: [{ leaseId: hash, funded: funded.toString(), openedAt: Math.floor(Date.now() / 1_000) }],
      amount: funded.toString(),
    });

  test.each(["secp256k1", "P-256"])("opens by %s and the meter, and is raised", async (curve) => {
    const p256 = await newP256Key();
    const [signer, sign]: [Address, Sign] =
      curve === "P-256" ? [p256.address, p256.sign] : [CONSUMER, byConsumer];
    const { stub, hash } = await quoted({ consumerSigner: signer, terms: market });
    neighbours.relayed.set("allocate", landed(hash, 1_000_000n));
    expect(await stub.fund(await creditFor(hash, 1_000_000n, sign))).toMatchObject({
      ok: true,
      lease: { status: "active", funded: 1_000_000n, from_credit: true },
    });
    const intent = AllocateIntent.parse(neighbours.submitted.get("allocate"));
    const { fundedTo, validBefore, meterSignature } = intent;
    const digest = hasher.allocate({ leaseIds: [hash], fundedTo, validBefore });
    expect(await recoverSigner(digest, meterSignature)).toBe(env.METER_ADDRESS.toLowerCase());

    await evictDurableObject(stub);
    neighbours.relayed.set("allocate", landed(hash, 3_000_000n));
    const raise = await creditFor(hash, 3_000_000n, sign);
    expect(await stub.topUp(signer, raise)).toMatchObject({ ok: true, lease: { funded: 3_000_000n } });
    // A replay, and a target below it, change nothing.
    expect(await stub.topUp(signer, raise)).toMatchObject({ ok: true, lease: { funded: 3_000_000n } });
  });

  test("CRD-6 keeps raises that are the consumer's, over evictions, and lands the first when too little is left", async () => {
    const { stub, hash } = await quoted({ terms: market });
    neighbours.relayed.set("allocate", landed(hash, 1_000_000n));
    await stub.fund(await creditFor(hash, 1_000_000n));
    const raises = [await creditFor(hash, 2_000_000n), await creditFor(hash, 3_000_000n)];
    const forged = { ...(await creditFor(hash, 4_000_000n)), funded_to: 5_000_000n };
    const auto = { below: 1n, allocations: raises };
    expect(await stub.autoTopUp(STRANGER, auto)).toMatchObject({ code: "forbidden" });
    const mixed = { below: 1n, allocations: [...raises, forged] };
    expect(await stub.autoTopUp(CONSUMER, mixed)).toMatchObject({ code: "funding_invalid" });
    expect(await stub.autoTopUp(CONSUMER, auto)).toMatchObject({
      ok: true,
      lease: { auto_top_up: { below: 1n, targets: [2_000_000n, 3_000_000n] } },
    });
    await evictDurableObject(stub);
    neighbours.relayed.set("allocate", landed(hash, 2_000_000n));
    const again = await stub.autoTopUp(CONSUMER, { ...auto, below: 1_500_000n });
    expect(again).toMatchObject({ ok: true, lease: { auto_top_up: { targets: [3_000_000n] } } });
    await neighbours.quiet();
    expect(await stub.view(CONSUMER)).toMatchObject({ lease: { funded: 2_000_000n } });
  });

  test("takes no signature of another, or over another target, and holds nothing for it", async () => {
    const { stub, hash } = await quoted({ terms: market });
    const other = privateKeyToAccount(`0x${"44".repeat(32)}`);
    neighbours.asked.length = 0;
    const foreign = await creditFor(hash, 1_000_000n, (digest) => other.sign({ hash: digest }));
    const raised = { ...(await creditFor(hash, 1_000_000n)), funded_to: 2_000_000n };
    for (const funding of [foreign, raised])
      expect(await stub.fund(funding)).toMatchObject({ ok: false, code: "funding_invalid" });
    expect(await stub.fund(await creditFor(hash, 0n))).toMatchObject({ code: "funding_invalid" });
    expect(neighbours.asked).toEqual([]);
    expect(await stub.view(CONSUMER)).toMatchObject({ lease: { status: "quoted" } });
  });

  test("says that the credit does not hold as much, and so does a refusal of the meter's", async () => {
    const poor = await quoted({ terms: market });
    const detail = "InsufficientCredit(1, 1000000)";
    neighbours.relayed.set("allocate", {
      status: "rejected",
      key: null,
      code: "insufficient_credit",
      detail,
    });
    expect(await poor.stub.fund(await creditFor(poor.hash, 1_000_000n))).toEqual({
      ok: false,
      code: "insufficient_credit",
      detail,
    });
    // Terms that are due at once: no quote has them, and the meter pays none from credit.
    const { stub, hash } = await quoted();
    expect(await stub.fund(await creditFor(hash, 1_000_000n))).toMatchObject({
      ok: false,
      code: "funding_invalid",
      detail: expect.stringContaining("due at once"),
    });
  });
});

test("a quote that nobody funds gives its GPUs back and leaves nothing behind", async () => {
  const { stub } = await quoted({ expiresAt: Date.now() + 50 });
  await expect.poll(() => stub.view(CONSUMER)).toMatchObject({ ok: false, code: "lease_unknown" });
  const left = await runInDurableObject(stub, async (_, { storage }) => ({
    rows: storage.sql
      .exec(
        "SELECT (SELECT count(*) FROM lease) + (SELECT count(*) FROM jobs) + (SELECT count(*) FROM tail) AS n",
      )
      .one().n,
    alarm: await storage.getAlarm(),
  }));
  expect(left).toEqual({ rows: 0, alarm: null });
  expect(neighbours.asked).toContain("node:release");
});

/** A job whose answer its caller has, and whose rows a crash takes: nothing is written while timers stand still. */
async function answeredAndLost(isAskedAgain = false) {
  const lease = await active();
  const { stub, job } = lease;
  const agent = await Line.dial(stub);
  agent.hello();
  await agent.frame("welcome");
  vi.useFakeTimers({ toFake: ["setTimeout"] });
  const waiting = stub.submit(CONSUMER, job(1), request, "my-first-job-1", 60_000);
  const run = await agent.frame("run");
  const { attempt, ticket = "" } = run;
  const end = { t: "result", seq: 2, job: job(1), attempt, ms: 0, gpu: "SWIFTSHADER", outputs: [] };
  agent.say({ t: "started", seq: 1, job: job(1), attempt });
  agent.say(end);
  const answer = await waiting;
  expect(answer).toMatchObject({ ok: true, job: { status: "succeeded" } });
  await evictDurableObject(stub, { webSockets: "close" });
  vi.useRealTimers();
  expect(await stub.job(CONSUMER, job(1), 0)).toMatchObject({ code: "job_unknown" });
  if (isAskedAgain) await stub.submit(CONSUMER, job(1), request, "my-first-job-1", 0);
  const accepted = { t: "accepted", seq: 0, job: job(1), attempt, inputs: {}, ticket };
  const back = await Line.dial(stub);
  back.say({ t: "hello", seq: 0, attempts: [{ job: job(1), attempt }], last_seq: run.seq });
  await back.frame("welcome");
  return { ...lease, back, end, accepted: { ...accepted, function: request.function } };
}

test("ACK-5 a job that was answered before it was written is known again by what its agent kept", async () => {
  const { stub, job, back, accepted, end } = await answeredAndLost();
  back.say(accepted);
  back.say(end);
  expect(await back.frame("ack")).toMatchObject({ ack: 2 });
  const answer = await stub.job(CONSUMER, job(1), 0);
  expect(answer).toMatchObject({ ok: true, job: { status: "succeeded", client_id: "my-first-job-1" } });
  // Said once more, it changes nothing.
  back.say(accepted);
  back.say({ ...end, seq: 3 });
  await back.frame("ack");
  expect(await stub.view(CONSUMER)).toMatchObject({ lease: { jobs_ended: 1, jobs_open: 0 } });
});

test("ACK-5 the same request again runs again, and is charged once", async () => {
  const { stub, job, back, accepted, end } = await answeredAndLost(true);
  const { attempt } = await back.frame("run");
  back.say(accepted);
  back.say(end);
  await back.frame("ack");
  expect(await stub.job(CONSUMER, job(1), 0)).toMatchObject({ ok: true, job: { status: "starting" } });
  back.say({ ...end, seq: 3, attempt });
  await back.frame("ack");
  expect(await stub.view(CONSUMER)).toMatchObject({ lease: { jobs_ended: 1, jobs_open: 0 } });
});

test("ACK-5 a ticket that the lease did not make, or with other inputs, brings no job", async () => {
  const { stub, job, back, accepted, end } = await answeredAndLost();
  back.say({ ...accepted, inputs: { n: { number: 1 } } });
  back.say({ ...accepted, ticket: accepted.ticket.replace('"retries":2', '"retries":5') });
  back.say({ ...accepted, attempt: { ...accepted.attempt, n: 2 } });
  back.say(end);
  await back.frame("ack");
  expect(await stub.job(CONSUMER, job(1), 0)).toMatchObject({ ok: false, code: "job_unknown" });
});

test("ACK-1 a job that is not waited for is in its row before the answer", async () => {
  const { stub, job } = await active();
  vi.useFakeTimers({ toFake: ["setTimeout"] });
  expect(await stub.submit(CONSUMER, job(1), request, null, 0)).toMatchObject({ ok: true });
  await evictDurableObject(stub, { webSockets: "close" });
  vi.useRealTimers();
  expect(await stub.job(CONSUMER, job(1), 0)).toMatchObject({ ok: true, job: { status: "queued" } });
});
