import { echoWith } from "@gpux/durable-objects/testing/echo";
import type { JobFailureCode } from "@gpux/protocol/errors";
import type { JobInput } from "@gpux/sdk";
import { type Ground, store } from "./ground.ts";
import { publish } from "./market.ts";

export type Work = Pick<JobInput, "function" | "inputs" | "timeouts">;

/** A job that is taken and fails by its sender's fault: as what, and what the sender gets to read. */
export type FailingJob = readonly [
  title: string,
  code: JobFailureCode,
  reason: RegExp,
  work: (ground: Ground) => Promise<Work>,
];

const BINDINGS =
  "@group(0) @binding(0) var<uniform> given: f32;\n@group(0) @binding(1) var<storage, read_write> out: array<f32>;\n";

/** The echo with another shader. */
export async function shader({ client }: Pick<Ground, "client">, code: string): Promise<Work> {
  const changed = echoWith({ modules: { main: `${BINDINGS}@compute @workgroup_size(1) ${code}` } });
  return { function: await store(client, changed), inputs: { value: { number: 1 } } };
}

/** Never ends, in a way that no compiler can see. */
export const FOREVER = "fn main() { while (out[0] >= 0.0) { out[0] = fract(out[0] + given); } }";

async function picture({ client }: Ground, bytes: Buffer): Promise<Work> {
  const photo = { base64: bytes.toString("base64") };
  return { function: await publish(client, "denoise"), inputs: { photo } };
}
const PNG_HEAD = Buffer.from("89504e470d0a1a0a0000000d49484452", "hex");

export const FAILING_JOBS: readonly FailingJob[] = [
  [
    "WGSL that does not compile",
    "wgsl_invalid",
    /^main\.wgsl:4:12: unresolved value 'nothing'/,
    (ground) => shader(ground, "fn main() {\n  out[0] = nothing;\n}"),
  ],
  [
    "WGSL without the entry point",
    "wgsl_invalid",
    /main/,
    (ground) => shader(ground, "fn other() { out[0] = given; }"),
  ],
  ["an image that is none", "input_invalid", /photo/, (ground) => picture(ground, Buffer.from("no picture"))],
  ["a picture that is cut off", "input_invalid", /photo/, (ground) => picture(ground, PNG_HEAD)],
  [
    "an array of the wrong length",
    "input_invalid",
    /\ba\b/,
    async ({ client }) => {
      const [two, short] = [{ number: 2 }, { base64: "AAAA" }];
      const inputs = { n: two, k: two, m: two, a: short, b: short };
      return { function: await publish(client, "matmul"), inputs };
    },
  ],
];
