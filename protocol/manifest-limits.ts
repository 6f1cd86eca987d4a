import { z } from "zod";

/** What one job may use. A provider may set its own, lower or higher. */
export const Limits = z.strictObject({
  /** Milliseconds from the job's start in the executor to its last output byte. */
  wallMs: z.int().min(1),
  /** All buffers of a job together. */
  bufferBytes: z.int().min(1),
  /** Encoded outputs together; the executor checks arrays before the GPU, PNGs by their raw size. */
  outputBytes: z.int().min(1),
  /** Inputs as they arrive, together. */
  inputBytes: z.int().min(1),
  /** Compute dispatches, repeats counted. */
  dispatches: z.int().min(1),
});
export type Limits = z.infer<typeof Limits>;

export const LIMITS: Limits = {
  wallMs: 60_000,
  bufferBytes: 512 * 2 ** 20,
  outputBytes: 64 * 2 ** 20,
  inputBytes: 64 * 2 ** 20,
  dispatches: 65_536,
};

/**
 * What every WebGPU adapter has (WebGPU section 3.6.2, default limits). A function that keeps to them runs on any
 * provider, so a manifest that asks for more is refused and not matched.
 */
export const PORTABLE = {
  bindingBytes: 128 * 2 ** 20,
  uniformBytes: 65_536,
  storageBuffersPerPass: 8,
  uniformBuffersPerPass: 12,
  workgroupsPerDimension: 65_535,
};
