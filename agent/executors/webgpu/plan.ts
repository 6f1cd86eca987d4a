import type { FunctionManifest } from "@gpux/protocol/manifest";
import { bufferBytes, ELEMENT_BYTES, evaluate, structLayout } from "@gpux/protocol/manifest-quantity";
import type { FunctionBuffer, FunctionPass, Quantity } from "@gpux/protocol/manifest-schema";
import type { FunctionJob } from "../executor.ts";
import { type BoundInputs, countOf } from "./inputs.ts";
import { writeScalar } from "./scalar.ts";

type Struct = Extract<FunctionBuffer, { from: "struct" }>;

export type PlannedBuffer = {
  kind: "storage" | "uniform";
  bytes: number;
  /** What it holds at the start; WebGPU zeroes the rest. */
  contents?: Uint8Array;
  /** Set where a field follows the repeats of a pass: its contents for one of them. */
  contentsAt?: (iteration: number, iterations: number) => Uint8Array;
};

export type PlannedPass = {
  pass: FunctionPass;
  workgroups: readonly [number, number, number];
  repeat: number;
};

export type PlannedOutput = {
  name: string;
  buffer: string;
  bytes: number;
  /** Set for a PNG. */
  picture?: { width: number; height: number };
};

export type Plan = {
  ok: true;
  buffers: Map<string, PlannedBuffer>;
  passes: PlannedPass[];
  outputs: PlannedOutput[];
  dispatches: number;
};
export type PlanRefusal = { ok: false; code: "manifest_invalid" | "limit_exceeded"; detail: string };

/** Every size and count of a job as numbers, held against its limits. Pure: the GPU sees nothing before this. */
export function planJob({ manifest, limits }: FunctionJob, bound: BoundInputs): Plan | PlanRefusal {
  const count = (quantity: Quantity) => evaluate(quantity, (reference) => countOf(bound, reference));
  const over = (what: string, value: number, limit: number): PlanRefusal => ({
    ok: false,
    code: "limit_exceeded",
    detail: `${what} come to ${value}, the limit is ${limit}`,
  });

  const buffers = planBuffers(manifest, bound);
  const bufferTotal = buffers.values().reduce((sum, buffer) => sum + buffer.bytes, 0);
  if (bufferTotal > limits.bufferBytes) return over("bytes of buffers", bufferTotal, limits.bufferBytes);

  const passes = manifest.passes.map((pass): PlannedPass => {
    const [x, y, z] = pass.workgroups;
    return { pass, workgroups: [count(x), count(y), count(z)], repeat: count(pass.repeat ?? 1) };
  });
  const dispatches = passes.reduce((sum, { repeat }) => sum + repeat, 0);
  if (dispatches > limits.dispatches) return over("dispatches", dispatches, limits.dispatches);

  const outputs: PlannedOutput[] = [];
  for (const output of manifest.outputs) {
    const { name, buffer } = output;
    if (output.kind === "png") {
      const picture = { width: count(output.width), height: count(output.height) };
      outputs.push({ name, buffer, bytes: 4 * picture.width * picture.height, picture });
    } else {
      outputs.push({ name, buffer, bytes: count(output.length) * ELEMENT_BYTES[output.type] });
    }
  }
  for (const { name, buffer, bytes, picture } of outputs) {
    const there = buffers.get(buffer)?.bytes ?? 0;
    if (bytes > there) {
      return {
        ok: false,
        code: "manifest_invalid",
        detail: `output "${name}" is ${bytes} bytes, its buffer ${there}`,
      };
    }
    if (picture && bytes === 0) {
      return { ok: false, code: "manifest_invalid", detail: `output "${name}" is a picture with no pixels` };
    }
  }
  const outputTotal = outputs.reduce((sum, { bytes }) => sum + bytes, 0);
  if (outputTotal > limits.outputBytes) return over("bytes of outputs", outputTotal, limits.outputBytes);
  return { ok: true, buffers, passes, outputs, dispatches };
}

function planBuffers(manifest: FunctionManifest, bound: BoundInputs): Map<string, PlannedBuffer> {
  const buffers = new Map<string, PlannedBuffer>();
  for (const [name, buffer] of Object.entries(manifest.buffers)) {
    const bytes = bufferBytes(manifest, buffer, (reference) => countOf(bound, reference));
    const contents = contentsOf(buffer, bound);
    buffers.set(name, { kind: buffer.kind, bytes, ...contents });
  }
  return buffers;
}

function contentsOf(
  buffer: FunctionBuffer,
  bound: BoundInputs,
): Pick<PlannedBuffer, "contents" | "contentsAt"> {
  if (buffer.from === "zero") return {};
  if (buffer.from === "struct") {
    const contentsAt = packer(buffer, bound);
    const moving = buffer.fields.some(({ value }) => value === "$iteration" || value === "$iterations");
    return moving ? { contentsAt } : { contents: contentsAt(0, 1) };
  }
  const source = buffer.from === "input" ? buffer.input : buffer.list;
  const contents = bound.contents.get(source);
  if (!contents) throw new Error(`${source} was not bound: was the manifest checked?`);
  return { contents };
}

function packer(
  { fields }: Struct,
  bound: BoundInputs,
): (iteration: number, iterations: number) => Uint8Array {
  const { offsets, size } = structLayout(fields.map(({ type }) => type));
  return (iteration, iterations) => {
    const bytes = new Uint8Array(size);
    const view = new DataView(bytes.buffer);
    for (const [index, { type, value }] of fields.entries()) {
      writeScalar(view, offsets[index] ?? 0, type, resolve(value, iteration, iterations, bound));
    }
    return bytes;
  };
}

function resolve(value: number | string, iteration: number, iterations: number, bound: BoundInputs) {
  if (value === "$iteration") return iteration;
  if (value === "$iterations") return iterations;
  if (typeof value === "number") return value;
  const scalar = bound.scalars.get(value);
  if (scalar === undefined) throw new Error(`${value} was not bound: was the manifest checked?`);
  return scalar;
}
