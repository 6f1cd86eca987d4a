import type { JobId, LeaseId } from "@gpux/protocol/ids";
import type { Carried } from "../interfaces.ts";
import { billableMs, leftOf } from "./billing.ts";
import { wantsAgent } from "./capacity.ts";
import { type Draft, note, put } from "./draft.ts";
import { GRACE_MS } from "./ending.ts";
import { costOf, isLeaving, isQueued, isSettledJob, type Job } from "./job-state.ts";
import { arrived, deadline, type Refusal, refuse, roomFor } from "./jobs.ts";
import { giveUp } from "./outcome.ts";
import { isDedicated, isOver, isWorking, type Lease, type State } from "./state.ts";
import { attemptViews } from "./view.ts";

/**
 * A job that waits on a lease whose node cannot do it moves to another lease of the same account (SPEC JOB-11). Its
 * lease asks the Account which ones would do, then offers it to one at a time: `leaving` from before that is asked until
 * it has answered, so that nobody else ends or begins the job meanwhile, and then either `gone`, for good, or back in the
 * queue. The other lease answers once and keeps its answer, so a question that is lost or repeated asks the same.
 */

/** Offered to one lease in one call. */
export const MOST_MOVED = 32;

/** Whether the lease's node cannot begin what waits here, and it is not known that it soon could. */
export function isStuck(lease: Lease, now: number): boolean {
  const { capacity, awayAt, drainAt } = lease;
  if (!isWorking(lease)) return false;
  const isAway = awayAt !== null && wantsAgent(lease) && now >= awayAt + GRACE_MS;
  return drainAt !== null || isAway || capacity.blocker !== null || capacity.yieldAt !== null;
}

/** Whether the job may go on elsewhere. A dedicated lease is a machine of its consumer's choice, an array stays together. */
export function mayMove(lease: Lease, job: Job): boolean {
  if (isDedicated(lease) || job.batch !== null) return false;
  return isQueued(job) && job.prefetched === null && job.cancelAskedAt === null;
}

/** Jobs that another lease is to be found for. What they have cost here must be signed for before they go. */
export function movers({ lease, jobs }: State, now: number): Job[] {
  if (!isStuck(lease, now)) return [];
  return [...jobs.values()].filter((job) => mayMove(lease, job) && isSettledJob(job));
}

/** Those that were offered and not answered for, by the lease that was asked. */
export function leavers({ jobs }: State): Map<LeaseId, Job[]> {
  const leaving = new Map<LeaseId, Job[]>();
  for (const job of jobs.values()) {
    if (job.move === null || job.move.gone) continue;
    const others = leaving.get(job.move.to) ?? [];
    if (others.length < MOST_MOVED) leaving.set(job.move.to, [...others, job]);
  }
  return leaving;
}

/**
 * The Account's answer: leases that would do, best first. `awaited`: jobs that stay, for a client's own socket waits here
 * for their end.
 */
export function offer(draft: Draft, leases: readonly LeaseId[], awaited: readonly JobId[]): void {
  for (const job of movers(draft, draft.now)) {
    const to = awaited.includes(job.id) ? undefined : leases.find((each) => !job.been.includes(each));
    if (to !== undefined) {
      put(draft, { ...job, move: { to, gone: false } });
      note(draft, job.id, "move", { to });
    } else if (draft.lease.drainAt !== null) giveUp(draft, job, { code: "node_draining" });
  }
}

/** The other lease's answer. What it would not have waits here again, if there still is something to wait for. */
export function moved(
  draft: Draft,
  { to, taken, declined }: { to: LeaseId; taken: readonly JobId[]; declined: readonly JobId[] },
): void {
  const asked = (id: JobId) => {
    const job = draft.jobs.get(id);
    return job !== undefined && isLeaving(job) && job.move?.to === to ? [job] : [];
  };
  for (const job of taken.flatMap(asked)) put(draft, { ...job, move: { to, gone: true } });
  for (const job of declined.flatMap(asked)) {
    const back: Job = { ...job, move: null, been: [...job.been, to] };
    put(draft, back);
    if (isOver(draft.lease))
      giveUp(draft, back, { code: draft.lease.end?.reason === "node_lost" ? "node_lost" : "lease_ended" });
  }
}

/** As it is handed over. */
export function carriedOf(lease: Lease, job: Job): Carried {
  const { allowance: _ofThisLease, ...request } = job.request;
  const cost = costOf(job);
  const attempts = attemptViews(lease, job).map((each) => ({ lease_id: lease.id, ...each }));
  return {
    job: job.id,
    clientId: job.clientId,
    retryOf: job.retryOf,
    request,
    inputHash: job.inputHash,
    session: job.session,
    createdAt: job.createdAt,
    queuedAt: job.queuedAt,
    checkpoint: job.checkpoint,
    been: [...job.been, lease.id],
    past: { attempts, ...cost },
    billableMs: billableMs(lease, job),
    payer: lease.terms.payer,
    consumerSigner: lease.terms.consumerSigner,
  };
}

/**
 * Takes a job over from another lease, with its id, its age and what it has cost. Not by a lease that could not begin it
 * either, nor by one on which the same money buys less time.
 */
export function adopt(draft: Draft, carried: Carried): Refusal | null {
  const { lease, now } = draft;
  if (draft.jobs.has(carried.job)) return null;
  const { payer, consumerSigner } = lease.terms;
  if (payer !== carried.payer || consumerSigner !== carried.consumerSigner) return refuse("forbidden");
  const isAway = lease.awayAt !== null && wantsAgent(lease);
  if (lease.status !== "active" || isDedicated(lease) || isAway || isStuck(lease, now))
    return refuse("lease_closed", "it could not begin the job either");
  const job: Job = {
    ...arrived(carried.job, lease.arrivals + 1, carried.request, now),
    clientId: carried.clientId,
    retryOf: carried.retryOf,
    batch: null,
    session: carried.session,
    inputHash: carried.inputHash,
    createdAt: carried.createdAt,
    queuedAt: carried.queuedAt,
    checkpoint: carried.checkpoint,
    been: [...carried.been],
    past: carried.past,
  };
  // What its checkpoint spares was paid for: it would be paid twice by an agent that does not know of those.
  if (job.checkpoint !== null && !lease.keeps) return refuse("lease_closed", "its agent keeps no work");
  if (now >= deadline(draft, job).at) return refuse("lease_closed", "it has waited too long already");
  const refusal = roomFor(draft, job.request, leftOf(job));
  if (refusal !== null) return refusal;
  if (billableMs(lease, job) < carried.billableMs) return refuse("lease_underfunded", "it costs more here");
  draft.lease = { ...draft.lease, arrivals: lease.arrivals + 1 };
  put(draft, job);
  note(draft, job.id, "status", { status: "queued" });
  return null;
}
