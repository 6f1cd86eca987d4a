import type { FunctionManifest } from "@gpux/protocol/manifest";
import { ELEMENT_BYTES, evaluate, member } from "@gpux/protocol/manifest-quantity";
import type { FunctionInput } from "@gpux/protocol/manifest-schema";
import type { FunctionJob } from "../executor.ts";
import { decodeImage } from "./images.ts";
import { bindJson, type Scalar } from "./json-input.ts";

/** Inputs as the passes use them: values by reference (`photo.width`) and contents by buffer source (`photo`). */
export type BoundInputs = { ok: true; scalars: Map<string, Scalar>; contents: Map<string, Uint8Array> };
export type InputRefusal = { ok: false; code: "input_invalid" | "limit_exceeded"; detail: string };
type Given = FunctionJob["inputs"][string];

/** Checks and decodes what the tenant sent. Only the tenant's data is read here; no GPU is touched. */
export function bindInputs({ manifest, inputs, limits }: FunctionJob): BoundInputs | InputRefusal {
  const bound: BoundInputs = { ok: true, scalars: new Map(), contents: new Map() };
  const unknown = Object.keys(inputs).find((name) => !member(manifest.inputs, name));
  if (unknown !== undefined) return invalid(`the function has no input "${unknown.slice(0, 64)}"`);
  const total = Object.values(inputs).reduce(
    (sum, input) => sum + (input.kind === "bytes" ? input.bytes.length : 0),
    0,
  );
  if (total > limits.inputBytes) {
    return {
      ok: false,
      code: "limit_exceeded",
      detail: `inputs are ${total} bytes, the limit is ${limits.inputBytes}`,
    };
  }
  for (const [name, spec] of Object.entries(manifest.inputs)) {
    const problem = bindInput(name, spec, member(inputs, name), bound);
    if (problem !== undefined) return invalid(`input "${name}": ${problem}`);
  }
  return lengthProblem(manifest, bound) ?? bound;
}

function invalid(detail: string): InputRefusal {
  return { ok: false, code: "input_invalid", detail };
}

function bindInput(
  name: string,
  spec: FunctionInput,
  given: Given | undefined,
  bound: BoundInputs,
): string | undefined {
  switch (spec.kind) {
    case "number":
      return bindNumber(name, spec, given, bound);
    case "json": {
      const document = jsonOf(given, spec.maxBytes);
      if (!document.ok) return document.detail;
      const json = bindJson(spec, document.value);
      if (!json.ok) return json.detail;
      for (const [path, value] of json.scalars) bound.scalars.set(`${name}.${path}`, value);
      for (const [path, { bytes, length }] of json.lists) {
        bound.contents.set(`${name}.${path}`, bytes);
        bound.scalars.set(`${name}.${path}.length`, length);
      }
      return undefined;
    }
    case "array": {
      if (given?.kind !== "bytes") return "needs bytes, little-endian";
      const { bytes } = given;
      const each = ELEMENT_BYTES[spec.type];
      if (bytes.length % each !== 0 || bytes.length === 0)
        return `needs one or more ${spec.type} of ${each} bytes`;
      if (bytes.length / each > spec.maxLength) {
        return `has ${bytes.length / each} elements, at most ${spec.maxLength} are taken`;
      }
      bound.contents.set(name, bytes);
      bound.scalars.set(`${name}.length`, bytes.length / each);
      return undefined;
    }
    case "image": {
      if (given?.kind !== "bytes") return "needs the bytes of a PNG or JPEG";
      const decoded = decodeImage(given.bytes, spec);
      if (!decoded.ok) return decoded.detail;
      bound.contents.set(name, decoded.image.data);
      bound.scalars.set(`${name}.width`, decoded.image.width);
      bound.scalars.set(`${name}.height`, decoded.image.height);
      return undefined;
    }
  }
}

function bindNumber(
  name: string,
  spec: Extract<FunctionInput, { kind: "number" }>,
  given: Given | undefined,
  bound: BoundInputs,
): string | undefined {
  // A number may come as JSON too: `--input samples=@n.json`.
  const value = given === undefined ? spec.default : given.kind === "bytes" ? undefined : given.value;
  const whole = spec.type !== "f32";
  if (
    typeof value !== "number" ||
    !(value >= spec.min && value <= spec.max) ||
    (whole && !Number.isInteger(value))
  ) {
    return `needs a ${whole ? "whole " : ""}number from ${spec.min} to ${spec.max}`;
  }
  bound.scalars.set(name, value);
  return undefined;
}

function jsonOf(
  given: Given | undefined,
  maxBytes: number,
): { ok: true; value: unknown } | { ok: false; detail: string } {
  if (given === undefined || given.kind === "number") return { ok: false, detail: "needs a JSON document" };
  const tooLong = { ok: false as const, detail: `is longer than ${maxBytes} bytes` };
  if (given.kind === "json") {
    const text = JSON.stringify(given.value);
    return text !== undefined && Buffer.byteLength(text) > maxBytes
      ? tooLong
      : { ok: true, value: given.value };
  }
  if (given.bytes.length > maxBytes) return tooLong;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(given.bytes);
    return { ok: true, value: JSON.parse(text) };
  } catch (error) {
    return { ok: false, detail: `is not JSON: ${error instanceof Error ? error.message : "unreadable"}` };
  }
}

/** Arrays whose manifest says exactly how many elements they have, once all counts are known. */
function lengthProblem(manifest: FunctionManifest, bound: BoundInputs): InputRefusal | undefined {
  for (const [name, spec] of Object.entries(manifest.inputs)) {
    if (spec.kind !== "array" || spec.length === undefined) continue;
    const wanted = evaluate(spec.length, (reference) => countOf(bound, reference));
    const length = countOf(bound, `${name}.length`);
    if (length !== wanted)
      return invalid(`input "${name}": has ${length} elements, the other inputs ask for ${wanted}`);
  }
  return undefined;
}

/** The count behind a reference that checkManifest has found to be one. */
export function countOf(bound: BoundInputs, reference: string): number {
  const value = bound.scalars.get(reference);
  if (typeof value !== "number") throw new Error(`${reference} is no count: was the manifest checked?`);
  return value;
}
