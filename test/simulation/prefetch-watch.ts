import type { Job } from "@gpux/durable-objects/lease/job-state";
import { WITHDRAWN } from "@gpux/durable-objects/lease/outcome";
import type { State } from "@gpux/durable-objects/lease/state";
import { sideBySide } from "@gpux/protocol/quote-text";
import { hold } from "./violation.ts";

/** What must hold of jobs that an agent has before their turn (SPEC JOB-12). */

/** As in durable-objects/lease/jobs.ts. */
const REPLAY_MS = 5_000;

export function checkPrefetched(was: Job | undefined, job: Job, now: number): void {
  const { id, status, attempts, failure, prefetched } = job;
  hold(prefetched === null || status === "queued", "JOB-12 it waits until it is begun", () => id);
  for (const { outcome, startedAt } of attempts)
    hold(outcome !== WITHDRAWN || startedAt === null, "JOB-12 what is called back did not run", () => id);
  if (was?.prefetched == null || status !== "aborted" || failure?.code !== "start_timeout") return;
  const turnAt = was.prefetched.turn?.at ?? null;
  const { queue_s, start_s } = was.request.timeouts;
  hold(
    now >= (turnAt === null ? was.queuedAt + queue_s * 1_000 : turnAt + start_s * 1_000),
    "JOB-4 no time before it counts as its start",
    () => `${id} had room for ${now - (turnAt ?? now)} ms`,
  );
}

/** `busy`: jobs of the lease that are under way. */
export function checkTurns({ lease, jobs }: State, busy: number): void {
  const turns = [...jobs.values()].filter(({ prefetched }) => prefetched?.turn != null).length;
  hold(
    turns === 0 || busy + turns <= sideBySide(lease.text),
    "C3 no more turns are given than there is room for",
    () => lease.id,
  );
}

/** JOB-4: when one that waits ends at the latest; after an outage its agent first says again what became of it. */
export function latestEnd({ queuedAt, prefetched, request }: Job, { lease }: State): number {
  const { queue_s, start_s } = request.timeouts;
  const queue = queuedAt + queue_s * 1_000;
  if (prefetched === null) return queue;
  const { sentAt, turn } = prefetched;
  const replayed = (lease.metAt ?? 0) > sentAt ? (lease.metAt ?? 0) + REPLAY_MS : 0;
  return Math.max(turn === null ? queue : turn.at + start_s * 1_000, replayed);
}
