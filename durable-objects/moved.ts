import { LeaseId } from "@gpux/protocol/ids";
import type { Refused } from "./interfaces.ts";

/** A lease's answer for a job that it had and another has now (SPEC JOB-11). */
export interface Moved extends Refused {
  readonly code: "job_moved";
  readonly lease: LeaseId;
}

/** More than the leases that one account has open; a job is never offered to one twice. */
const MOST_HOPS = 32;

/** Asks the lease that had the job first, and on where that one says that it went. */
export async function askWhereItIs<Answer extends object>(
  first: LeaseId,
  ask: (lease: LeaseId) => Promise<Answer>,
): Promise<Answer> {
  for (let lease = first, hops = 0; ; hops += 1) {
    const answer = await ask(lease);
    const to = movedTo(answer);
    if (to === null || hops === MOST_HOPS) return answer;
    lease = to;
  }
}

/** Null: the answer is about the job itself. */
export function movedTo(answer: object): LeaseId | null {
  if (!("code" in answer) || answer.code !== "job_moved" || !("lease" in answer)) return null;
  return LeaseId.safeParse(answer.lease).data ?? null;
}

/** What a lease says as it closes the socket of who watches a job that has moved: where to watch on. */
export function movedReason(to: LeaseId): string {
  return `moved ${to}`;
}

/** Null: the socket was closed for another reason. */
export function movedByReason(reason: string): LeaseId | null {
  const [word, lease] = reason.split(" ");
  return word === "moved" ? (LeaseId.safeParse(lease).data ?? null) : null;
}
