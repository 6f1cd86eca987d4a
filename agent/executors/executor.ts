import type { FunctionManifest, Limits } from "@gpux/protocol/manifest";

/** A value for one input of a function. JSON and images may come as the bytes of a file. */
export type ExecutionInput =
  | { kind: "number"; value: number }
  | { kind: "json"; value: unknown }
  | { kind: "bytes"; bytes: Uint8Array };

/** A function with its inputs by name. The executor checks both; nothing in it is trusted. */
export type FunctionJob = {
  manifest: FunctionManifest;
  inputs: Readonly<Record<string, ExecutionInput>>;
  limits: Limits;
  /** The state of a run of this job that was paused, to go on from; what is none of it is passed over. */
  resume?: Uint8Array;
};

export type ExecutionOutput = { name: string; contentType: string; bytes: Uint8Array };

/** The WGSL compiler's word on one place; line and column count from 1. */
export type Diagnostic = { module: string; line: number; column: number; message: string };

/**
 * Each code has one fault: what the tenant sent (never charged before `running`, charged as failed after it) or what
 * the provider's machine did. The edge's error table knows every one of them.
 */
export const EXECUTION_FAULTS = {
  manifest_invalid: "tenant",
  input_invalid: "tenant",
  wgsl_invalid: "tenant",
  limit_exceeded: "tenant",
  execution_timeout: "tenant",
  canceled: "tenant",
  device_lost: "provider",
  executor_failed: "provider",
} as const;
export type ExecutionCode = keyof typeof EXECUTION_FAULTS;

export type ExecutionFailure = {
  ok: false;
  code: ExecutionCode;
  fault: "tenant" | "provider";
  /** For the tenant to read, at most 4,000 characters; holds nothing of the provider's machine. */
  detail: string;
  diagnostics?: Diagnostic[];
  /** Milliseconds from the start of the job to its failure; 0 when it never started. */
  wallMs: number;
};

export type ExecutionSuccess = {
  ok: true;
  /** In the order of the manifest. */
  outputs: ExecutionOutput[];
  /** Milliseconds from the start of the job to its last output. */
  wallMs: number;
  /** Milliseconds of it from the first command given to the GPU to the last one done. */
  gpuMs: number;
};

/** Broken off where it can go on: what it has done is in `state`, which another machine can `resume`. */
export type ExecutionPaused = {
  ok: false;
  code: "paused";
  state: Uint8Array;
  /** Milliseconds from the start of the job until its state was read. */
  wallMs: number;
};

export type ExecutionResult = ExecutionSuccess | ExecutionPaused | ExecutionFailure;

/** What a job tells while it runs. Calls come in order, and none after `run` has resolved. */
export type ExecutionEvents = {
  /** The job has left the executor's queue and its wall clock runs. */
  started?: () => void;
  /** From 0 to 1, never backwards; `note` is for people ("sample 12 of 64"). */
  progress?: (fraction: number, note?: string) => void;
  /** One line, for the tenant. */
  log?: (line: string) => void;
};

/** The device that jobs run on, as the offer shows it. */
export type ExecutorDescription = {
  adapter: string;
  vendor: string;
  architecture: string;
  /** `vulkan`, `metal`, `d3d12`; empty where the driver does not say. */
  backend: string;
  /** True when a CPU does the work (SwiftShader, WARP, lavapipe). */
  software: boolean;
  maxBufferBytes: number;
  maxBindingBytes: number;
  /** `webgpu`, and what the device was opened with beyond it (WebGPU's names: `shader-f16`, ...). */
  features: string[];
};

/**
 * What the supervisor sees of any executor (WebGPU functions, containers, services).
 *
 * `run` never rejects for what a job does: every end is a value. Jobs given at once run one after another. Aborting
 * `signal` ends the job with `canceled`, at once and whatever it is doing. Aborting `pause` asks for its state: it ends
 * with `paused` at the next place where it can go on from, or as it would have if there is none. `describe` may take the seconds that the
 * device needs to start; it throws when the machine has none that works. `close` ends a running job with
 * `executor_failed` and frees every process; it may be called twice.
 */
export type Executor<Job> = {
  describe(): Promise<ExecutorDescription>;
  run(job: Job, on: ExecutionEvents, signal: AbortSignal, pause?: AbortSignal): Promise<ExecutionResult>;
  /** The GPU is taken back in so long, for executors that must prepare for it beyond their jobs' `pause`. */
  yieldSoon?(noticeMs: number): void;
  close(): Promise<void>;
};

/** A failure with the fault that belongs to its code. */
export function executionFailure(
  code: ExecutionCode,
  detail: string,
  wallMs = 0,
  diagnostics?: Diagnostic[],
): ExecutionFailure {
  const failure: ExecutionFailure = {
    ok: false,
    code,
    fault: EXECUTION_FAULTS[code],
    detail: detail.slice(0, 4_000),
    wallMs,
  };
  return diagnostics ? { ...failure, diagnostics } : failure;
}
