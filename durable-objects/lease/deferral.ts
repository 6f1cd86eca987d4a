import type { FromLease, ToLease } from "@gpux/protocol/frames";
import type { Lease } from "./state.ts";

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
export function mayFollow(before: Lease, after: Lease, frames: readonly ToLease[]): boolean {
  return (
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
