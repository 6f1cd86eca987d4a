import { canonicalJson, sha256Hex } from "@gpux/protocol/canonical";
import { LeaseId } from "@gpux/protocol/ids";
import { type Account, call } from "./client.ts";

/** The smallest function that is one: writes its number input into its output. */
export const MANIFEST = {
  version: 1,
  name: "echo",
  description: "Writes a number.",
  inputs: { value: { kind: "number", type: "f32", min: 0, max: 10 } },
  buffers: {
    given: { kind: "uniform", from: "struct", fields: [{ name: "value", type: "f32", value: "value" }] },
    out: { kind: "storage", from: "zero", bytes: 16 },
  },
  modules: {
    main: "@group(0) @binding(0) var<uniform> given: f32; @group(0) @binding(1) var<storage, read_write> out: array<f32>; @compute @workgroup_size(1) fn main() { out[0] = given; }",
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

/** Stores an object as any principal may; its hash. */
export async function store(account: Account, content: unknown): Promise<string> {
  const body = new Uint8Array(new TextEncoder().encode(canonicalJson(content)));
  const sha256 = await sha256Hex(body);
  const stored = await call(account, `/v1/objects/${sha256}`, {
    method: "PUT",
    body,
    headers: { "content-length": String(body.length) },
  });
  if (!stored.ok) throw new Error(`${stored.status} ${await stored.text()}`);
  return sha256;
}

/** A lease id that no test has. */
export function unknownLease(): LeaseId {
  const letters = Array.from(
    crypto.getRandomValues(new Uint8Array(32)),
    (byte) => "abcdefghijklmnopqrstuvwxyz234567"[byte & 31],
  );
  return LeaseId.parse(`lse_${letters.join("")}`);
}
