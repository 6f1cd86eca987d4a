import type { FunctionManifest } from "@gpux/protocol/manifest";

/** A function with one input of each kind and one output, as its packed document. */
export const NEGATE: FunctionManifest = {
  version: 1,
  name: "@gpux/negate",
  description: "The smallest function with an input of each kind.",
  inputs: {
    strength: { kind: "number", type: "f32", min: 0, max: 1, default: 1 },
    rounds: { kind: "number", type: "u32", min: 1, max: 8 },
    a: { kind: "array", type: "f32", maxLength: 65_536 },
    photo: { kind: "image", maxWidth: 64, maxHeight: 64 },
    scene: { kind: "json", maxBytes: 262_144, fields: { fov: { type: "f32", min: 1, max: 170 } }, lists: {} },
  },
  buffers: {
    a: { kind: "storage", from: "input", input: "a" },
    pixels: { kind: "storage", from: "zero", bytes: { of: ["photo.width", "photo.height", 4] } },
  },
  modules: { main: "@compute @workgroup_size(64) fn run() {}" },
  passes: [
    {
      module: "main",
      entryPoint: "run",
      bindings: [{ group: 0, binding: 0, buffer: "a" }],
      workgroups: [{ of: ["a.length"], per: 64 }, 1, 1],
    },
  ],
  outputs: [{ name: "image", kind: "png", buffer: "pixels", width: "photo.width", height: "photo.height" }],
};
