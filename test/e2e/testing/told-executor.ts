import {
  type ExecutionResult,
  type Executor,
  executionFailure,
  type FunctionJob,
} from "@gpux/agent/executors/executor";

/** What an executor of this kind saw, by the machine's clock in ms. `job`: the number that the job has as its input. */
export type Sight =
  | { readonly what: "began" | "ended" | "stopped"; readonly job: number; readonly at: number }
  | { readonly what: "notice"; readonly at: number };

export interface ToldExecutor extends Executor<FunctionJob> {
  /** These end well now; of those that do not run nothing happens. */
  end(jobs: readonly number[]): void;
}

/** A number for the function {@link ECHO}, whose jobs last until they are told to end, and cost the machine nothing. */
export function createToldExecutor(tell: (sight: Sight) => void): ToldExecutor {
  const running = new Map<number, (result: ExecutionResult) => void>();
  return {
    async describe() {
      return {
        adapter: "Told Simulation",
        vendor: "",
        architecture: "none",
        backend: "",
        software: true,
        maxBufferBytes: 2 ** 28,
        maxBindingBytes: 2 ** 27,
        features: ["webgpu"],
      };
    },
    async run({ inputs }, on, signal) {
      const value = inputs.value;
      if (value?.kind !== "number") return executionFailure("input_invalid", "value is a number");
      if (signal.aborted) return executionFailure("canceled", "stopped before it began");
      const job = value.value;
      const startedAt = Date.now();
      tell({ what: "began", job, at: startedAt });
      on.started?.();
      const result = await new Promise<ExecutionResult>((resolve) => {
        running.set(job, resolve);
        signal.addEventListener("abort", () => resolve(executionFailure("canceled", "stopped")), {
          once: true,
        });
      });
      running.delete(job);
      tell({ what: result.ok ? "ended" : "stopped", job, at: Date.now() });
      return { ...result, wallMs: Date.now() - startedAt };
    },
    yieldSoon: () => tell({ what: "notice", at: Date.now() }),
    end(jobs) {
      for (const job of jobs) running.get(job)?.({ ok: true, outputs: [], wallMs: 0, gpuMs: 0 });
    },
    async close() {
      for (const resolve of running.values())
        resolve(executionFailure("executor_failed", "the executor closed"));
    },
  };
}
