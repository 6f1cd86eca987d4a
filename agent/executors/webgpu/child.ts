/**
 * The process that GPU jobs run in. It holds the device and the compiled functions, reads everything that a tenant
 * sent, and can be killed at any moment: it writes nothing and knows no secret (its environment is an allow-list).
 * Started by child-process.ts and talks to it over Node's IPC channel only.
 */
import { checkManifest } from "@gpux/protocol/manifest";
import type { FunctionJob } from "../executor.ts";
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

function serve(device: GPUDevice): void {
  const programs = new ProgramCache(device);
  let current = 0;
  process.on("message", async (message: ParentMessage) => {
    current = message.id;
    const outcome = await execute(device, programs, message).catch((error: unknown): ChildOutcome => {
      // The log is the provider's; what the tenant reads must say nothing of the machine.
      console.error(error);
      return { ok: false, code: "executor_failed", detail: "the executor failed while it ran the job" };
    });
    await tell({ t: "done", id: message.id, outcome });
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
  { id, job }: ParentMessage,
): Promise<ChildOutcome> {
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

  let last = Number.NEGATIVE_INFINITY;
  return dispatch(device, program.pipelines, plan, (fraction, note) => {
    const now = performance.now();
    if (now - last < PROGRESS_EVERY_MS && fraction < 1) return;
    last = now;
    void tell({ t: "progress", id, fraction, ...(note === undefined ? {} : { note }) });
  });
}
