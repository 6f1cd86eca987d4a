import { z } from "zod";

/**
 * The document that a function is: WGSL modules, the buffers they share, the passes that run them, what goes in
 * and what comes out. It holds no code but WGSL, and every size in it is a product of declared, bounded counts,
 * so what a function can cost at most is known before any GPU is touched (manifest-check.ts).
 *
 * The schema has no defaults and no transforms: the parsed document is the document, and its address
 * (manifest.ts) is the address of what the author wrote.
 */

const U32_MAX = 2 ** 32 - 1;

/** Names inside a manifest: also safe as WGSL identifiers, CLI flags and file names. */
const Name = z.string().regex(/^[a-z][A-Za-z0-9_]{0,31}$/, "a name: a-z first, then up to 31 of A-Za-z0-9_");

/** `samples`, `photo.width`, `a.length`, `scene.camera.fov`, `scene.objects.length`. */
const Reference = z
  .string()
  .regex(
    /^[a-z][A-Za-z0-9_]{0,31}(\.[a-z][A-Za-z0-9_]{0,31}){0,3}$/,
    "a reference: names joined by dots, such as photo.width",
  );

const Factor = z.union([z.int().min(0).max(U32_MAX), Reference]);

/**
 * A count known once the inputs are: a whole number, a reference to one, or
 * `ceil(product(of) / per) + plus`. Monotonic in every reference, so bounds of inputs give bounds of counts.
 */
export const Quantity = z.union([
  Factor,
  z.strictObject({
    of: z.array(Factor).min(1).max(6),
    per: z.int().min(1).max(U32_MAX).optional(),
    plus: z.int().min(0).max(U32_MAX).optional(),
  }),
]);
export type Quantity = z.infer<typeof Quantity>;

/** WGSL types that a struct field can have, laid out by the rules of WGSL section 14.4.1. */
export const ScalarType = z.enum(["f32", "i32", "u32", "vec2f", "vec3f", "vec4f"]);
export type ScalarType = z.infer<typeof ScalarType>;

const NumberField = z.strictObject({
  type: z.enum(["f32", "i32", "u32"]),
  min: z.number(),
  max: z.number(),
  default: z.number().optional(),
});

const VectorField = z.strictObject({
  type: z.enum(["vec2f", "vec3f", "vec4f"]),
  min: z.number(),
  max: z.number(),
  default: z.array(z.number()).min(2).max(4).optional(),
});

/** A word in the JSON, its place in `values` as u32 in the buffer. */
const EnumField = z.strictObject({
  type: z.literal("enum"),
  values: z.array(z.string().min(1).max(32)).min(1).max(64),
  default: z.string().optional(),
});

/** One value of a JSON input. Without `default` it must be given. */
export const JsonField = z.discriminatedUnion("type", [NumberField, VectorField, EnumField]);
export type JsonField = z.infer<typeof JsonField>;

const few = <Value extends z.ZodType>(value: Value, most: number, key: z.ZodString = Name) =>
  z.record(key, value).refine((all) => Object.keys(all).length <= most, `at most ${most} entries`);

/** A list of records in a JSON input; each becomes one WGSL struct with its fields in this order. */
const JsonList = z.strictObject({
  maxLength: z.int().min(1).max(1_048_576),
  item: z
    .array(z.strictObject({ name: Name, field: JsonField }))
    .min(1)
    .max(64),
});

const InputBase = { description: z.string().max(500).optional() };

export const FunctionInput = z.discriminatedUnion("kind", [
  z.strictObject({
    ...InputBase,
    kind: z.literal("number"),
    type: z.enum(["f32", "i32", "u32"]),
    min: z.number(),
    max: z.number(),
    default: z.number().optional(),
  }),
  z.strictObject({
    ...InputBase,
    kind: z.literal("json"),
    maxBytes: z
      .int()
      .min(2)
      .max(16 * 2 ** 20),
    /** Keys are paths into the document: `camera.fov`. */
    fields: few(JsonField, 64, Reference),
    lists: few(JsonList, 8),
  }),
  z.strictObject({
    ...InputBase,
    kind: z.literal("array"),
    type: z.enum(["f32", "i32", "u32", "u8"]),
    /** In elements. */
    maxLength: z.int().min(1).max(U32_MAX),
    /** Where given, the exact number of elements that must come. */
    length: Quantity.optional(),
  }),
  z.strictObject({
    ...InputBase,
    kind: z.literal("image"),
    /** PNG or JPEG; one u32 of RGBA (R in the low byte) per pixel, row by row from the top. */
    maxWidth: z.int().min(1).max(16_384),
    maxHeight: z.int().min(1).max(16_384),
  }),
]);
export type FunctionInput = z.infer<typeof FunctionInput>;

/**
 * What a struct field holds: a literal, a reference to an input, `$iteration` (from 0, rewritten before each
 * repeat of a pass) or `$iterations` (how many repeats that pass has).
 */
const FieldSource = z.union([z.number(), z.enum(["$iteration", "$iterations"]), Reference]);

export const FunctionBuffer = z.discriminatedUnion("from", [
  z.strictObject({ kind: z.literal("storage"), from: z.literal("zero"), bytes: Quantity }),
  z.strictObject({
    kind: z.enum(["storage", "uniform"]),
    from: z.literal("struct"),
    fields: z
      .array(z.strictObject({ name: Name, type: ScalarType, value: FieldSource }))
      .min(1)
      .max(256),
  }),
  /** An array or image input. */
  z.strictObject({ kind: z.literal("storage"), from: z.literal("input"), input: Name }),
  /** A list of a JSON input: `scene.objects`. */
  z.strictObject({ kind: z.literal("storage"), from: z.literal("list"), list: Reference }),
]);
export type FunctionBuffer = z.infer<typeof FunctionBuffer>;

export const FunctionPass = z.strictObject({
  /** What progress calls it. */
  label: z.string().min(1).max(64).optional(),
  module: Name,
  entryPoint: z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,63}$/, "a WGSL identifier"),
  bindings: z
    .array(z.strictObject({ group: z.int().min(0).max(3), binding: z.int().min(0).max(999), buffer: Name }))
    .max(32),
  workgroups: z.tuple([Quantity, Quantity, Quantity]),
  /** Pipeline-overridable constants (`override STEP: u32;`). */
  constants: few(z.number(), 32, z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,63}$/)).optional(),
  /** How often the pass runs, one dispatch and one progress report each; 1 when absent. */
  repeat: Quantity.optional(),
});
export type FunctionPass = z.infer<typeof FunctionPass>;

export const FunctionOutput = z.discriminatedUnion("kind", [
  z.strictObject({
    name: Name,
    kind: z.literal("array"),
    buffer: Name,
    type: z.enum(["f32", "i32", "u32", "u8"]),
    /** In elements. */
    length: Quantity,
  }),
  /** From a buffer of one RGBA u32 per pixel (WGSL `pack4x8unorm`). */
  z.strictObject({ name: Name, kind: z.literal("png"), buffer: Name, width: Quantity, height: Quantity }),
]);
export type FunctionOutput = z.infer<typeof FunctionOutput>;

/** `@owner/name` once published, plain `name` before. */
export const FunctionName = z
  .string()
  .regex(/^(@[a-z0-9][a-z0-9-]{0,38}\/)?[a-z0-9][a-z0-9-]{0,63}$/, "@owner/name or name, in a-z0-9-");

export const FunctionManifest = z.strictObject({
  version: z.literal(1),
  name: FunctionName,
  description: z.string().min(1).max(500),
  inputs: few(FunctionInput, 32),
  buffers: few(FunctionBuffer, 32),
  /** WGSL source by name. */
  modules: few(z.string().min(1).max(262_144), 16),
  passes: z.array(FunctionPass).min(1).max(256),
  outputs: z.array(FunctionOutput).min(1).max(16),
});
export type FunctionManifest = z.infer<typeof FunctionManifest>;
