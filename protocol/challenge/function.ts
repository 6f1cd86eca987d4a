import type { FunctionManifest } from "../manifest.ts";

/** Rows and columns of the product. */
export const SIZE = 2_048;
/** Rows and columns of a unit: what is hashed to one number, and checked alone. */
export const UNIT = 16;
export const UNITS_ACROSS = SIZE / UNIT;
export const UNITS = UNITS_ACROSS * UNITS_ACROSS;

/** Depth of a step of the kernel's loop; a challenge's depth is a multiple of it. */
export const STEP = 16;
/** The most depth of one dispatch: a driver resets a GPU that is busy for seconds. */
export const MOST_IN_DISPATCH = 1_024;

/**
 * The product of two matrices of u32, modulo 2^32: exact on every GPU. Their elements follow from the seed by a mix that
 * is linear in nothing, so that no transform and no low rank makes it cheaper, and are made where they are used: what is
 * measured is arithmetic and not the way to memory. Each workgroup has 64 x 64 of the product, each invocation 4 x 4.
 */
const SOURCE = `
struct Settings { seed_a: u32, seed_b: u32, depth: u32, iteration: u32 }
@group(0) @binding(0) var<uniform> settings: Settings;
@group(0) @binding(1) var<storage, read_write> product: array<u32>;
@group(0) @binding(2) var<storage, read_write> hashes: array<u32>;

const SIZE = ${SIZE}u;
const UNIT = ${UNIT}u;
const STEP = ${STEP}u;

fn key(seed: u32, at: u32) -> u32 {
  var x = seed ^ (at * 0x9e3779b1u);
  x = (x ^ (x >> 16u)) * 0x7feb352du;
  x = (x ^ (x >> 15u)) * 0x846ca68bu;
  return x ^ (x >> 16u);
}

fn element(line: u32, k: u32) -> u32 {
  var x = line ^ (k * 0x9e3779b1u);
  x = x * 0x85ebca6bu;
  return (x ^ (x >> 15u)) * 0xc2b2ae35u;
}

var<workgroup> rows: array<u32, 1024>;
var<workgroup> columns: array<u32, 1024>;

@compute @workgroup_size(16, 16)
fn multiply(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u,
            @builtin(local_invocation_index) index: u32) {
  let row = group.y * 64u + local.y * 4u;
  let column = group.x * 64u + local.x * 4u;
  // Of the 64 lines that the workgroup shares, this invocation fills four steps of one.
  let line = index / 4u;
  let first = (index % 4u) * 4u;
  let row_key = key(settings.seed_a, group.y * 64u + line);
  let column_key = key(settings.seed_b, group.x * 64u + line);
  var sums: array<vec4u, 4>;
  let begin = settings.iteration * settings.depth;
  for (var k = begin; k < begin + settings.depth; k += STEP) {
    for (var i = first; i < first + 4u; i++) {
      rows[i * 64u + line] = element(row_key, k + i);
      columns[i * 64u + line] = element(column_key, k + i);
    }
    workgroupBarrier();
    for (var i = 0u; i < STEP; i++) {
      let at = i * 64u;
      let b = vec4u(columns[at + local.x * 4u], columns[at + local.x * 4u + 1u],
                    columns[at + local.x * 4u + 2u], columns[at + local.x * 4u + 3u]);
      for (var r = 0u; r < 4u; r++) { sums[r] += rows[at + local.y * 4u + r] * b; }
    }
    workgroupBarrier();
  }
  for (var r = 0u; r < 4u; r++) {
    for (var c = 0u; c < 4u; c++) { product[(row + r) * SIZE + column + c] += sums[r][c]; }
  }
}

fn unit_hash(unit: u32) -> u32 {
  let row = (unit / (SIZE / UNIT)) * UNIT;
  let column = (unit % (SIZE / UNIT)) * UNIT;
  var sum = 0u;
  for (var r = 0u; r < UNIT; r++) {
    for (var c = 0u; c < UNIT; c++) {
      let at = (row + r) * SIZE + column + c;
      sum += key(product[at], at);
    }
  }
  return sum >> 16u;
}

@compute @workgroup_size(64)
fn digest(@builtin(global_invocation_id) id: vec3u) {
  hashes[id.x] = unit_hash(id.x * 2u) | (unit_hash(id.x * 2u + 1u) << 16u);
}
`;

/** The function that a challenge runs: an ordinary one, so that nodes need no program of ours to answer it. */
export const CHALLENGE_FUNCTION: FunctionManifest = {
  version: 1,
  name: "capacity-challenge",
  description: "Multiplies two matrices that follow from a seed, and hashes each part of the product.",
  inputs: {
    seed_a: { kind: "number", type: "u32", min: 0, max: 2 ** 32 - 1 },
    seed_b: { kind: "number", type: "u32", min: 0, max: 2 ** 32 - 1 },
    depth: { kind: "number", type: "u32", min: STEP, max: MOST_IN_DISPATCH },
    dispatches: { kind: "number", type: "u32", min: 1, max: 4_096 },
  },
  buffers: {
    settings: {
      kind: "uniform",
      from: "struct",
      fields: [
        { name: "seed_a", type: "u32", value: "seed_a" },
        { name: "seed_b", type: "u32", value: "seed_b" },
        { name: "depth", type: "u32", value: "depth" },
        { name: "iteration", type: "u32", value: "$iteration" },
      ],
    },
    product: { kind: "storage", from: "zero", bytes: 4 * SIZE * SIZE },
    hashes: { kind: "storage", from: "zero", bytes: 2 * UNITS },
  },
  modules: { main: SOURCE },
  passes: [
    {
      module: "main",
      entryPoint: "multiply",
      bindings: [
        { group: 0, binding: 0, buffer: "settings" },
        { group: 0, binding: 1, buffer: "product" },
      ],
      workgroups: [SIZE / 64, SIZE / 64, 1],
      repeat: "dispatches",
    },
    {
      module: "main",
      entryPoint: "digest",
      bindings: [
        { group: 0, binding: 1, buffer: "product" },
        { group: 0, binding: 2, buffer: "hashes" },
      ],
      workgroups: [UNITS / 128, 1, 1],
    },
  ],
  outputs: [{ name: "hashes", kind: "array", buffer: "hashes", type: "u32", length: UNITS / 2 }],
};
