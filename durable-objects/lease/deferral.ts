import type { FromLease, ToLease } from "@gpux/protocol/frames";
import { isTerminal } from "./job-state.ts";
import type { State } from "./state.ts";

/** The longest that a change stays in memory alone; what is promised meanwhile is in SPEC ACK-5. */
export const BEHIND_MS = 10;

/** Frames whose effect the agent would tell again: their rows may follow a moment later. */
export const HOT: ReadonlySet<FromLease["t"]> = new Set([
  "started",
  "progress",
  "log",
  "result",
  "failed",
  "stopped",
  "ack",
]);

/** Whether nothing was promised to anybody in this step but what agent and caller would bring again. */
export function mayFollow(was: State, is: State, frames: readonly ToLease[]): boolean {
  const { lease: before } = was;
  const { lease: after } = is;
  return (
    !endsAfterOthers(was, is) &&
    before.status === after.status &&
    before.allowance === after.allowance &&
    before.capacity.turn === after.capacity.turn &&
    before.drainAt === after.drainAt &&
    before.block === after.block &&
    before.closing === after.closing &&
    before.topUps === after.topUps &&
    frames.every(({ t }) => t === "run" || t === "runs" || t === "cancel")
  );
}

/**
 * Whether a job has ended that had lost an attempt before. What its agent brings back after a crash begins with the first
 * of them, by which the job would run again, whatever end its caller was told.
 */
function endsAfterOthers(was: State, { jobs }: State): boolean {
  for (const [id, job] of jobs)
    if (job.attempts.length > 1 && isTerminal(job) && was.jobs.get(id)?.status !== job.status) return true;
  return false;
}
