import { z } from "zod";

/**
 * What a challenge has shown. `verified`: right, and at least as fast as the model must be; `slow`: right, and slower, or
 * not there in time; `unrated`: right, of a model of which no rate is known; `wrong`: it was not computed as it was said.
 */
export const Verdict = z.strictObject({
  result: z.enum(["verified", "slow", "unrated", "wrong"]),
  /** Operations per second by the edge's clock, in 10^9, the way to the node and back included; 0 where it was wrong. */
  gops: z.number().min(0),
  /** Milliseconds. */
  at: z.int(),
});
export type Verdict = z.infer<typeof Verdict>;

/** So long a verdict stands; it is given anew about once a day, when the node has nothing else to do. */
export const VERDICT_MS = 7 * 86_400_000;

/** A challenge has one GPU work, whichever the node's executor uses. */
const GPUS = 1;

/** How many GPUs of a lease the verdict vouches for. `now` in milliseconds. */
export function verifiedGpus(verdict: Verdict | null, now: number): number {
  return verdict?.result === "verified" && now < verdict.at + VERDICT_MS ? GPUS : 0;
}
