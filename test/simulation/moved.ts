import { movedTo } from "@gpux/durable-objects/moved";
import type { LeaseId } from "@gpux/protocol/ids";
import type { Flow } from "./actor.ts";

/** As in durable-objects/moved.ts. */
const MOST_HOPS = 32;

/** Asks the lease that had the job first, and on where that one says that it went. */
export function* askWhereItIs<Answer extends object>(
  first: LeaseId,
  ask: (lease: LeaseId) => Flow<Answer>,
): Flow<Answer> {
  for (let lease = first, hops = 0; ; hops += 1) {
    const answer = yield* ask(lease);
    const to = movedTo(answer);
    if (to === null || hops === MOST_HOPS) return answer;
    lease = to;
  }
}
