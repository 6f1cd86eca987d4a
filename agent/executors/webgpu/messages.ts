import { z } from "zod";
import { EXECUTION_FAULTS, type ExecutionCode, type FunctionJob } from "../executor.ts";

/** What the executor asks of its child; `id` rises by one per job of a child. */
export type ParentMessage = { t: "run"; id: number; job: FunctionJob } | { t: "pause"; id: number };

const Description = z.strictObject({
  adapter: z.string().max(500),
  vendor: z.string().max(100),
  architecture: z.string().max(100),
  backend: z.string().max(100),
  software: z.boolean(),
  maxBufferBytes: z.int(),
  maxBindingBytes: z.int(),
  features: z.array(z.string()),
});

const Milliseconds = z.number().min(0);
const Code = z.custom<ExecutionCode>(
  (code) => typeof code === "string" && Object.hasOwn(EXECUTION_FAULTS, code),
);

const Bytes = z.custom<Uint8Array>((value) => value instanceof Uint8Array);

const Outcome = z.discriminatedUnion("ok", [
  z.strictObject({
    ok: z.literal(true),
    outputs: z.array(
      z.strictObject({
        name: z.string(),
        contentType: z.string(),
        bytes: Bytes,
      }),
    ),
    gpuMs: Milliseconds,
  }),
  z.strictObject({
    ok: z.literal(false),
    code: Code,
    detail: z.string(),
    diagnostics: z
      .array(z.strictObject({ module: z.string(), line: z.int(), column: z.int(), message: z.string() }))
      .optional(),
  }),
]);

/** What the child tells. It has read a stranger's images and shaders, so the parent believes nothing unchecked. */
export const ChildMessage = z.discriminatedUnion("t", [
  z.strictObject({ t: z.literal("ready"), description: Description }),
  z.strictObject({ t: z.literal("no_adapter"), detail: z.string() }),
  z.strictObject({
    t: z.literal("progress"),
    id: z.int(),
    fraction: z.number().min(0).max(1),
    note: z.string().max(200).optional(),
  }),
  z.strictObject({ t: z.literal("log"), id: z.int(), line: z.string().max(2_000) }),
  z.strictObject({ t: z.literal("done"), id: z.int(), outcome: Outcome }),
  /** The job was broken off between two dispatches; `state` is its checkpoint (checkpoint.ts). */
  z.strictObject({ t: z.literal("paused"), id: z.int(), state: Bytes }),
]);
export type ChildMessage = z.infer<typeof ChildMessage>;
export type ChildOutcome = z.infer<typeof Outcome>;
