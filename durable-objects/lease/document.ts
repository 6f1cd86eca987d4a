import type { JobRequest } from "@gpux/protocol/job";
import type { Job, Lease } from "./state.ts";

/**
 * The text that `z.encode` with the schemas of state.ts would come to, whose one codec is the amount, in a fraction of
 * the time: a lease is written at every step. Reading goes through the schemas.
 */
export function documentOf(value: Lease | Job | Omit<Job, "request"> | JobRequest): string {
  return JSON.stringify(value, (_, each: unknown) => (typeof each === "bigint" ? each.toString() : each));
}
