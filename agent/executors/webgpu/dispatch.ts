import type { ExecutionOutput } from "../executor.ts";
import { type Checkpoint, dispatchesBefore, isUntouched, type Position } from "./checkpoint.ts";
import { encodePng } from "./images.ts";
import type { Plan, PlannedOutput, PlannedPass } from "./plan.ts";

export type DispatchResult =
  | { ok: true; outputs: ExecutionOutput[]; gpuMs: number }
  | { ok: true; paused: Checkpoint }
  | { ok: false; code: "manifest_invalid" | "executor_failed"; detail: string };

/** Submissions that may be under way at once: enough to keep the GPU busy, few enough for honest progress. */
const IN_FLIGHT = 2;

export type DispatchOptions = {
  progress: (fraction: number, note?: string) => void;
  /** Where another run of the same job was broken off. */
  from?: Checkpoint | undefined;
  /** Asked between two dispatches: whether to stop there, once something new was done. */
  isPaused: () => boolean;
};

/**
 * Runs a plan: fills the buffers, one submission per repeat of each pass, reads the outputs back. Every buffer is
 * destroyed at the end, and WebGPU hands out zeroed memory, so a job finds nothing of the one before.
 */
export async function dispatch(
  device: GPUDevice,
  pipelines: readonly GPUComputePipeline[],
  plan: Plan,
  options: DispatchOptions,
): Promise<DispatchResult> {
  const buffers = new Map<string, GPUBuffer>();
  const staging: GPUBuffer[] = [];
  try {
    const full = await allocate(device, plan, buffers);
    if (full) return { ok: false, code: "executor_failed", detail: full };
    for (const [name, contents] of options.from?.buffers ?? [])
      write(device, bufferOf(buffers, name), contents);

    const began = performance.now();
    device.pushErrorScope("validation");
    const position = await runPasses(device, pipelines, plan, buffers, options);
    const problem = await device.popErrorScope();
    if (problem) return { ok: false, code: "manifest_invalid", detail: problem.message };
    if (position)
      return { ok: true, paused: { position, buffers: await readState(device, plan, buffers, staging) } };

    const outputs = await readBack(device, plan.outputs, buffers, staging);
    const gpuMs = performance.now() - began;
    return { ok: true, outputs: outputs.map(([output, bytes]) => encodeOutput(output, bytes)), gpuMs };
  } finally {
    for (const buffer of [...buffers.values(), ...staging]) buffer.destroy();
  }
}

async function allocate(
  device: GPUDevice,
  plan: Plan,
  buffers: Map<string, GPUBuffer>,
): Promise<string | undefined> {
  device.pushErrorScope("out-of-memory");
  for (const [name, { kind, bytes }] of plan.buffers) {
    const use =
      kind === "uniform" ? GPUBufferUsage.UNIFORM : GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC;
    buffers.set(
      name,
      device.createBuffer({ label: name, size: bytes, usage: use | GPUBufferUsage.COPY_DST }),
    );
  }
  if (await device.popErrorScope()) return "the GPU has no memory left for the job's buffers";
  for (const [name, { contents }] of plan.buffers) {
    if (contents) write(device, bufferOf(buffers, name), contents);
  }
  return undefined;
}

function bufferOf(buffers: Map<string, GPUBuffer>, name: string): GPUBuffer {
  const buffer = buffers.get(name);
  if (!buffer) throw new Error(`no buffer ${name}: was the manifest checked?`);
  return buffer;
}

/** WebGPU writes whole words; an array of u8 may end inside one. */
function write(device: GPUDevice, buffer: GPUBuffer, contents: Uint8Array): void {
  const padded = new Uint8Array(Math.ceil(contents.length / 4) * 4);
  padded.set(contents);
  device.queue.writeBuffer(buffer, 0, padded);
}

/** Answers where it stopped, when it was paused before the last dispatch. */
async function runPasses(
  device: GPUDevice,
  pipelines: readonly GPUComputePipeline[],
  plan: Plan,
  buffers: Map<string, GPUBuffer>,
  { progress, from, isPaused }: DispatchOptions,
): Promise<Position | undefined> {
  const underWay: { done: Promise<undefined>; note: string }[] = [];
  const start = from?.position ?? { pass: 0, iteration: 0 };
  const done = dispatchesBefore(plan, start);
  let finished = done;
  const finishOne = async () => {
    const oldest = underWay.shift();
    await oldest?.done;
    finished += 1;
    progress(finished / plan.dispatches, oldest?.note);
  };
  for (const [index, planned] of plan.passes.entries()) {
    if (index < start.pass) continue;
    const pipeline = pipelines[index];
    if (!pipeline) throw new Error(`no pipeline for pass ${index}`);
    const groups = bindGroups(device, pipeline, planned, buffers);
    const moving = planned.pass.bindings.flatMap(({ buffer }) => {
      const contentsAt = plan.buffers.get(buffer)?.contentsAt;
      return contentsAt ? [{ buffer: bufferOf(buffers, buffer), contentsAt }] : [];
    });
    for (
      let iteration = index === start.pass ? start.iteration : 0;
      iteration < planned.repeat;
      iteration += 1
    ) {
      if (finished > done && isPaused()) {
        while (underWay.length > 0) await finishOne();
        return { pass: index, iteration };
      }
      // Queue order makes each write visible to the submission after it, and to none before.
      for (const { buffer, contentsAt } of moving)
        write(device, buffer, contentsAt(iteration, planned.repeat));
      const encoder = device.createCommandEncoder();
      const compute = encoder.beginComputePass();
      compute.setPipeline(pipeline);
      for (const [group, bindGroup] of groups) compute.setBindGroup(group, bindGroup);
      compute.dispatchWorkgroups(...planned.workgroups);
      compute.end();
      device.queue.submit([encoder.finish()]);
      underWay.push({ done: device.queue.onSubmittedWorkDone(), note: noteOf(planned, iteration) });
      if (underWay.length >= IN_FLIGHT) await finishOne();
    }
  }
  while (underWay.length > 0) await finishOne();
  return undefined;
}

function bindGroups(
  device: GPUDevice,
  pipeline: GPUComputePipeline,
  { pass }: PlannedPass,
  buffers: Map<string, GPUBuffer>,
): Map<number, GPUBindGroup> {
  const entries = new Map<number, GPUBindGroupEntry[]>();
  for (const { group, binding, buffer } of pass.bindings) {
    const list = entries.get(group) ?? [];
    list.push({ binding, resource: { buffer: bufferOf(buffers, buffer) } });
    entries.set(group, list);
  }
  const groups = new Map<number, GPUBindGroup>();
  for (const [group, list] of entries) {
    groups.set(group, device.createBindGroup({ layout: pipeline.getBindGroupLayout(group), entries: list }));
  }
  return groups;
}

function noteOf({ pass, repeat }: PlannedPass, iteration: number): string {
  const label = pass.label ?? pass.entryPoint;
  return repeat > 1 ? `${label} ${iteration + 1} of ${repeat}` : label;
}

/** The storage buffers that are not as they were at the start. */
async function readState(
  device: GPUDevice,
  plan: Plan,
  buffers: Map<string, GPUBuffer>,
  staging: GPUBuffer[],
): Promise<Map<string, Uint8Array>> {
  const all = [...plan.buffers].flatMap(([name, { kind, bytes }]) =>
    kind === "storage" ? [{ name, buffer: name, bytes }] : [],
  );
  const state = new Map<string, Uint8Array>();
  for (const [{ name }, bytes] of await readBack(device, all, buffers, staging)) {
    const planned = plan.buffers.get(name);
    if (planned && !isUntouched(planned, bytes)) state.set(name, bytes);
  }
  return state;
}

async function readBack<Read extends Pick<PlannedOutput, "buffer" | "bytes">>(
  device: GPUDevice,
  outputs: readonly Read[],
  buffers: Map<string, GPUBuffer>,
  staging: GPUBuffer[],
): Promise<[Read, Uint8Array][]> {
  const encoder = device.createCommandEncoder();
  const reads = outputs.map((output): [Read, GPUBuffer] => {
    const size = Math.ceil(output.bytes / 4) * 4;
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    const copy = device.createBuffer({ size, usage });
    staging.push(copy);
    if (size > 0) encoder.copyBufferToBuffer(bufferOf(buffers, output.buffer), 0, copy, 0, size);
    return [output, copy];
  });
  device.queue.submit([encoder.finish()]);
  return Promise.all(
    reads.map(async ([output, copy]): Promise<[Read, Uint8Array]> => {
      if (output.bytes === 0) return [output, new Uint8Array(0)];
      await copy.mapAsync(GPUMapMode.READ);
      return [output, new Uint8Array(copy.getMappedRange()).slice(0, output.bytes)];
    }),
  );
}

function encodeOutput({ name, picture }: PlannedOutput, bytes: Uint8Array): ExecutionOutput {
  if (!picture) return { name, contentType: "application/octet-stream", bytes };
  return { name, contentType: "image/png", bytes: encodePng({ ...picture, data: bytes }) };
}
