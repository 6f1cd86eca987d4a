import { performance } from "node:perf_hooks";
import type { JobFailureCode } from "@gpux/protocol/errors";
import { FRAME_LIMIT, type ToLease } from "@gpux/protocol/frames";
import type { Checkpoint, Output } from "@gpux/protocol/job";
import { checkManifest, type Limits } from "@gpux/protocol/manifest";
import type { ExecutionInput, ExecutionOutput, Executor, FunctionJob } from "../executors/executor.ts";
import { sha256Of } from "./digest.ts";
import type { Objects, OutputPlace } from "./objects.ts";

/** One job as the edge gives it, alone (`run`) or with others (`runs`). */
export type Run = Extract<ToLease, { t: "runs" }>["runs"][number];

/** How an attempt ended; `ms` is what it ran on the executor, by this machine's monotonic clock. */
export type AttemptEnd =
  | { t: "result"; ms: number; outputs: Output[] }
  | { t: "failed"; ms: number; code: JobFailureCode; detail: string }
  | { t: "yielded"; ms: number; checkpoint: Checkpoint }
  | { t: "stopped"; ms: number };

export type Prepared = { ok: true; job: FunctionJob } | { ok: false; code: JobFailureCode; detail: string };

/** A packed function is a manifest with its WGSL: 16 modules of at most 256 KiB, and JSON around them. */
const MANIFEST_BYTES = 8 * 2 ** 20;

/** Before its buffers a checkpoint has their names and the place in the passes. */
const CHECKPOINT_HEAD_BYTES = 16 * 2 ** 10;

/** Fetches and checks what a job needs before it may take a place on the executor. Rejects only when aborted. */
export type Preparation = (
  run: Pick<Run, "function" | "inputs" | "execution_ms" | "checkpoint">,
  signal: AbortSignal,
) => Promise<Prepared>;

export function createPreparation(objects: Pick<Objects, "get">, limits: Limits): Preparation {
  // By the very bytes, which the object cache keeps: a warm function is read and checked once.
  const known = new WeakMap<Uint8Array, ReturnType<typeof checkManifest>>();
  const check = (packed: Uint8Array) => {
    const checked = known.get(packed) ?? checkManifest(parseJson(packed), limits);
    known.set(packed, checked);
    return checked;
  };

  return async (run, signal) => {
    const packed = await objects.get(run.function, MANIFEST_BYTES, signal);
    if (!packed.ok) return packed;
    const checked = check(packed.bytes);
    if (!checked.ok)
      return { ok: false, code: checked.code, detail: `${checked.pointer}: ${checked.detail}` };

    const inputs: Record<string, ExecutionInput> = {};
    let bytesLeft = limits.inputBytes;
    for (const [name, value] of Object.entries(run.inputs)) {
      if ("number" in value) {
        inputs[name] = { kind: "number", value: value.number };
        continue;
      }
      if ("json" in value) {
        inputs[name] = { kind: "json", value: value.json };
        continue;
      }
      const found =
        "base64" in value
          ? ({ ok: true, bytes: new Uint8Array(Buffer.from(value.base64, "base64")) } as const)
          : await objects.get(value.object, bytesLeft, signal);
      if (!found.ok) return { ok: false, code: found.code, detail: `inputs.${name}: ${found.detail}` };
      bytesLeft -= found.bytes.length;
      if (bytesLeft < 0)
        return { ok: false, code: "limit_exceeded", detail: `the inputs exceed ${limits.inputBytes} bytes` };
      inputs[name] = { kind: "bytes", bytes: found.bytes };
    }
    const wallMs = Math.min(limits.wallMs, run.execution_ms);
    const job = { manifest: checked.manifest, inputs, limits: { ...limits, wallMs } };
    if (!run.checkpoint) return { ok: true, job };
    // One that is not to be had is no fault of the tenant's: his job begins at the beginning, with the time that is left.
    const most = Math.min(run.checkpoint.bytes, limits.outputBytes + CHECKPOINT_HEAD_BYTES);
    const state = await objects.get(run.checkpoint.sha256, most, signal);
    return { ok: true, job: state.ok ? { ...job, resume: state.bytes } : job };
  };
}

export interface ExecutionListener {
  started(): void;
  progress(fraction: number, note: string | undefined): void;
  log(line: string): void;
}

export type Executed =
  | { t: "done"; ms: number; outputs: ExecutionOutput[] }
  | { t: "paused"; ms: number; state: Uint8Array }
  | Extract<AttemptEnd, { t: "failed" | "stopped" }>;

/** Runs a prepared job on the executor and measures it. Never rejects for what the job does. */
export async function execute(
  executor: Executor<FunctionJob>,
  job: FunctionJob,
  on: ExecutionListener,
  signal: AbortSignal,
  pause?: AbortSignal,
): Promise<Executed> {
  let startedAt: number | null = null;
  const result = await executor.run(
    job,
    {
      started: () => {
        startedAt = performance.now();
        on.started();
      },
      progress: (fraction, note) => on.progress(fraction, note),
      log: (line) => on.log(line),
    },
    signal,
    pause,
  );
  const ms = startedAt === null ? 0 : Math.round(performance.now() - startedAt);
  if (result.ok) return { t: "done", ms, outputs: result.outputs };
  if (result.code === "paused") return { t: "paused", ms, state: result.state };
  if (result.code === "canceled") return { t: "stopped", ms };
  return { t: "failed", ms, code: result.code, detail: result.detail };
}

/** Outputs above this go through the lease, to whoever waits for them there: more than a frame could hold. */
const BULK_BYTES = FRAME_LIMIT;

/** Puts the outputs where the consumer can fetch them; `of`: whose they are. Rejects only when aborted. */
export async function upload(
  objects: Objects,
  of: Omit<OutputPlace, "n">,
  ms: number,
  outputs: readonly ExecutionOutput[],
  signal: AbortSignal,
): Promise<Extract<AttemptEnd, { t: "result" | "failed" }>> {
  const stored = await Promise.all(
    outputs.map(async ({ name, contentType, bytes }, n) => {
      const sha256 = await sha256Of(bytes);
      const put =
        bytes.length > BULK_BYTES
          ? await objects.putOutput({ ...of, n }, sha256, bytes, contentType, signal)
          : await objects.put(sha256, bytes, contentType, signal);
      return { put, output: { name, content_type: contentType, bytes: bytes.length, sha256 } };
    }),
  );
  for (const { put } of stored)
    if (!put.ok) return { t: "failed", ms, code: "executor_failed", detail: `upload: ${put.detail}` };
  return { t: "result", ms, outputs: stored.map(({ output }) => output) };
}

/** Puts what a paused job has done where the next attempt can fetch it; null when that cannot be. Rejects only when aborted. */
export async function keep(
  objects: Pick<Objects, "put">,
  state: Uint8Array,
  signal: AbortSignal,
): Promise<Checkpoint | null> {
  const sha256 = await sha256Of(state);
  const put = await objects.put(sha256, state, "application/octet-stream", signal);
  return put.ok ? { sha256, bytes: state.length } : null;
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    // Not JSON: checkManifest says so to the tenant.
    return undefined;
  }
}
