import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { canonicalJson, sha256Hex } from "@gpux/protocol/canonical";
import type { LeaseTerms, Receipt } from "@gpux/protocol/eip712";
import { LeaseTerms as LeaseTermsWire } from "@gpux/protocol/eip712";
import type { JobId, LeaseId } from "@gpux/protocol/ids";
import { inputHash } from "@gpux/protocol/job";
import { append, emptyFrontier, root } from "@gpux/protocol/merkle";
import { afterEach, beforeEach } from "vitest";
import { z } from "zod";
import { type RunningAgent, startAgent } from "../agent.ts";
import {
  type ExecutionResult,
  type Executor,
  executionFailure,
  type FunctionJob,
} from "../executors/executor.ts";
import { configWith, consumer, hasher, jobOf, leaseOf, NODE, termsWith, textWith } from "../fixtures.ts";
import { jobName } from "../leases/book.ts";
import type { LogEntry } from "../log.ts";
import { type ScriptedEdge, startScriptedEdge } from "../scripted-edge.ts";

export const NODE_KEY = `0x${"a1".repeat(32)}` as const;
export const RATE = 3_600_000n;
export const GPU = "SWIFTSHADER";
export const IMAGE = new TextEncoder().encode("an image");

export const manifest = {
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
export class ScriptedExecutor implements Executor<FunctionJob> {
  readonly jobs: { job: FunctionJob; pause: AbortSignal | undefined; end(result?: ExecutionResult): void }[] =
    [];
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

  run: Executor<FunctionJob>["run"] = (job, on, signal, pause) =>
    new Promise((resolve) => {
      on.started?.();
      const success: ExecutionResult = {
        ok: true,
        outputs: [{ name: "image", contentType: "application/octet-stream", bytes: IMAGE }],
        wallMs: 1,
        gpuMs: 1,
      };
      signal.addEventListener("abort", () => resolve(executionFailure("canceled", "", 1)));
      this.jobs.push({ job, pause, end: (result) => resolve(result ?? success) });
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

export let edge: ScriptedEdge;
export let folder: string;
export let executor: ScriptedExecutor;
export let running: RunningAgent[];
export let entries: LogEntry[];
export let terms: LeaseTerms;
export let lease: LeaseId;
export let leaseHash: `0x${string}`;
export let functionHash: string;

/** Each test of the file has an edge, a folder and a lease of its own; its agents are killed after it. */
export function setScene(): void {
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
}

export async function start(change: Parameters<typeof configWith>[0] = {}): Promise<RunningAgent> {
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

export const wire = () => z.encode(LeaseTermsWire, terms);
export const soon = () => new Date(Date.now() + edge.aheadMs + 30_000).toISOString();

/** Hello, welcome. */
export async function online(leases: LeaseId[] = []) {
  const control = await edge.control();
  const hello = await control.next("hello");
  control.say(0, 0, { t: "welcome", heartbeat_s: 25, leases });
  return { control, hello };
}

/** The agent's lease socket, welcomed. */
export async function leaseOnline(
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
export async function holding() {
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

export async function opened() {
  const control = await holding();
  control.say(2, 1, { t: "open", lease, terms: wire() });
  const { socket } = await leaseOnline();
  return { control, socket };
}

export async function runFrame(
  n: number,
  change: {
    committed?: string;
    attempt?: { epoch: number; n: number };
    checkpoint?: { sha256: string; bytes: number } | null;
    turn?: { priority: number; n: number };
  } = {},
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
export async function billOf(job: JobId, ms: number): Promise<{ receipt: Receipt; evidence: `0x${string}` }> {
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
