import { sha256Hex } from "@gpux/protocol/canonical";
import type { JobRequest, SignedAllowance } from "@gpux/protocol/job";
import { committed, mostOf } from "./billing.ts";
import type { Draft } from "./draft.ts";
import { type Arrival, admit, type Refusal, raiseAllowance } from "./jobs.ts";

/** Jobs that are taken together; the allowance is for all of them. */
export interface Arrivals {
  readonly arrivals: readonly Arrival[];
  readonly allowance: SignedAllowance | null;
}

/**
 * JOB-10: all are queued, in their order, or none is: who calls drops the draft of a refusal. It names the first job that
 * is not covered, and the allowance that all of them need together.
 */
export function admitAll(draft: Draft, { arrivals, allowance }: Arrivals): Refusal | null {
  const fresh = arrivals.filter(({ job }) => !draft.jobs.has(job));
  const cumulative = fresh.reduce((sum, { request }) => sum + mostOf(draft.lease, request), committed(draft));
  raiseAllowance(draft, allowance ?? undefined);
  for (const [index, arrival] of arrivals.entries()) {
    const refusal = admit(draft, arrival);
    if (refusal === null) continue;
    return "cumulative" in refusal ? { ...refusal, index, cumulative } : { ...refusal, index };
  }
  return null;
}

/** The one that counts for all of them, and which of them brought it; null when none did. */
export function highestAllowance(requests: readonly Pick<JobRequest, "allowance">[]) {
  let highest: { readonly allowance: SignedAllowance; readonly index: number } | null = null;
  for (const [index, { allowance }] of requests.entries())
    if (allowance !== undefined && allowance.cumulative > (highest?.allowance.cumulative ?? -1n))
      highest = { allowance, index };
  return highest;
}

/** What stands for an array of jobs: another array under its Idempotency-Key is another request. */
export function batchHash(inputHashes: readonly string[]): Promise<string> {
  return sha256Hex(inputHashes.join());
}
