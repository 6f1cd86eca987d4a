import type { ToNode } from "@gpux/protocol/frames";
import { checkManifest, type Limits } from "@gpux/protocol/manifest";
import type { ExecutionInput, Executor, FunctionJob } from "../executors/executor.ts";
import type { Slots } from "../leases/slots.ts";
import type { NodeBody } from "../link/frames.ts";

/** What may be asked of the GPU unpaid: so much of each hour. Milliseconds. */
const HOUR_MS = 3_600_000;
const MOST_MS = 60_000;
/** An answer is one frame. */
const OUTPUT_BYTES = 33 * 1024;

export type Answer = Extract<NodeBody, { t: "proof" | "unproven" }>;

/** Answers challenges: the edge's questions of what this GPU can do, which nobody pays for. */
export interface Challenges {
  /** Never rejects; what cannot be answered is answered by why. */
  answer(frame: Extract<ToNode, { t: "challenge" }>): Promise<Answer>;
  /** Breaks off one that runs. */
  close(): void;
}

export function createChallenges(
  { executor, slots, limits }: { executor: Executor<FunctionJob>; slots: Slots; limits: Limits },
  now: () => number,
): Challenges {
  const closing = new AbortController();
  let spent: { at: number; ms: number }[] = [];

  async function run(frame: Extract<ToNode, { t: "challenge" }>): Promise<Uint8Array | string> {
    const checked = checkManifest(frame.function, limits);
    if (!checked.ok) return `${checked.pointer}: ${checked.detail}`;
    const inputs = Object.entries(frame.inputs).map(([name, value]): [string, ExecutionInput] => [
      name,
      { kind: "number", value },
    ]);
    const wallMs = Math.min(limits.wallMs, frame.execution_ms);
    const job = {
      manifest: checked.manifest,
      inputs: Object.fromEntries(inputs),
      limits: { ...limits, wallMs, outputBytes: OUTPUT_BYTES },
    };
    const result = await executor.run(job, {}, closing.signal);
    if (result.ok) return result.outputs[0]?.bytes ?? "the function has no output";
    return result.code === "paused" ? result.code : `${result.code}: ${result.detail}`;
  }

  return {
    async answer(frame) {
      const { challenge } = frame;
      const no = (reason: string): Answer => ({ t: "unproven", challenge, reason: reason.slice(0, 200) });
      const began = now();
      spent = spent.filter(({ at }) => at > began - HOUR_MS);
      if (spent.reduce((sum, { ms }) => sum + ms, 0) >= MOST_MS) return no("asked too much of this hour");
      const giveBack = slots.takeFree();
      if (giveBack === null) return no("busy");
      try {
        const made = await run(frame);
        if (typeof made === "string") return no(made);
        return { t: "proof", challenge, output: Buffer.from(made).toString("base64") };
      } catch (error) {
        return no(error instanceof Error ? error.message : "failed");
      } finally {
        giveBack();
        spent.push({ at: began, ms: now() - began });
      }
    },
    close: () => closing.abort(),
  };
}
