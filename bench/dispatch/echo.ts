import { randomFillSync } from "node:crypto";
import {
  type ExecutionOutput,
  type ExecutionResult,
  type Executor,
  executionFailure,
  type FunctionJob,
} from "@gpux/agent/executors/executor";
import { type Executed, execute, type Preparation } from "@gpux/agent/leases/job";
import { Sha256 } from "@gpux/protocol/ids";
import { InputValue } from "@gpux/protocol/job";
import type { FunctionManifest } from "@gpux/protocol/manifest";
import { z } from "zod";

/** What every job takes in, and an echo gives back. */
export const PAYLOAD_BYTES = 256;

/** Of a large output: as much as one job may give. */
export const BULK_BYTES = 64 * 2 ** 20;

/**
 * The function that the bench runs; all forms keep to every rule, and no GPU ever sees them. `echo`: its output is
 * its input; `bulk`: {@link BULK_BYTES}; else a buffer of its own, of which {@link createEchoExecutor} gives nothing back.
 */
export function echoManifest(gives: "echo" | "sink" | "bulk"): FunctionManifest {
  const bytes = gives === "bulk" ? BULK_BYTES : PAYLOAD_BYTES;
  return {
    version: 1,
    name: `bench-${gives}`,
    description: "Takes bytes in and does nothing with them.",
    inputs: { data: { kind: "array", type: "u8", maxLength: PAYLOAD_BYTES, length: PAYLOAD_BYTES } },
    buffers: {
      data: { kind: "storage", from: "input", input: "data" },
      scratch: { kind: "storage", from: "zero", bytes },
    },
    modules: {
      main: [
        "@group(0) @binding(0) var<storage, read_write> data: array<u32>;",
        "@group(0) @binding(1) var<storage, read_write> scratch: array<u32>;",
        "@compute @workgroup_size(1) fn nothing() { scratch[0] = data[0]; }",
      ].join("\n"),
    },
    passes: [
      {
        module: "main",
        entryPoint: "nothing",
        bindings: [
          { group: 0, binding: 0, buffer: "data" },
          { group: 0, binding: 1, buffer: "scratch" },
        ],
        workgroups: [1, 1, 1],
      },
    ],
    outputs: [
      {
        name: "out",
        kind: "array",
        buffer: gives === "echo" ? "data" : "scratch",
        type: "u8",
        length: bytes,
      },
    ],
  };
}

let bulk: Uint8Array | null = null;

/** The same in all jobs of a process: to make other ones would cost more than to send them. */
function bulkBytes(): Uint8Array {
  bulk ??= randomFillSync(new Uint8Array(BULK_BYTES));
  return bulk;
}

/**
 * Takes the GPU out of the picture: a job ends at once, and its outputs are those of its inputs that it names, or bytes
 * that were there before.
 */
export function createEchoExecutor(): Executor<FunctionJob> {
  return {
    async describe() {
      return {
        adapter: "Bench Echo",
        vendor: "",
        architecture: "none",
        backend: "",
        software: true,
        maxBufferBytes: 2 ** 28,
        maxBindingBytes: 2 ** 27,
        features: ["webgpu"],
      };
    },
    async run({ manifest, inputs }, on, signal): Promise<ExecutionResult> {
      if (signal.aborted) return executionFailure("canceled", "aborted before it began");
      on.started?.();
      const outputs: ExecutionOutput[] = [];
      for (const { name, kind, ...output } of manifest.outputs) {
        const buffer = kind === "array" && "buffer" in output ? manifest.buffers[output.buffer] : undefined;
        const input = buffer?.from === "input" ? inputs[buffer.input] : undefined;
        if (input?.kind === "bytes")
          outputs.push({ name, contentType: "application/octet-stream", bytes: input.bytes });
        if (buffer?.from === "zero" && buffer.bytes === BULK_BYTES)
          outputs.push({ name, contentType: "application/octet-stream", bytes: bulkBytes() });
      }
      return { ok: true, outputs, wallMs: 0, gpuMs: 0 };
    },
    async close() {},
  };
}

const PlainJob = z.strictObject({
  function: Sha256,
  inputs: z.record(z.string().max(64), InputValue),
  execution_ms: z.int().min(1),
});

const quiet = { started() {}, progress() {}, log() {} };

/** The agent's own way of preparing and executing a job, with nothing around it. */
export function createExecution(
  prepare: Preparation,
  executor: Executor<FunctionJob>,
): (body: Uint8Array) => Promise<Executed | { readonly t: "unprepared"; code: string; detail: string }> {
  const { signal } = new AbortController();
  return async (body) => {
    const run = PlainJob.parse(JSON.parse(new TextDecoder().decode(body)));
    const prepared = await prepare(run, signal);
    if (!prepared.ok) return { t: "unprepared", code: prepared.code, detail: prepared.detail };
    return execute(executor, prepared.job, quiet, signal);
  };
}

/** What the servers that GPUX is measured against do with a request's body. Outputs stand in the answer. */
export function createPlainWork(
  prepare: Preparation,
  executor: Executor<FunctionJob>,
): (body: Uint8Array) => Promise<string> {
  const run = createExecution(prepare, executor);
  return async (body) => {
    const executed = await run(body);
    if (executed.t === "unprepared")
      return JSON.stringify({ status: "failed", code: executed.code, detail: executed.detail });
    if (executed.t !== "done") return JSON.stringify({ status: "failed", ms: executed.ms });
    const outputs = executed.outputs.map(({ name, contentType, bytes }) => ({
      name,
      content_type: contentType,
      base64: Buffer.from(bytes).toString("base64"),
    }));
    return JSON.stringify({ status: "succeeded", ms: executed.ms, outputs });
  };
}
