import { KEEP_WARM_S } from "@gpux/protocol/lease";
import type { Draft } from "./draft.ts";
import { stopBy } from "./ending.ts";
import { isFinal, isLeaving, isQueued, isSettledJob, type Job } from "./job-state.ts";
import { isDedicated, isWorking, type Lease } from "./state.ts";

/**
 * LSE-9: a serverless lease keeps its node's GPUs while it has work and for `keep_warm_s` after; then others may have
 * them, and its next job first asks the node for them. Every question bears a higher `turn` than the one before, so
 * that one which is late or repeated never undoes a newer one.
 */

/** What keeps a node from giving its GPUs again, as `wait.blockers` names it. */
export type CapacityBlocker = NonNullable<Lease["capacity"]["blocker"]>;

export function isHeld(lease: Lease): boolean {
  return lease.capacity.state === "held";
}

/** Whether a job may be begun on its GPUs. */
export function isReady({ capacity }: Lease): boolean {
  return capacity.state === "held" && capacity.yieldAt === null;
}

/** LSE-11: the node takes the GPUs back at `at`. Said again it may be earlier, never later. Only a yieldable lease does. */
export function yieldBy(draft: Draft, at: number): void {
  const { lease } = draft;
  const { capacity } = lease;
  if (lease.text.tier !== "yieldable" || capacity.state !== "held") return;
  const yieldAt = Math.min(capacity.yieldAt ?? at, at);
  draft.lease = { ...lease, capacity: { ...capacity, yieldAt } };
  if (isDedicated(lease)) stopBy(draft, yieldAt);
}

/** When the GPUs fall back to the node; infinity while the lease has work or another reason to keep them. */
export function restAt({ status, text, errands, capacity }: Lease): number {
  const { state, idleAt } = capacity;
  // What the node was not told to open it could not let rest.
  const mayRest = status === "active" && text.mode === "serverless" && errands.opened && state === "held";
  if (!mayRest || idleAt === null) return Number.POSITIVE_INFINITY;
  return idleAt + (text.keep_warm_s ?? KEEP_WARM_S) * 1_000;
}

/** Follows what there is to do. Runs after every event: harmless when nothing has changed. */
export function tend(draft: Draft): void {
  const { lease, now } = draft;
  // A suspended lease gives its GPUs back as well, when their owner wants them.
  if (!isWorking(lease) || lease.status === "closing") return;
  const { capacity } = lease;
  const jobs = [...draft.jobs.values()];
  switch (capacity.state) {
    case "held": {
      const idleAt = jobs.every(isFinal) ? (capacity.idleAt ?? now) : null;
      if (idleAt !== capacity.idleAt) draft.lease = { ...lease, capacity: { ...capacity, idleAt } };
      if (isDedicated(lease)) return;
      const isLeft = (job: Job) => (job.status === "queued" && isSettledJob(job)) || isFinal(job);
      const hasYielded = capacity.yieldAt !== null && jobs.every(isLeft);
      if (hasYielded || now >= restAt(draft.lease)) turn(draft, "resting");
      return;
    }
    case "resting":
      // A node that had not heard of the rest would find the lease still there, and leave it what it takes back (LSE-11).
      if (capacity.told && jobs.some(isQueued)) turn(draft, "asking");
      return;
    case "asking":
      // One that is offered to another lease may be back at once.
      if (!jobs.some((job) => isQueued(job) || isLeaving(job))) turn(draft, "resting");
  }
}

/** The node's answer to a question of ours. An answer to an older question says nothing any more. */
export function answered(draft: Draft, answer: { turn: number; blocker: CapacityBlocker | null }): void {
  const { lease } = draft;
  const { capacity } = lease;
  if (answer.turn !== capacity.turn) return;
  if (capacity.state === "resting") draft.lease = { ...lease, capacity: { ...capacity, told: true } };
  if (capacity.state !== "asking") return;
  const { blocker } = answer;
  // It would be asked in vain until it is back, and nobody can say when that is.
  if (blocker === "node_draining") stopBy(draft, draft.now);
  else if (blocker !== null) {
    draft.lease = { ...lease, capacity: { ...capacity, blocker } };
  } else {
    draft.lease = { ...lease, capacity: { ...capacity, state: "held", told: true, blocker: null } };
    expectAgent(draft);
  }
}

/** From now on the agent's absence counts: before, nobody wanted it there. */
export function expectAgent(draft: Draft): void {
  const { lease, now } = draft;
  if (lease.awayAt !== null) draft.lease = { ...lease, awayAt: now };
}

/** Whether a lease in this state wants its agent on the data socket. One that rests is dialled when there is need. */
export function wantsAgent(lease: Lease): boolean {
  return isHeld(lease) || lease.status === "closing";
}

function turn(draft: Draft, state: "resting" | "asking"): void {
  const { lease } = draft;
  const capacity = {
    state,
    turn: lease.capacity.turn + 1,
    told: false,
    blocker: null,
    idleAt: null,
    yieldAt: null,
  };
  draft.lease = { ...lease, capacity };
}
