import { readFile } from "node:fs/promises";
import { Sha256 } from "@gpux/protocol/ids";
import type { InputValue } from "@gpux/protocol/job";
import type { FunctionInput, FunctionManifest } from "@gpux/protocol/manifest-schema";
import type { Objects } from "@gpux/sdk";
import { UsageError } from "./outcome.ts";

type ArrayType = Extract<FunctionInput, { kind: "array" }>["type"];

/** A value as it was given, read and checked against its kind, but not yet sent. */
export type ReadInput =
  | { readonly kind: "value"; readonly value: InputValue }
  /** `json`: the same as a value, for when it is short. */
  | { readonly kind: "bytes"; readonly bytes: Uint8Array; readonly json?: InputValue };

/** `name=value`; the value may hold `=`. */
export function splitAssignment(text: string, flag: string): [name: string, value: string] {
  const at = text.indexOf("=");
  if (at < 1) throw new UsageError(`${flag} ${text}: expected name=value`);
  return [text.slice(0, at), text.slice(at + 1)];
}

/**
 * Reads `--input name=value` flags by the kinds that the manifest gives its inputs. `@file` reads a file, `sha256:...`
 * names a stored object; else numbers and JSON stand as they are, and arrays as JSON or `1,2,3`.
 */
export async function readInputs(
  manifest: FunctionManifest,
  assignments: readonly string[],
): Promise<Map<string, ReadInput>> {
  const inputs = new Map<string, ReadInput>();
  for (const assignment of assignments) {
    const [name, text] = splitAssignment(assignment, "--input");
    const spec = Object.hasOwn(manifest.inputs, name) ? manifest.inputs[name] : undefined;
    if (spec === undefined) {
      const known = Object.keys(manifest.inputs).join(", ") || "none";
      throw new UsageError(`${manifest.name} has no input "${name}"`, `Its inputs: ${known}.`);
    }
    if (inputs.has(name)) throw new UsageError(`The input "${name}" is given twice`);
    inputs.set(name, await readInput(name, spec, text));
  }
  for (const [name, spec] of Object.entries(manifest.inputs)) {
    const optional = spec.kind === "number" && spec.default !== undefined;
    if (!optional && !inputs.has(name)) {
      throw new UsageError(
        `The input "${name}" is missing`,
        spec.description ?? `It is of kind ${spec.kind}.`,
      );
    }
  }
  return inputs;
}

async function readInput(name: string, spec: FunctionInput, text: string): Promise<ReadInput> {
  const object = text.startsWith("sha256:") ? text.slice("sha256:".length) : null;
  if (object !== null) {
    if (!Sha256.safeParse(object).success)
      throw new UsageError(`The input "${name}" is no sha256 in lower-case hex`);
    return { kind: "value", value: { object } };
  }
  switch (spec.kind) {
    case "number": {
      const number = Number(text);
      if (text.trim() === "" || !Number.isFinite(number))
        throw new UsageError(`The input "${name}" is no number: ${text}`);
      const whole = spec.type !== "f32";
      if (number < spec.min || number > spec.max || (whole && !Number.isInteger(number))) {
        throw new UsageError(
          `The input "${name}" is a ${whole ? "whole " : ""}number from ${spec.min} to ${spec.max}, not ${text}`,
        );
      }
      return { kind: "value", value: { number } };
    }
    case "json": {
      const document = text.startsWith("@") ? new TextDecoder().decode(await readBytes(name, text)) : text;
      return {
        kind: "bytes",
        bytes: new TextEncoder().encode(document),
        json: { json: jsonValue(name, document) },
      };
    }
    case "array":
      return { kind: "bytes", bytes: await arrayBytes(name, spec.type, text) };
    case "image":
      if (!text.startsWith("@"))
        throw new UsageError(`The input "${name}" is an image: give it as ${name}=@file.png`);
      return { kind: "bytes", bytes: await readBytes(name, text) };
  }
}

/** What rides in the request, all inputs together; the edge takes bodies of 48 KiB with everything else in them. */
const INLINE_BUDGET = 32 * 1024;

/** Small values ride in the request, smallest first; the rest goes to the object store before it. */
export async function sendInputs(
  inputs: ReadonlyMap<string, ReadInput>,
  objects: Pick<Objects, "put">,
): Promise<Record<string, InputValue>> {
  const values: Record<string, InputValue> = {};
  const bySize = [...inputs]
    .map(([name, input]) => ({ name, ...inlined(input) }))
    .sort((a, b) => a.size - b.size);
  let left = INLINE_BUDGET;
  for (const { name, value, size, bytes } of bySize) {
    left -= size;
    values[name] = bytes === null || left >= 0 ? value : { object: await objects.put(bytes) };
  }
  return values;
}

/** The value as it would ride inline, and how much of the request it would take. */
function inlined(input: ReadInput): { value: InputValue; size: number; bytes: Uint8Array | null } {
  if (input.kind === "value") return { value: input.value, size: 0, bytes: null };
  const { bytes, json } = input;
  if (json !== undefined) return { value: json, size: JSON.stringify(json).length, bytes };
  const base64 = Buffer.from(bytes).toString("base64");
  return { value: { base64 }, size: base64.length, bytes };
}

async function arrayBytes(name: string, type: ArrayType, text: string): Promise<Uint8Array> {
  if (!text.startsWith("@")) return encodeArray(name, type, numbersOf(name, text));
  const bytes = await readBytes(name, text);
  if (/\.json$/i.test(text)) return encodeArray(name, type, numbersOf(name, new TextDecoder().decode(bytes)));
  if (type !== "u8" && bytes.length % 4 !== 0) {
    throw new UsageError(`The input "${name}": ${bytes.length} bytes are no whole number of ${type}`);
  }
  return bytes;
}

function numbersOf(name: string, text: string): number[] {
  const trimmed = text.trim();
  const list = jsonValue(name, trimmed.startsWith("[") ? trimmed : `[${trimmed}]`);
  if (Array.isArray(list) && list.every((item) => typeof item === "number")) return list;
  throw new UsageError(`The input "${name}" is a list of numbers, such as 1,2,3`);
}

/** Little-endian, as WGSL lays them out. */
function encodeArray(name: string, type: ArrayType, numbers: readonly number[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(numbers.length * (type === "u8" ? 1 : 4)));
  for (const [index, value] of numbers.entries()) {
    const [min, max] = RANGES[type];
    if (value < min || value > max || (type !== "f32" && !Number.isInteger(value))) {
      throw new UsageError(`The input "${name}": ${value} at ${index} is no ${type}`);
    }
    if (type === "f32") view.setFloat32(index * 4, value, true);
    else if (type === "i32") view.setInt32(index * 4, value, true);
    else if (type === "u32") view.setUint32(index * 4, value, true);
    else view.setUint8(index, value);
  }
  return new Uint8Array(view.buffer);
}

const RANGES: Record<ArrayType, readonly [min: number, max: number]> = {
  f32: [-3.4028234663852886e38, 3.4028234663852886e38],
  i32: [-(2 ** 31), 2 ** 31 - 1],
  u32: [0, 2 ** 32 - 1],
  u8: [0, 255],
};

async function readBytes(name: string, text: string): Promise<Uint8Array> {
  try {
    return new Uint8Array(await readFile(text.slice(1)));
  } catch (error) {
    throw new UsageError(
      `The input "${name}" cannot be read: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

type Json = Extract<InputValue, { json: unknown }>["json"];

function jsonValue(name: string, text: string): Json {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UsageError(
      `The input "${name}" is not JSON: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}
