import { describe, expect, it } from "vitest";
import { checkManifest, type FunctionManifest, functionAddress, LIMITS } from "./manifest.ts";

/** Doubles an array and, beside it, echoes an image: one of each kind of input, buffer and output. */
const VALID: FunctionManifest = {
  version: 1,
  name: "@gpux/sample",
  description: "One of everything.",
  inputs: {
    rounds: { kind: "number", type: "u32", min: 1, max: 16, default: 4 },
    gain: { kind: "number", type: "f32", min: 0, max: 2 },
    a: { kind: "array", type: "f32", maxLength: 1024 },
    photo: { kind: "image", maxWidth: 512, maxHeight: 512 },
    scene: {
      kind: "json",
      maxBytes: 1024,
      fields: { "camera.fov": { type: "f32", min: 1, max: 170, default: 40 } },
      lists: {
        objects: { maxLength: 8, item: [{ name: "centre", field: { type: "vec3f", min: -9, max: 9 } }] },
      },
    },
  },
  buffers: {
    settings: {
      kind: "uniform",
      from: "struct",
      fields: [
        { name: "gain", type: "f32", value: "gain" },
        { name: "round", type: "u32", value: "$iteration" },
        { name: "count", type: "u32", value: "a.length" },
      ],
    },
    values: { kind: "storage", from: "input", input: "a" },
    objects: { kind: "storage", from: "list", list: "scene.objects" },
    pixels: { kind: "storage", from: "zero", bytes: { of: ["photo.width", "photo.height", 4] } },
  },
  modules: { main: "@compute @workgroup_size(64) fn run() {}" },
  passes: [
    {
      module: "main",
      entryPoint: "run",
      bindings: [
        { group: 0, binding: 0, buffer: "settings" },
        { group: 0, binding: 1, buffer: "values" },
      ],
      workgroups: [{ of: ["a.length"], per: 64 }, 1, 1],
      repeat: "rounds",
    },
  ],
  outputs: [
    { name: "doubled", kind: "array", buffer: "values", type: "f32", length: "a.length" },
    { name: "picture", kind: "png", buffer: "pixels", width: "photo.width", height: "photo.height" },
  ],
};

type Json = { [key: string]: Json } | Json[] | string | number | null;

/** VALID with the value at `pointer` replaced (or, with undefined, removed). */
function altered(pointer: string, value: Json | undefined): unknown {
  const copy: unknown = JSON.parse(JSON.stringify(VALID));
  const keys = pointer.split("/").slice(1);
  const last = keys.pop() ?? "";
  let place = copy as Record<string, unknown>;
  for (const key of keys) place = place[key] as Record<string, unknown>;
  if (value === undefined) delete place[last];
  else place[last] = value;
  return copy;
}

const LIST = "/inputs/scene/lists/objects";
const BAD: [what: string, pointer: string, value: Json | undefined, code: string, at?: string][] = [
  ["another version", "/version", 2, "manifest_invalid"],
  ["an unknown field", "/licence", "MIT", "manifest_invalid", ""],
  ["a name with capitals", "/name", "@Gpux/Sample", "manifest_invalid"],
  ["no passes", "/passes", [], "manifest_invalid"],
  ["no outputs", "/outputs", [], "manifest_invalid"],
  ["modules that are not text", "/modules/main", 7, "manifest_invalid"],
  ["a module beyond 256 KiB", "/modules/main", "x".repeat(262_145), "manifest_invalid"],
  ["an unknown kind of input", "/inputs/a/kind", "video", "manifest_invalid"],
  ["an input named __proto__", "/inputs", JSON.parse('{"__proto__":{}}'), "manifest_invalid", "*"],
  ["min above max", "/inputs/gain/min", 3, "manifest_invalid"],
  ["a u32 below zero", "/inputs/rounds/min", -1, "manifest_invalid"],
  ["a fractional u32 bound", "/inputs/rounds/max", 1.5, "manifest_invalid"],
  ["a default outside its range", "/inputs/rounds/default", 99, "manifest_invalid"],
  ["an array length of unknown origin", "/inputs/a/length", "nothing", "manifest_invalid"],
  ["a vector default of the wrong size", `${LIST}/item/0/field/default`, [1, 2], "manifest_invalid"],
  [
    "a value inside a value",
    "/inputs/scene/fields/camera",
    { type: "f32", min: 0, max: 1 },
    "manifest_invalid",
    "/inputs/scene/fields",
  ],
  ["an uninitialised size", "/buffers/pixels/bytes", undefined, "manifest_invalid"],
  ["an expression that is code", "/buffers/pixels/bytes", "4*1024", "manifest_invalid"],
  ["division by zero", "/buffers/pixels/bytes", { of: [4], per: 0 }, "manifest_invalid", "*"],
  ["a size from a float", "/buffers/pixels/bytes", "gain", "manifest_invalid"],
  ["a size from an inherited name", "/buffers/pixels/bytes", "constructor", "manifest_invalid"],
  ["a buffer over an input that is a number", "/buffers/values/input", "rounds", "manifest_invalid"],
  ["a buffer over no list", "/buffers/objects/list", "scene.lights", "manifest_invalid"],
  ["a struct field of the wrong type", "/buffers/settings/fields/0/type", "u32", "manifest_invalid", "*"],
  ["a struct field from nowhere", "/buffers/settings/fields/0/value", "bias", "manifest_invalid"],
  ["two struct fields of one name", "/buffers/settings/fields/1/name", "gain", "manifest_invalid"],
  ["an unknown module", "/passes/0/module", "other", "manifest_invalid"],
  ["an unknown buffer", "/passes/0/bindings/1/buffer", "nowhere", "manifest_invalid"],
  ["a binding bound twice", "/passes/0/bindings/1/binding", 0, "manifest_invalid", "/passes/0/bindings/1"],
  ["a repeat of unknown count", "/passes/0/repeat", "samples", "manifest_invalid"],
  ["an output from no buffer", "/outputs/0/buffer", "nowhere", "manifest_invalid"],
  ["an output from a uniform", "/outputs/0/buffer", "settings", "manifest_invalid"],
  ["two outputs of one name", "/outputs/1/name", "doubled", "manifest_invalid"],
  ["an output larger than its buffer", "/outputs/0/length", 5000, "manifest_invalid", "/outputs/0"],
  ["a buffer beyond the portable binding size", "/buffers/pixels/bytes", 2 ** 28, "limit_exceeded", "*"],
  [
    "an image beyond it",
    "/inputs/photo",
    { kind: "image", maxWidth: 16_384, maxHeight: 16_384 },
    "limit_exceeded",
    "*",
  ],
  [
    "a product that overflows",
    "/buffers/pixels/bytes",
    { of: Array(6).fill(2 ** 31) },
    "limit_exceeded",
    "*",
  ],
  ["too many workgroups", "/passes/0/workgroups/1", 65_536, "limit_exceeded"],
  ["too many dispatches", "/passes/0/repeat", 65_537, "limit_exceeded", "/passes/0"],
];

describe("checkManifest", () => {
  it("accepts a manifest of every kind of part and returns it unchanged", () => {
    expect(checkManifest(VALID)).toEqual({ ok: true, manifest: VALID });
  });

  it.each(BAD)("refuses %s", (_what, pointer, value, code, at = pointer) => {
    const answer = checkManifest(altered(pointer, value));
    expect(answer).toMatchObject({ ok: false, code });
    if (at !== "*") expect(answer).toMatchObject({ pointer: at });
  });

  it.each([[null], [[]], ["text"], [7], [undefined], [{}]])("refuses %j, which is no manifest", (value) => {
    expect(checkManifest(value)).toMatchObject({ ok: false, code: "manifest_invalid" });
  });

  it("counts all buffers, outputs and dispatches against the limits it is given", () => {
    const tight = (over: Partial<typeof LIMITS>) => checkManifest(VALID, { ...LIMITS, ...over });
    expect(tight({ bufferBytes: 1_000_000 })).toMatchObject({
      code: "limit_exceeded",
      pointer: "/buffers/pixels",
    });
    expect(tight({ outputBytes: 1_000_000 })).toMatchObject({
      code: "limit_exceeded",
      pointer: "/outputs/1",
    });
    expect(tight({ dispatches: 15 })).toMatchObject({ code: "limit_exceeded", pointer: "/passes/0" });
    expect(tight({ dispatches: 16 })).toMatchObject({ ok: true });
  });
});

describe("functionAddress", () => {
  it("does not depend on the order of keys, and does on every value", async () => {
    const reversed = (value: unknown): unknown => {
      if (Array.isArray(value)) return value.map(reversed);
      if (typeof value !== "object" || value === null) return value;
      return Object.fromEntries(
        Object.entries(value)
          .reverse()
          .map(([key, member]) => [key, reversed(member)]),
      );
    };
    const other = checkManifest(reversed(VALID));
    if (!other.ok) throw new Error(other.detail);
    const address = await functionAddress(VALID);
    expect(address).toMatch(/^[0-9a-f]{64}$/);
    expect(await functionAddress(other.manifest)).toBe(address);
    expect(await functionAddress({ ...VALID, description: "One of everything!" })).not.toBe(address);
  });

  it("is the SHA-256 of the RFC 8785 form", async () => {
    const tiny: FunctionManifest = {
      ...VALID,
      inputs: {},
      buffers: {},
      modules: { m: "é\n" },
      passes: [],
      outputs: [],
    };
    const canonical =
      '{"buffers":{},"description":"One of everything.","inputs":{},"modules":{"m":"é\\n"},"name":"@gpux/sample","outputs":[],"passes":[],"version":1}';
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(canonical));
    expect(await functionAddress(tiny)).toBe(Buffer.from(digest).toString("hex"));
  });
});
