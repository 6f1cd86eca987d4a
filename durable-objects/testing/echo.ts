/** The smallest function that is one: writes its number into its output. */
export const ECHO = {
  version: 1,
  name: "echo",
  description: "Writes a number.",
  inputs: { value: { kind: "number", type: "f32", min: 0, max: 10 } },
  buffers: {
    given: { kind: "uniform", from: "struct", fields: [{ name: "value", type: "f32", value: "value" }] },
    out: { kind: "storage", from: "zero", bytes: 16 },
  },
  modules: {
    main: "@group(0) @binding(0) var<uniform> given: f32;\n@group(0) @binding(1) var<storage, read_write> out: array<f32>;\n@compute @workgroup_size(1) fn main() { out[0] = given; }",
  },
  passes: [
    {
      module: "main",
      entryPoint: "main",
      bindings: [
        { group: 0, binding: 0, buffer: "given" },
        { group: 0, binding: 1, buffer: "out" },
      ],
      workgroups: [1, 1, 1],
    },
  ],
  outputs: [{ name: "out", kind: "array", buffer: "out", type: "f32", length: 1 }],
};

/** With something wrong in it, or something else in it. */
export function echoWith(change: object): object {
  return { ...ECHO, ...change };
}
