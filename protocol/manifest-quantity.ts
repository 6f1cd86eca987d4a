import type { FunctionBuffer, FunctionManifest, JsonField, Quantity, ScalarType } from "./manifest-schema.ts";

/** Bytes of a WGSL struct member: its alignment and its own size (WGSL section 14.4.1). */
export const SCALAR_LAYOUT: Record<ScalarType, { align: number; size: number; components: number }> = {
  f32: { align: 4, size: 4, components: 1 },
  i32: { align: 4, size: 4, components: 1 },
  u32: { align: 4, size: 4, components: 1 },
  vec2f: { align: 8, size: 8, components: 2 },
  vec3f: { align: 16, size: 12, components: 3 },
  vec4f: { align: 16, size: 16, components: 4 },
};

export const ELEMENT_BYTES = { f32: 4, i32: 4, u32: 4, u8: 1 } as const;

export function roundUp(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}

/** Offsets of the members of a WGSL struct and its size, a multiple of its alignment (the stride in an array). */
export function structLayout(types: readonly ScalarType[]): { offsets: number[]; size: number } {
  let end = 0;
  let align = 4;
  const offsets = types.map((type) => {
    const layout = SCALAR_LAYOUT[type];
    const offset = roundUp(end, layout.align);
    end = offset + layout.size;
    align = Math.max(align, layout.align);
    return offset;
  });
  return { offsets, size: roundUp(end, align) };
}

/** What a reference stands for: its WGSL type, and for counts (u32) the range it can have. */
export type Referent = { type: ScalarType; count?: { min: number; max: number } };

const size = (max: number): Referent => ({ type: "u32", count: { min: 1, max } });

function numeric(spec: { type: "f32" | "i32" | "u32"; min: number; max: number }): Referent {
  return spec.type === "u32" ? { type: "u32", count: { min: spec.min, max: spec.max } } : { type: spec.type };
}

/** Own members only: a manifest may name an input `constructor`. */
export function member<Value>(record: Readonly<Record<string, Value>>, name: string): Value | undefined {
  return Object.hasOwn(record, name) ? record[name] : undefined;
}

/** Resolves `samples`, `photo.width`, `a.length`, `scene.camera.fov`, `scene.objects.length`. */
export function resolveReference(manifest: FunctionManifest, reference: string): Referent | undefined {
  const dot = reference.indexOf(".");
  const input = member(manifest.inputs, dot < 0 ? reference : reference.slice(0, dot));
  const path = dot < 0 ? "" : reference.slice(dot + 1);
  switch (input?.kind) {
    case "number":
      return path === "" ? numeric(input) : undefined;
    case "image":
      if (path === "width") return size(input.maxWidth);
      return path === "height" ? size(input.maxHeight) : undefined;
    case "array":
      return path === "length" ? size(input.maxLength) : undefined;
    case "json": {
      const field = member(input.fields, path);
      if (field?.type === "enum") return { type: "u32", count: { min: 0, max: field.values.length - 1 } };
      if (field?.type === "f32" || field?.type === "i32" || field?.type === "u32") return numeric(field);
      if (field !== undefined) return { type: field.type };
      const list = path.endsWith(".length")
        ? member(input.lists, path.slice(0, -".length".length))
        : undefined;
      return list && { type: "u32", count: { min: 0, max: list.maxLength } };
    }
    default:
      return undefined;
  }
}

export function referencesOf(quantity: Quantity): string[] {
  const factors = typeof quantity === "object" ? quantity.of : [quantity];
  return factors.filter((factor) => typeof factor === "string");
}

/**
 * `ceil(product(of) / per) + plus`. Beyond 2^53 the result is not exact, but it is then beyond every limit too,
 * and all that is done with it is to compare it with one.
 */
export function evaluate(quantity: Quantity, value: (reference: string) => number): number {
  const of = (factor: number | string) => (typeof factor === "string" ? value(factor) : factor);
  if (typeof quantity !== "object") return of(quantity);
  const product = quantity.of.reduce((product: number, factor) => product * of(factor), 1);
  return Math.ceil(product / (quantity.per ?? 1)) + (quantity.plus ?? 0);
}

export function fieldType(field: JsonField): ScalarType {
  return field.type === "enum" ? "u32" : field.type;
}

/** The list that `scene.objects` names. */
export function listNamed(manifest: FunctionManifest, reference: string) {
  const [name = "", ...path] = reference.split(".");
  const input = member(manifest.inputs, name);
  return input?.kind === "json" ? member(input.lists, path.join(".")) : undefined;
}

/**
 * Bytes of a buffer for given counts: whole u32s, and at least one element, because WebGPU binds nothing empty.
 * Arrays are not padded further, so that `arrayLength()` is the number of elements. A name that does not exist
 * counts as nothing (manifest-check.ts reports it).
 */
export function bufferBytes(
  manifest: FunctionManifest,
  buffer: FunctionBuffer,
  count: (reference: string) => number,
): number {
  switch (buffer.from) {
    case "zero":
      return roundUp(Math.max(evaluate(buffer.bytes, count), 4), 4);
    case "struct":
      return roundUp(structLayout(buffer.fields.map((field) => field.type)).size, 16);
    case "list": {
      const item = listNamed(manifest, buffer.list)?.item ?? [];
      return (
        structLayout(item.map(({ field }) => fieldType(field))).size *
        Math.max(count(`${buffer.list}.length`), 1)
      );
    }
    case "input": {
      const input = member(manifest.inputs, buffer.input);
      if (input?.kind === "image")
        return 4 * count(`${buffer.input}.width`) * count(`${buffer.input}.height`);
      if (input?.kind !== "array") return 0;
      return roundUp(Math.max(count(`${buffer.input}.length`) * ELEMENT_BYTES[input.type], 4), 4);
    }
  }
}
