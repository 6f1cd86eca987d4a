/**
 * The process that GPU jobs run in. It holds the device and the compiled functions, reads everything that a tenant
 * sent, and can be killed at any moment: it writes nothing and knows no secret (its environment is an allow-list).
 * Started by child-process.ts and talks to it over Node's IPC channel only.
 */
import { checkManifest, functionAddress } from "@gpux/protocol/manifest";
import type { FunctionJob } from "../executor.ts";
import { encodeCheckpoint, readCheckpoint, stateBytes } from "./checkpoint.ts";
import { openDevice } from "./device.ts";
import { dispatch } from "./dispatch.ts";
import { bindInputs } from "./inputs.ts";
import type { ChildMessage, ChildOutcome, ParentMessage } from "./messages.ts";
import { planJob } from "./plan.ts";
import { ProgramCache } from "./program.ts";

/** Progress closer together than this tells nobody anything, and costs a frame each on the way to the consumer. */
const PROGRESS_EVERY_MS = 50;

// A parent that was killed cannot tell; its end of the channel closes. exit() would wait for Dawn to finish a shader
// that may never end.
process.on("disconnect", () => process.kill(process.pid, "SIGKILL"));

function tell(message: ChildMessage): Promise<void> {
  return new Promise((resolve) => process.send?.(message, undefined, {}, () => resolve()));
}

const opened = await openDevice().catch((error: unknown) => {
  console.error(error);
  return undefined;
});
if (!opened) {
  await tell({ t: "no_adapter", detail: "no adapter that WebGPU can use" });
  process.disconnect();
} else {
  serve(opened.device);
  await tell({ t: "ready", description: opened.description });
}

type Paused = { paused: Uint8Array };

function serve(device: GPUDevice): void {
  const programs = new ProgramCache(device);
  let current = 0;
  let paused = 0;
  process.on("message", async (message: ParentMessage) => {
    const { id } = message;
    if (message.t === "pause") {
      paused = id;
      return;
    }
    current = id;
    const executed = execute(device, programs, message, () => paused === id);
    const outcome = await executed.catch((error: unknown): ChildOutcome => {
      // The log is the provider's; what the tenant reads must say nothing of the machine.
      console.error(error);
      return { ok: false, code: "executor_failed", detail: "the executor failed while it ran the job" };
    });
    await tell("paused" in outcome ? { t: "paused", id, state: outcome.paused } : { t: "done", id, outcome });
  });
  device.lost.then(async ({ message }) => {
    console.error(`device lost: ${message}`);
    const outcome: ChildOutcome = { ok: false, code: "device_lost", detail: "the GPU device was lost" };
    await tell({ t: "done", id: current, outcome });
    process.kill(process.pid, "SIGKILL");
  });
}

async function execute(
  device: GPUDevice,
  programs: ProgramCache,
  { id, job }: Extract<ParentMessage, { t: "run" }>,
  isPaused: () => boolean,
): Promise<ChildOutcome | Paused> {
  const checked = checkManifest(job.manifest, job.limits);
  if (!checked.ok) {
    return {
      ok: false,
      code: checked.code,
      detail: `${checked.pointer || "the manifest"}: ${checked.detail}`,
    };
  }
  const sound: FunctionJob = { ...job, manifest: checked.manifest };
  const bound = bindInputs(sound);
  if (!bound.ok) return bound;
  const plan = planJob(sound, bound);
  if (!plan.ok) return plan;
  const program = await programs.compile(checked.manifest);
  if (!program.ok) return program;

  const address = await functionAddress(checked.manifest);
  // What is no checkpoint of this job is none: then it begins at the beginning.
  const from = job.resume === undefined ? null : readCheckpoint(job.resume, address, plan);
  // More than one object holds is not kept.
  const mayPause = stateBytes(plan) <= job.limits.outputBytes;
  let last = Number.NEGATIVE_INFINITY;
  const result = await dispatch(device, program.pipelines, plan, {
    from: from ?? undefined,
    isPaused: () => mayPause && isPaused(),
    progress(fraction, note) {
      const now = performance.now();
      if (now - last < PROGRESS_EVERY_MS && fraction < 1) return;
      last = now;
      void tell({ t: "progress", id, fraction, ...(note === undefined ? {} : { note }) });
    },
  });
  return "paused" in result ? { paused: encodeCheckpoint(address, result.paused) } : result;
}
