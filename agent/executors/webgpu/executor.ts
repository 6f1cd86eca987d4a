import {
  type ExecutionEvents,
  type ExecutionResult,
  type Executor,
  type ExecutorDescription,
  executionFailure,
  type FunctionJob,
} from "../executor.ts";
import { type GpuChild, startChild } from "./child-process.ts";
import { swiftShaderEnvironment, unpackSwiftShader } from "./swiftshader.ts";

export type WebGpuOptions = {
  /** Where the software driver is unpacked, once; created when missing. */
  cacheDir: string;
  /** `software` never looks at the machine's own GPU. */
  adapter?: "auto" | "software";
  /** Lines for the provider's log: what the GPU process and Dawn say. */
  log?: (line: string) => void;
};

/**
 * The executor of functions. One child process holds the device and stays warm between jobs; a time-out, a cancel or
 * a lost device kills it, and the next job starts another. Uses the machine's own adapter when it has one, else
 * SwiftShader.
 */
export function createWebGpuExecutor(options: WebGpuOptions): Executor<FunctionJob> {
  const log = options.log ?? (() => {});
  const closing = new AbortController();
  let child: GpuChild | undefined;
  let software = options.adapter === "software";
  let queue: Promise<unknown> = Promise.resolve();

  /** One at a time: a GPU shared by two jobs would give neither its time, and one kill would end both. */
  function inTurn<Value>(work: () => Promise<Value>): Promise<Value> {
    const turn = queue.then(work);
    queue = turn.catch(() => {});
    return turn;
  }

  async function warmChild(signal: AbortSignal): Promise<GpuChild | undefined> {
    if (child?.alive()) return child;
    for (;;) {
      const environment = software ? swiftShaderEnvironment(await unpackSwiftShader(options.cacheDir)) : {};
      const started = await startChild(environment, log, signal);
      if (started.ok) {
        child = started.child;
        return child;
      }
      if (started.reason === "aborted" || software) return undefined;
      log(`no GPU adapter that WebGPU can use (${started.reason}); jobs run on the CPU by SwiftShader`);
      software = true;
    }
  }

  async function attempt(
    job: FunctionJob,
    on: ExecutionEvents,
    signal: AbortSignal,
    pause: AbortSignal | undefined,
  ): Promise<ExecutionResult> {
    const stop = AbortSignal.any([signal, closing.signal]);
    const stopped = () =>
      signal.aborted
        ? executionFailure("canceled", "canceled before it ran")
        : executionFailure("executor_failed", "the executor is closing");
    if (stop.aborted) return stopped();
    let warm: GpuChild | undefined;
    try {
      warm = await warmChild(stop);
    } catch (error) {
      log(`no GPU process: ${error instanceof Error ? error.message : String(error)}`);
    }
    if (stop.aborted) return stopped();
    return warm
      ? supervise(warm, job, on, signal, pause)
      : executionFailure("executor_failed", "no GPU device could be opened");
  }

  async function supervise(
    warm: GpuChild,
    job: FunctionJob,
    on: ExecutionEvents,
    signal: AbortSignal,
    pause: AbortSignal | undefined,
  ): Promise<ExecutionResult> {
    const began = performance.now();
    let reached = 0;
    let killedFor: "canceled" | "execution_timeout" | "executor_failed" | undefined;
    const end = (reason: typeof killedFor) => {
      killedFor ??= reason;
      void warm.kill();
    };
    const canceled = () => end("canceled");
    const closed = () => end("executor_failed");
    const timer = setTimeout(() => end("execution_timeout"), job.limits.wallMs);
    signal.addEventListener("abort", canceled);
    closing.signal.addEventListener("abort", closed);
    const paused = () => warm.pause();
    on.started?.();
    const running = warm.run(job, (fraction, note) => {
      reached = Math.max(reached, fraction);
      on.progress?.(reached, note);
    });
    pause?.addEventListener("abort", paused);
    if (pause?.aborted) paused();
    const ended = await running;
    clearTimeout(timer);
    pause?.removeEventListener("abort", paused);
    signal.removeEventListener("abort", canceled);
    closing.signal.removeEventListener("abort", closed);
    // The process must be gone before the next job starts one, or the two would share the GPU.
    if (killedFor) await warm.kill();

    const wallMs = performance.now() - began;
    if (ended.t === "answered" && ended.outcome.ok) return { ...ended.outcome, wallMs };
    if (ended.t === "answered" && !ended.outcome.ok) {
      const { code, detail, diagnostics } = ended.outcome;
      return executionFailure(code, detail, wallMs, diagnostics);
    }
    if (ended.t === "paused") return { ok: false, code: "paused", state: ended.state, wallMs };
    switch (killedFor) {
      case "canceled":
        return executionFailure("canceled", "canceled while it ran", wallMs);
      case "execution_timeout":
        return executionFailure("execution_timeout", `killed after its ${job.limits.wallMs} ms`, wallMs);
      case "executor_failed":
        return executionFailure("executor_failed", "the executor is closing", wallMs);
      case undefined:
        return executionFailure("executor_failed", "the GPU process died while it ran the job", wallMs);
    }
  }

  return {
    describe(): Promise<ExecutorDescription> {
      return inTurn(async () => {
        const warm = await warmChild(closing.signal);
        if (!warm) throw new Error("no GPU device could be opened, not even the software one");
        return warm.description;
      });
    },

    run(job, on, signal, pause) {
      // A job that waits behind a long one is canceled at once, not at its turn (where attempt() answers the same).
      const early = Promise.withResolvers<ExecutionResult>();
      let started = false;
      const cancel = () => {
        if (!started) early.resolve(executionFailure("canceled", "canceled before it ran"));
      };
      if (signal.aborted) cancel();
      signal.addEventListener("abort", cancel);
      const begin = () => {
        started = true;
        on.started?.();
      };
      const queued = inTurn(() => attempt(job, { ...on, started: begin }, signal, pause));
      return Promise.race([queued, early.promise]).finally(() => signal.removeEventListener("abort", cancel));
    },

    async close() {
      closing.abort();
      await inTurn(async () => child?.kill());
    },
  };
}
