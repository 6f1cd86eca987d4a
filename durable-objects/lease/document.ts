import type { ToLease } from "@gpux/protocol/frames";
import type { JobRequest } from "@gpux/protocol/job";
import type { Job, Lease } from "./state.ts";
import type { Ticket } from "./tickets.ts";

/**
 * The text that `z.encode` with the schemas of state.ts and the frames' would come to, whose one codec is the amount, in a fraction of
 * the time: a lease is written at every step. Reading goes through the schemas.
 */
export function documentOf(
  value: Lease | Job | Omit<Job, "request"> | JobRequest | Ticket | ToLease,
): string {
  return JSON.stringify(value, (_, each: unknown) => (typeof each === "bigint" ? each.toString() : each));
}
