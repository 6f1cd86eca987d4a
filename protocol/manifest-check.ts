import { LIMITS, type Limits, PORTABLE } from "./manifest-limits.ts";
import {
  bufferBytes,
  ELEMENT_BYTES,
  evaluate,
  listNamed,
  member,
  referencesOf,
  resolveReference,
  SCALAR_LAYOUT,
} from "./manifest-quantity.ts";
import {
  type FunctionBuffer,
  type FunctionInput,
  FunctionManifest,
  type JsonField,
  type Quantity,
  type ScalarType,
} from "./manifest-schema.ts";

/** `pointer` is an RFC 6901 JSON pointer into the manifest. Always the tenant's fault. */
export type ManifestRefusal = {
  ok: false;
  code: "manifest_invalid" | "limit_exceeded";
  detail: string;
  pointer: string;
};

type Problem = Omit<ManifestRefusal, "ok" | "pointer"> & { path: readonly (string | number)[] };
type Path = readonly (string | number)[];

const invalid = (path: Path, detail: string): Problem => ({ code: "manifest_invalid", path, detail });
const beyond = (path: Path, what: string, value: number, limit: number): Problem => ({
  code: "limit_exceeded",
  path,
  detail: `${what} can reach ${value}, the limit is ${limit}`,
});

/**
 * Everything about a manifest that can be known without inputs and without a GPU: that it is well formed, that each
 * name it uses exists with the right type, and that at the largest inputs it accepts it stays within `limits`.
 * The first problem found is the answer. WGSL itself is checked by the executor.
 */
export function checkManifest(
  manifest: unknown,
  limits: Limits = LIMITS,
): { ok: true; manifest: FunctionManifest } | ManifestRefusal {
  const parsed = FunctionManifest.safeParse(manifest);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const path = (issue?.path ?? []).map((part) => (typeof part === "number" ? part : String(part)));
    return refusal(invalid(path, issue?.message ?? "not a function manifest"));
  }
  for (const problem of problemsOf(parsed.data, limits)) return refusal(problem);
  return { ok: true, manifest: parsed.data };
}

function refusal({ code, detail, path }: Problem): ManifestRefusal {
  const escaped = path.map((part) => `/${String(part).replaceAll("~", "~0").replaceAll("/", "~1")}`);
  return { ok: false, code, detail, pointer: escaped.join("") };
}

function* problemsOf(manifest: FunctionManifest, limits: Limits): Generator<Problem> {
  for (const [name, input] of Object.entries(manifest.inputs)) {
    yield* inputProblems(manifest, input, ["inputs", name]);
  }
  yield* bufferProblems(manifest, limits);
  yield* passProblems(manifest, limits);
  yield* outputProblems(manifest, limits);
}

const INTEGER_RANGE = { u32: [0, 2 ** 32 - 1], i32: [-(2 ** 31), 2 ** 31 - 1] } as const;
const F32_MAX = 3.4028234663852886e38;

function* rangeProblems(
  spec: { type: ScalarType; min: number; max: number },
  path: Path,
): Generator<Problem> {
  const whole = spec.type === "u32" || spec.type === "i32" ? INTEGER_RANGE[spec.type] : undefined;
  const [low, high] = whole ?? [-F32_MAX, F32_MAX];
  if (spec.min > spec.max) yield invalid([...path, "min"], `min ${spec.min} is above max ${spec.max}`);
  for (const key of ["min", "max"] as const) {
    if (spec[key] < low || spec[key] > high || (whole && !Number.isInteger(spec[key]))) {
      yield invalid([...path, key], `${spec[key]} is not a value of ${spec.type}`);
    }
  }
}

function* fieldProblems(
  field: JsonField | Extract<FunctionInput, { kind: "number" }>,
  path: Path,
): Generator<Problem> {
  if (field.type === "enum") {
    if (field.default !== undefined && !field.values.includes(field.default)) {
      yield invalid([...path, "default"], `"${field.default}" is not one of the values`);
    }
    return;
  }
  yield* rangeProblems(field, path);
  const given = field.default === undefined ? [] : [field.default].flat();
  if (field.default !== undefined && given.length !== SCALAR_LAYOUT[field.type].components) {
    yield invalid(
      [...path, "default"],
      `${field.type} needs ${SCALAR_LAYOUT[field.type].components} numbers`,
    );
  }
  const whole = field.type === "u32" || field.type === "i32";
  if (given.some((value) => value < field.min || value > field.max || (whole && !Number.isInteger(value)))) {
    yield invalid(
      [...path, "default"],
      `the default is not a ${field.type} from ${field.min} to ${field.max}`,
    );
  }
}

function* inputProblems(manifest: FunctionManifest, input: FunctionInput, path: Path): Generator<Problem> {
  if (input.kind === "number") yield* fieldProblems(input, path);
  if (input.kind === "array" && input.length !== undefined) {
    yield* quantityProblems(manifest, input.length, [...path, "length"]);
  }
  if (input.kind !== "json") return;
  const paths = [...Object.keys(input.fields), ...Object.keys(input.lists)];
  for (const name of paths) {
    // `camera` and `camera.fov` cannot both be values of one document.
    const inside = paths.find((other) => other.startsWith(`${name}.`));
    if (inside !== undefined)
      yield invalid([...path, "fields"], `"${inside}" lies inside the value "${name}"`);
  }
  for (const [name, field] of Object.entries(input.fields)) {
    yield* fieldProblems(field, [...path, "fields", name]);
  }
  for (const [name, list] of Object.entries(input.lists)) {
    const at = [...path, "lists", name];
    if (member(input.fields, name)) yield invalid(at, `"${name}" is both a field and a list`);
    yield* duplicates(list.item, [...at, "item"]);
    for (const [index, { field }] of list.item.entries()) {
      yield* fieldProblems(field, [...at, "item", index, "field"]);
    }
  }
}

function* duplicates(items: readonly { name: string }[], path: Path): Generator<Problem> {
  const names = items.map((item) => item.name);
  const second = names.findIndex((name, index) => names.indexOf(name) < index);
  if (second >= 0) yield invalid([...path, second, "name"], `"${names[second]}" is there twice`);
}

function* quantityProblems(manifest: FunctionManifest, quantity: Quantity, path: Path): Generator<Problem> {
  for (const reference of referencesOf(quantity)) {
    const referent = resolveReference(manifest, reference);
    if (!referent) yield invalid(path, `"${reference}" names no input`);
    else if (!referent.count) yield invalid(path, `"${reference}" is ${referent.type}, a count must be u32`);
  }
}

function most(manifest: FunctionManifest, quantity: Quantity): number {
  return evaluate(quantity, (reference) => resolveReference(manifest, reference)?.count?.max ?? 0);
}

function mostBytes(manifest: FunctionManifest, buffer: FunctionBuffer): number {
  return bufferBytes(manifest, buffer, (reference) => resolveReference(manifest, reference)?.count?.max ?? 0);
}

function* bufferProblems(manifest: FunctionManifest, limits: Limits): Generator<Problem> {
  let total = 0;
  for (const [name, buffer] of Object.entries(manifest.buffers)) {
    const path = ["buffers", name];
    if (buffer.from === "zero") yield* quantityProblems(manifest, buffer.bytes, [...path, "bytes"]);
    if (buffer.from === "struct") yield* structProblems(manifest, buffer.fields, [...path, "fields"]);
    if (buffer.from === "list" && !listNamed(manifest, buffer.list)) {
      yield invalid([...path, "list"], `"${buffer.list}" names no list of a JSON input`);
    }
    if (buffer.from === "input") {
      const input = member(manifest.inputs, buffer.input);
      if (input?.kind !== "array" && input?.kind !== "image") {
        yield invalid([...path, "input"], `"${buffer.input}" names no array or image input`);
      }
    }
    const bytes = mostBytes(manifest, buffer);
    const limit = buffer.kind === "uniform" ? PORTABLE.uniformBytes : PORTABLE.bindingBytes;
    if (bytes > limit) yield beyond(path, "bytes of this buffer", bytes, limit);
    total += bytes;
    if (total > limits.bufferBytes) yield beyond(path, "bytes of all buffers", total, limits.bufferBytes);
  }
}

function* structProblems(
  manifest: FunctionManifest,
  fields: Extract<FunctionBuffer, { from: "struct" }>["fields"],
  path: Path,
): Generator<Problem> {
  yield* duplicates(fields, path);
  for (const [index, field] of fields.entries()) {
    const at = [...path, index, "value"];
    if (typeof field.value === "number") {
      yield* rangeProblems({ type: field.type, min: field.value, max: field.value }, [...path, index]);
      if (SCALAR_LAYOUT[field.type].components > 1) yield invalid(at, `a number is no ${field.type}`);
      continue;
    }
    const type = field.value.startsWith("$") ? "u32" : resolveReference(manifest, field.value)?.type;
    if (!type) yield invalid(at, `"${field.value}" names no input`);
    else if (type !== field.type)
      yield invalid(at, `"${field.value}" is ${type}, the field is ${field.type}`);
  }
}

function* passProblems(manifest: FunctionManifest, limits: Limits): Generator<Problem> {
  let dispatches = 0;
  for (const [index, pass] of manifest.passes.entries()) {
    const path = ["passes", index];
    if (member(manifest.modules, pass.module) === undefined) {
      yield invalid([...path, "module"], `"${pass.module}" names no module`);
    }
    const slots = new Set<string>();
    const bound = { storage: 0, uniform: 0 };
    for (const [place, { group, binding, buffer: name }] of pass.bindings.entries()) {
      const buffer = member(manifest.buffers, name);
      if (!buffer) yield invalid([...path, "bindings", place, "buffer"], `"${name}" names no buffer`);
      else bound[buffer.kind] += 1;
      const slot = `@group(${group}) @binding(${binding})`;
      if (slots.has(slot)) yield invalid([...path, "bindings", place], `${slot} is there twice`);
      slots.add(slot);
    }
    for (const kind of ["storage", "uniform"] as const) {
      const limit = PORTABLE[`${kind}BuffersPerPass`];
      if (bound[kind] > limit)
        yield beyond([...path, "bindings"], `${kind} buffers of a pass`, bound[kind], limit);
    }
    for (const [axis, count] of pass.workgroups.entries()) {
      const at = [...path, "workgroups", axis];
      yield* quantityProblems(manifest, count, at);
      const value = most(manifest, count);
      const limit = PORTABLE.workgroupsPerDimension;
      if (value > limit) yield beyond(at, "workgroups", value, limit);
    }
    const repeat = pass.repeat ?? 1;
    yield* quantityProblems(manifest, repeat, [...path, "repeat"]);
    dispatches += most(manifest, repeat);
    if (dispatches > limits.dispatches) yield beyond(path, "dispatches", dispatches, limits.dispatches);
  }
}

function* outputProblems(manifest: FunctionManifest, limits: Limits): Generator<Problem> {
  yield* duplicates(manifest.outputs, ["outputs"]);
  let total = 0;
  for (const [index, output] of manifest.outputs.entries()) {
    const path = ["outputs", index];
    const buffer = member(manifest.buffers, output.buffer);
    if (buffer?.kind !== "storage") {
      yield invalid([...path, "buffer"], `"${output.buffer}" names no storage buffer`);
    }
    const counts = output.kind === "png" ? [output.width, output.height] : [output.length];
    for (const count of counts) yield* quantityProblems(manifest, count, path);
    const elements = counts.reduce((product: number, count) => product * most(manifest, count), 1);
    const bytes = elements * (output.kind === "png" ? 4 : ELEMENT_BYTES[output.type]);
    if (buffer && bytes > mostBytes(manifest, buffer)) {
      yield invalid(path, `the output can reach ${bytes} bytes, its buffer ${mostBytes(manifest, buffer)}`);
    }
    total += bytes;
    if (total > limits.outputBytes) yield beyond(path, "bytes of all outputs", total, limits.outputBytes);
  }
}
