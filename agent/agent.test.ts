import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { canonicalJson, sha256Hex } from "@gpux/protocol/canonical";
import type { LeaseTerms, Receipt } from "@gpux/protocol/eip712";
import { LeaseTerms as LeaseTermsWire, Receipt as ReceiptWire } from "@gpux/protocol/eip712";
import { CLOSE, FRAME_LIMIT } from "@gpux/protocol/frames";
import type { JobId, LeaseId } from "@gpux/protocol/ids";
import { inputHash } from "@gpux/protocol/job";
import { append, emptyFrontier, root } from "@gpux/protocol/merkle";
import { recoverSigner } from "@gpux/protocol/signature";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { type RunningAgent, startAgent } from "./agent.ts";
import {
  type ExecutionResult,
  type Executor,
  executionFailure,
  type FunctionJob,
} from "./executors/executor.ts";
import { AgentStartError, EXIT } from "./exit.ts";
import {
  configWith,
  consumer,
  hasher,
  jobOf,
  leaseOf,
  meter,
  NODE,
  place,
  termsWith,
  textWith,
} from "./fixtures.ts";
import { jobName } from "./leases/book.ts";
import { heldVouchers } from "./leases/vouchers.ts";
import type { LogEntry } from "./log.ts";
import { type ScriptedEdge, startScriptedEdge } from "./scripted-edge.ts";
import { readStatus, statePaths } from "./state-dir.ts";

const NODE_KEY = `0x${"a1".repeat(32)}` as const;
const RATE = 3_600_000n;
const GPU = "SWIFTSHADER";
const IMAGE = new TextEncoder().encode("an image");

const manifest = {
  version: 1,
  name: "test",
  description: "Writes nothing.",
  inputs: {},
  buffers: { out: { kind: "storage", from: "zero", bytes: 16 } },
  modules: { main: "@compute @workgroup_size(1) fn main() {}" },
  passes: [
    {
      module: "main",
      entryPoint: "main",
      bindings: [{ group: 0, binding: 0, buffer: "out" }],
      workgroups: [1, 1, 1],
    },
  ],
  outputs: [{ name: "image", kind: "array", buffer: "out", type: "u32", length: 4 }],
};

/** Runs what the test says, when it says so; ends at once when aborted, as executors do. */
class ScriptedExecutor implements Executor<FunctionJob> {
  readonly jobs: { job: FunctionJob; end(result?: ExecutionResult): void }[] = [];
  readonly #waiting: (() => void)[] = [];
  closed = 0;
  readonly notices: number[] = [];

  yieldSoon = (ms: number) => {
    this.notices.push(ms);
  };

  describe = async () => ({
    adapter: "SwiftShader driver-5.0.0",
    vendor: "google",
    architecture: "swiftshader",
    backend: "vulkan",
    software: true,
    maxBufferBytes: 2 ** 28,
    maxBindingBytes: 2 ** 27,
    features: ["webgpu"],
  });

  run: Executor<FunctionJob>["run"] = (job, on, signal) =>
    new Promise((resolve) => {
      on.started?.();
      const success: ExecutionResult = {
        ok: true,
        outputs: [{ name: "image", contentType: "application/octet-stream", bytes: IMAGE }],
        wallMs: 1,
        gpuMs: 1,
      };
      signal.addEventListener("abort", () => resolve(executionFailure("canceled", "", 1)));
      this.jobs.push({ job, end: (result) => resolve(result ?? success) });
      for (const wake of this.#waiting.splice(0)) wake();
    });

  close = async () => {
    this.closed += 1;
  };

  /** Resolves when `count` jobs have started in all. */
  async started(count: number): Promise<void> {
    while (this.jobs.length < count)
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
      });
  }
}

let edge: ScriptedEdge;
let folder: string;
let executor: ScriptedExecutor;
let running: RunningAgent[];
let entries: LogEntry[];
let terms: LeaseTerms;
let lease: LeaseId;
let leaseHash: `0x${string}`;
let functionHash: string;

beforeEach(async () => {
  edge = await startScriptedEdge();
  folder = await mkdtemp(join(tmpdir(), "gpux-agent-"));
  running = [];
  entries = [];
  terms = termsWith({ expiry: Math.floor(Date.now() / 1_000) + 3_600 });
  ({ id: lease, hash: leaseHash } = leaseOf(terms));
  functionHash = await edge.putObject(new TextEncoder().encode(canonicalJson(manifest)));
});

afterEach(async () => {
  await Promise.all(running.map((agent) => agent.kill()));
  await edge.close();
  await rm(folder, { recursive: true });
});

async function start(change: Parameters<typeof configWith>[0] = {}): Promise<RunningAgent> {
  executor = new ScriptedExecutor();
  const agent = await startAgent({
    config: configWith({ edge: edge.url, rpc: `${edge.url}/rpc`, ...change }),
    key: NODE_KEY,
    stateDir: folder,
    log: (entry) => entries.push(entry),
    executor,
  });
  running.push(agent);
  return agent;
}

const wire = () => z.encode(LeaseTermsWire, terms);
const soon = () => new Date(Date.now() + 30_000).toISOString();

/** Hello, welcome. */
async function online(leases: LeaseId[] = []) {
  const control = await edge.control();
  const hello = await control.next("hello");
  control.say(0, 0, { t: "welcome", heartbeat_s: 25, leases });
  return { control, hello };
}

/** The agent's lease socket, welcomed. */
async function leaseOnline(
  lastSeq = 0,
  attempts: { job: JobId; attempt: { epoch: number; n: number } }[] = [],
) {
  const socket = await edge.lease(lease);
  const hello = await socket.next("hello");
  socket.say(0, lastSeq, {
    t: "welcome",
    heartbeat_s: 25,
    epoch: 1,
    terms: wire(),
    last_seq: lastSeq,
    attempts,
  });
  return { socket, hello };
}

/** Online, with a hold that the agent confirmed. */
async function holding() {
  const { control } = await online();
  control.say(1, 0, {
    t: "hold",
    hold: lease,
    resources: { gpus: 1, cpu: 0, memory_gb: 0 },
    terms: wire(),
    text: textWith(),
    expires_at: soon(),
  });
  await control.next("held");
  return control;
}

async function opened() {
  const control = await holding();
  control.say(2, 1, { t: "open", lease, terms: wire() });
  const { socket } = await leaseOnline();
  return { control, socket };
}

async function runFrame(
  n: number,
  change: { committed?: string; attempt?: { epoch: number; n: number } } = {},
) {
  const cumulative = 500_000n;
  const signature = await consumer.sign({ hash: hasher.allowance({ leaseId: leaseHash, cumulative }) });
  return {
    t: "run" as const,
    job: jobOf(lease, n),
    attempt: { epoch: 1, n: 1 },
    function: functionHash,
    inputs: {},
    execution_ms: 60_000,
    max_price: "100000",
    committed: "100000",
    allowance: { cumulative: cumulative.toString(), signature },
    ...change,
  };
}

/** The bill for one job that ran `ms` and is the lease's first. */
async function billOf(job: JobId, ms: number): Promise<{ receipt: Receipt; evidence: `0x${string}` }> {
  const receipt: Receipt = {
    leaseId: leaseHash,
    job: jobName(job),
    sequence: 1,
    attempt: 1,
    inputHash: `0x${await inputHash({ function: functionHash, inputs: {} })}`,
    outputHashes: [`0x${await sha256Hex(IMAGE)}`],
    node: NODE,
    gpu: GPU,
    billedMs: BigInt(ms),
    price: (RATE * BigInt(ms)) / 3_600_000n,
    cumulative: (RATE * BigInt(ms)) / 3_600_000n,
    endedAt: Math.floor(Date.now() / 1_000),
  };
  return { receipt, evidence: root(append(emptyFrontier(), hasher.receipt(receipt))) };
}

describe("a lease from hold to close", () => {
  test("the agent confirms, verifies on chain, works, uploads, signs what it did, and forgets", async () => {
    await start();
    const { control, hello } = await online();
    expect(hello).toMatchObject({
      provider: terms.provider,
      draining: false,
      leases: [],
      offer: { gpus: [{ model: GPU }] },
    });
    control.say(1, 0, {
      t: "hold",
      hold: lease,
      resources: { gpus: 1, cpu: 0, memory_gb: 0 },
      terms: wire(),
      text: textWith(),
      expires_at: soon(),
    });
    expect(await control.next("held")).toMatchObject({ hold: lease, seq: 1, ack: 0 });
    control.say(2, 1, { t: "open", lease, terms: wire() });
    const { socket } = await leaseOnline();

    const run = await runFrame(1);
    socket.say(1, 0, run);
    expect(await socket.next("started")).toMatchObject({ job: run.job, attempt: run.attempt, seq: 1 });
    expect(edge.chain.reads).toBeGreaterThan(0);
    await executor.started(1);
    executor.jobs[0]?.end();
    const result = await socket.next("result");
    const sha256 = await sha256Hex(IMAGE);
    expect(result).toMatchObject({
      seq: 2,
      ack: 1,
      gpu: GPU,
      outputs: [{ name: "image", sha256, bytes: IMAGE.length }],
    });
    expect(Buffer.from(edge.objects.get(sha256) ?? [])).toEqual(Buffer.from(IMAGE));

    const { receipt, evidence } = await billOf(run.job, result.ms);
    const usage = { cumulative: receipt.cumulative.toString(), evidence };
    socket.say(2, 2, { t: "settle", usage, receipts: [z.encode(ReceiptWire, receipt)] });
    const signed = await socket.next("signed");
    expect(signed.usage).toMatchObject({ cumulative: receipt.cumulative, evidence });
    const usageDigest = hasher.usage({ leaseId: leaseHash, cumulative: receipt.cumulative, evidence });
    expect(await recoverSigner(usageDigest, signed.usage.signature)).toBe(NODE);

    const validBefore = Math.floor(Date.now() / 1_000) + 600;
    socket.say(3, 3, { t: "close", ...usage, valid_before: validBefore });
    const close = await socket.next("close_signed");
    const closeDigest = hasher.close({
      leaseId: leaseHash,
      cumulative: receipt.cumulative,
      evidence,
      validBefore,
    });
    expect(await recoverSigner(closeDigest, close.signature)).toBe(NODE);
    socket.close(CLOSE.gone);
    await expect.poll(() => readdir(join(folder, "leases"))).toEqual([]);
  });

  test("LNK-7 it keeps the meter's signature, past the lease's end while the chain calls it open", async () => {
    await start();
    const { socket } = await opened();
    const run = await runFrame(1);
    socket.say(1, 0, run);
    await socket.next("started");
    await executor.started(1);
    executor.jobs[0]?.end();
    const { ms } = await socket.next("result");
    const { receipt, evidence } = await billOf(run.job, ms);
    const { cumulative } = receipt;
    const usage = { cumulative: cumulative.toString(), evidence };
    socket.say(2, 2, { t: "settle", usage, receipts: [z.encode(ReceiptWire, receipt)] });
    await socket.next("signed");

    const hash = hasher.usage({ leaseId: leaseHash, cumulative, evidence });
    const genuine = await meter.sign({ hash });
    const held = async () => {
      const all = await heldVouchers(statePaths(folder), place);
      return all.map(({ id, kept }) => ({ id, ...kept.intent }));
    };
    // By another key, over more than was signed, and then the real one.
    socket.say(0, 2, { t: "voucher", ...usage, meter_signature: await consumer.sign({ hash }) });
    const more = { cumulative: cumulative + 1n, evidence };
    const overMore = await meter.sign({ hash: hasher.usage({ leaseId: leaseHash, ...more }) });
    socket.say(0, 2, {
      t: "voucher",
      cumulative: more.cumulative.toString(),
      evidence,
      meter_signature: overMore,
    });
    socket.say(0, 2, { t: "voucher", ...usage, meter_signature: genuine });
    await expect.poll(held).toHaveLength(1);
    expect(entries.filter((entry) => entry.event === "voucher.refused")).toHaveLength(2);
    const [voucher] = await held();
    expect(voucher).toMatchObject({ id: lease, kind: "settle", cumulative, signatures: { meter: genuine } });
    if (voucher?.kind !== "settle") throw new Error("no settlement");
    expect(await recoverSigner(hash, voucher.signatures.provider ?? "")).toBe(NODE);
    expect(voucher.allowance?.cumulative).toBe(500_000n);

    socket.close(CLOSE.gone);
    await expect.poll(() => readdir(join(folder, "leases"))).toEqual([]);
    expect(await held(), "the edge's word is not the chain's").toEqual([voucher]);

    // At its next start the chain says that the lease is closed: nothing can come of the voucher any more.
    await running[0]?.kill();
    edge.chain.status = "closed";
    await start();
    await expect.poll(held).toEqual([]);
  });

  test("a hold whose text is not what the terms commit to, or whose card another hold has, is declined", async () => {
    await start();
    const { control } = await online();
    const resources = { gpus: 1, cpu: 0, memory_gb: 0 };
    const ask = (seq: number, agreed: LeaseTerms, text = textWith()) =>
      control.say(seq, 0, {
        t: "hold",
        hold: leaseOf(agreed).id,
        resources,
        terms: z.encode(LeaseTermsWire, agreed),
        text,
        expires_at: soon(),
      });
    ask(1, terms, textWith({ region: "eu-west" }));
    expect((await control.next("declined")).reason).toMatch(/^text_mismatch/);
    ask(2, terms);
    await control.next("held");
    ask(3, { ...terms, feeBps: 1 });
    expect((await control.next("declined")).reason).toMatch(/^no_capacity/);
    control.say(4, 3, { t: "release", hold: lease });
    ask(5, { ...terms, feeBps: 2 });
    await control.next("held");
  });

  test("a hold below the price is declined with the reason", async () => {
    await start({ prices: { gpu_hour: "3.61" } });
    const { control } = await online();
    control.say(1, 0, {
      t: "hold",
      hold: lease,
      resources: { gpus: 1, cpu: 0, memory_gb: 0 },
      terms: wire(),
      text: textWith(),
      expires_at: soon(),
    });
    expect((await control.next("declined")).reason).toMatch(/^price_too_low/);
  });

  test("a lease that the chain does not know as open is refused before any work", async () => {
    edge.chain.status = "exiting";
    await start();
    const { socket } = await opened();
    socket.say(1, 0, await runFrame(1));
    expect(await socket.next("refused")).toMatchObject({
      what: "lease",
      reason: "on chain the lease is exiting",
    });
    expect(await socket.next("failed")).toMatchObject({ code: "terms_refused", ms: 0 });
    expect(executor.jobs).toEqual([]);
  });

  test.each([
    { why: "no allowance", change: { allowance: undefined }, detail: /allows 0.00 USDC/ },
    {
      why: "an allowance below what is committed",
      change: { committed: "500001" },
      detail: /allows 0.50 USDC/,
    },
    {
      why: "an allowance of another key",
      change: { allowance: { cumulative: "500000", signature: `0x${"11".repeat(65)}` as const } },
      detail: /not signed by the lease's consumer/,
    },
  ])("a job with $why is not begun", async ({ change, detail }) => {
    await start();
    const { socket } = await opened();
    socket.say(1, 0, { ...(await runFrame(1)), ...change });
    const failed = await socket.next("failed");
    expect(failed).toMatchObject({ code: "terms_refused", ms: 0 });
    expect(failed.detail).toMatch(detail);
    expect(executor.jobs).toEqual([]);
  });

  test("a false bill is refused, and nothing is signed", async () => {
    await start();
    const { socket } = await opened();
    const run = await runFrame(1);
    socket.say(1, 0, run);
    await executor.started(1);
    executor.jobs[0]?.end();
    await socket.next("started");
    const result = await socket.next("result");
    const { receipt, evidence } = await billOf(run.job, result.ms + 5_000);
    const usage = { cumulative: receipt.cumulative.toString(), evidence };
    socket.say(2, 2, { t: "settle", usage, receipts: [z.encode(ReceiptWire, receipt)] });
    expect(await socket.next("refused")).toMatchObject({ what: "settle" });
  });

  test("an unknown object fails the job as the platform's fault, a bad manifest as the tenant's", async () => {
    await start();
    const { socket } = await opened();
    socket.say(1, 0, { ...(await runFrame(1)), function: "ab".repeat(32) });
    expect(await socket.next("failed")).toMatchObject({ code: "object_unavailable", ms: 0 });
    const broken = await edge.putObject(new TextEncoder().encode("{"));
    socket.say(2, 1, { ...(await runFrame(2)), function: broken });
    expect(await socket.next("failed")).toMatchObject({ code: "manifest_invalid", ms: 0 });
  });

  test("no job is begun while more was delivered than `max_unsecured` without the meter's signature", async () => {
    await start({ max_unsecured: "0" });
    const { socket } = await opened();
    socket.say(1, 0, await runFrame(1));
    await executor.started(1);
    await socket.next("started");
    // A base unit a millisecond: by the clock that the agent measures with, something was delivered.
    const began = performance.now();
    while (performance.now() - began < 2) await new Promise((resolve) => setImmediate(resolve));
    executor.jobs[0]?.end();
    const { job, ms } = await socket.next("result");
    socket.say(2, 2, await runFrame(2, { committed: "200000" }));
    await expect.poll(() => entries.filter((entry) => entry.event === "job.held")).toHaveLength(1);
    expect(executor.jobs).toHaveLength(1);

    const { receipt, evidence } = await billOf(job, ms);
    const usage = { cumulative: receipt.cumulative.toString(), evidence };
    socket.say(3, 2, { t: "settle", usage, receipts: [z.encode(ReceiptWire, receipt)] });
    await socket.next("signed");
    expect(executor.jobs).toHaveLength(1);
    const hash = hasher.usage({ leaseId: leaseHash, cumulative: receipt.cumulative, evidence });
    socket.say(0, 3, { t: "voucher", ...usage, meter_signature: await meter.sign({ hash }) });
    await executor.started(2);
  });

  test.each([
    ["through its lease, with its attempt and hash", null],
    ["into the store, where the lease does not take it", 404],
    ["into the store, where the lease breaks off", 500],
  ])("BLK-3 an output that no frame could hold is uploaded %s", async (_, refuseWith) => {
    await start();
    edge.refuseOutputsWith = refuseWith;
    const { socket } = await opened();
    const run = await runFrame(1, { attempt: { epoch: 3, n: 2 } });
    socket.say(1, 0, run);
    await executor.started(1);
    const bytes = new Uint8Array(FRAME_LIMIT + 1).fill(7);
    const outputs = [
      { name: "small", contentType: "text/plain", bytes: IMAGE },
      { name: "large", contentType: "image/png", bytes },
    ];
    executor.jobs[0]?.end({ ok: true, outputs, wallMs: 1, gpuMs: 1 });
    await socket.next("started");
    const result = await socket.next("result");
    const [small, large] = [await sha256Hex(IMAGE), await sha256Hex(bytes)];
    expect(result.outputs.map(({ sha256 }) => sha256)).toEqual([small, large]);
    const path = `/v1/agent/leases/${lease}/jobs/${run.job}/outputs/1?epoch=3&attempt=2&sha256=${large}`;
    expect(edge.outputs.has(path)).toBe(refuseWith === null);
    expect(edge.objects.has(large)).toBe(refuseWith !== null);
    expect(edge.objects.has(small)).toBe(true);
  });

  test("a cancel stops the executor and says so; a repeated run of a known attempt runs nothing", async () => {
    await start();
    const { socket } = await opened();
    const run = await runFrame(1);
    socket.say(1, 0, run);
    await socket.next("started");
    socket.say(2, 1, run);
    const { job, attempt } = run;
    socket.say(3, 1, { t: "cancel", job, attempt, reason: "test" });
    const stopped = await socket.next("stopped");
    expect(stopped).toMatchObject({ job });
    socket.say(4, stopped.seq, run);
    expect(await socket.next("stopped")).toMatchObject({ job, ms: stopped.ms });
    expect(executor.jobs.length).toBe(1);
  });
});

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

  test("a lease that the welcome does not list is forgotten", async () => {
    await start();
    const { control } = await opened();
    control.cut();
    await online([]);
    await expect.poll(() => readdir(join(folder, "leases"))).toEqual([]);
  });
});

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
});

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
});
