import { JOB_FAILURES, JobFailureCode } from "@gpux/protocol/errors";
import type { Checkpoint, Output } from "@gpux/protocol/job";
import { bill } from "./billing.ts";
import { isHeld } from "./capacity.ts";
import { type Draft, note, put } from "./draft.ts";
import { costOf, currentAttempt, isLeaving, type Job } from "./job-state.ts";
import { begin, deadline, keepsWork, recall, sendCancel, withAttempt } from "./jobs.ts";

/** How a job's attempt ends, and what that costs (SPEC JOB-6, JOB-8, MTR-2). Each function changes the draft only. */

interface Ending {
  readonly status: "succeeded" | "failed" | "canceled" | "timed_out" | "aborted";
  readonly agentMs?: number;
  readonly gpu?: string;
  readonly outputs?: readonly Output[];
  readonly failure?: { readonly code: JobFailureCode; readonly detail?: string | undefined };
  /** MTR-2: only what ran is charged, and only when it was not the provider's or our fault. */
  readonly charged: boolean;
}

export function finish(draft: Draft, job: Job, ending: Ending): void {
  // It is another lease's, or may be by now: that one's answer comes first (moves.ts).
  if (job.move !== null) return;
  recall(draft, job, "it has ended");
  const attempt = currentAttempt(job);
  // One that was lost or gave way before says why itself (JOB-8), however the job's wait for the next one ends.
  const closed =
    attempt === undefined || attempt.outcome !== null
      ? job
      : withAttempt(job, {
          ...attempt,
          endedAt: draft.now,
          outcome: ending.failure?.code ?? ending.status,
        });
  const { code, detail } = ending.failure ?? {};
  const ended: Job = {
    ...closed,
    status: ending.status,
    prefetched: null,
    endedAt: draft.now,
    outputs: [...(ending.outputs ?? [])],
    failure: code === undefined ? null : { code, ...(detail === undefined ? {} : { detail }) },
  };
  const billed =
    ending.charged && job.status === "running"
      ? bill(draft.lease, ended, {
          now: draft.now,
          agentMs: ending.agentMs ?? null,
          gpu: ending.gpu ?? null,
          outputs: ended.outputs,
        })
      : { lease: draft.lease, job: ended };
  draft.lease = { ...billed.lease, jobsEnded: billed.lease.jobsEnded + 1 };
  put(draft, billed.job);
  const cost = costOf(billed.job);
  note(draft, job.id, "status", {
    status: ending.status,
    price: cost.price.toString(),
    billed_ms: cost.billedMs,
    ...(code === undefined ? {} : { error: code }),
  });
}

/** The outcome of an attempt that made room for the owner or a firm demand. */
export const YIELDED = "yielded";

/** Of one that its agent had before its turn and that was called back (turns.ts): it did not run. */
export const WITHDRAWN = "withdrawn";

const UNSPENT: ReadonlySet<string | null | undefined> = new Set([YIELDED, "node_draining", WITHDRAWN]);

/** LSE-11: stopped for no fault of its own or its node's: no retry is spent. What kept nothing costs nothing. */
export function giveWay(draft: Draft, job: Job): void {
  sendCancel(draft, job, "its GPU is taken back");
  if (job.cancelAskedAt !== null) return finish(draft, job, { status: "canceled", charged: false });
  requeue(draft, job, YIELDED);
}

/**
 * CKP-1: it made room and kept what it had done. That much is billed, and the next attempt goes on from there. What keeps
 * without having been told to give way has only failed to do its work.
 */
export function keep(
  draft: Draft,
  job: Job,
  said: { readonly ms: number; readonly gpu: string; readonly checkpoint: Checkpoint },
): void {
  if (draft.lease.capacity.yieldAt === null || !keepsWork(draft.lease, job))
    return lose(draft, job, { code: "executor_failed", detail: "it gave way to nobody" });
  const began = begin(draft, job, said.ms);
  const end = { agentMs: said.ms, gpu: said.gpu };
  if (job.cancelAskedAt !== null) return finish(draft, began, { ...end, status: "canceled", charged: true });
  const billed = bill(draft.lease, began, { ...end, now: draft.now, outputs: [] });
  draft.lease = billed.lease;
  const { receipt } = billed.job;
  const kept = receipt === null ? billed.job.kept : [...billed.job.kept, receipt];
  requeue(draft, { ...billed.job, kept, receipt: null, checkpoint: said.checkpoint }, YIELDED);
}

export function requeue(draft: Draft, job: Job, outcome: string): void {
  const attempt = currentAttempt(job);
  if (attempt === undefined) return;
  const closed = withAttempt(job, { ...attempt, endedAt: draft.now, outcome });
  put(draft, { ...closed, status: "queued", queuedAt: draft.now });
  const receipt = job.kept.at(-1)?.receipt;
  const paid =
    receipt?.attempt === attempt.token.n
      ? { price: receipt.price.toString(), billed_ms: Number(receipt.billedMs) }
      : {};
  note(draft, job.id, "attempt", { attempt: attempt.token.n, outcome, ...paid });
  note(draft, job.id, "status", { status: "queued" });
}

/** Its attempts on whichever lease. */
function allAttempts({ attempts, past }: Job): { readonly outcome?: string | null | undefined }[] {
  return [...(past?.attempts ?? []), ...attempts];
}

/**
 * Attempts that count against `retries`: none that gave way, that its node's end broke off before the job moved, or that
 * was called back before its turn.
 */
function spentAttempts(job: Job): number {
  return allAttempts(job).filter(({ outcome }) => !UNSPENT.has(outcome)).length;
}

/**
 * JOB-6: a lost attempt costs nothing and goes back to the queue, unless the retries are spent. A closing lease begins
 * nothing more: its agent may have signed for the end already.
 */
export function lose(draft: Draft, job: Job, failure: NonNullable<Ending["failure"]>): void {
  const isLast = spentAttempts(job) > job.request.retries || draft.lease.status === "closing";
  if (job.cancelAskedAt !== null || isLast) return giveUp(draft, job, failure);
  requeue(draft, job, failure.code);
}

/** Nobody will try this job again, and nothing is charged for it. */
export function giveUp(draft: Draft, job: Job, failure: NonNullable<Ending["failure"]>): void {
  if (job.cancelAskedAt !== null) finish(draft, job, { status: "canceled", charged: false });
  else {
    const isTried = allAttempts(job).some(({ outcome }) => outcome !== WITHDRAWN);
    finish(draft, job, { status: isTried ? "failed" : "aborted", failure, charged: false });
  }
}

/** What the agent said went wrong. A code that we do not know is the provider's own affair, and so its fault. */
export function fail(
  draft: Draft,
  job: Job,
  said: { code: string; detail?: string | undefined; ms: number; gpu: string },
): void {
  const named = JobFailureCode.catch("executor_failed").parse(said.code);
  // A node's end spends no retry, so it is for its own notice to say (LSE-10): else a job could be failed without end.
  const code = named === "node_draining" && draft.lease.drainAt === null ? "executor_failed" : named;
  const failure = { code, detail: said.detail };
  const end = { agentMs: said.ms, gpu: said.gpu, failure };
  const began = job.status === "running" ? begin(draft, job, said.ms) : job;
  if (code === "execution_timeout")
    return finish(draft, began, { ...end, status: "timed_out", charged: true });
  if (JOB_FAILURES[code].fault !== "tenant") return lose(draft, began, failure);
  finish(draft, began, { ...end, status: "failed", charged: code === "limit_exceeded" });
}

export function cancel(draft: Draft, job: Job): void {
  if (job.status === "queued") return finish(draft, job, { status: "canceled", charged: false });
  if (job.cancelAskedAt !== null) return;
  put(draft, { ...job, cancelAskedAt: draft.now });
  sendCancel(draft, job, "the consumer canceled it");
}

/** LSE-9: of a lease without its GPUs, what kept them from it to the last, as `wait.blockers` named it meanwhile. */
function waitedFor({ lease }: Draft): { detail?: string } {
  return isHeld(lease) ? {} : { detail: `it waited for its GPUs (${lease.capacity.blocker ?? "warming"})` };
}

/** JOB-4: a job that outlived its time-out ends, whether or not anybody is there to say so. */
export function expire(draft: Draft, job: Job): void {
  const { at, why } = deadline(draft, job);
  if (draft.now < at || isLeaving(job)) return;
  // MTR-7: without the agent's word nobody knows how long it ran. The socket may be dead and not known to be, the job
  // long over; a bill by our clock alone would be one that the agent rightly does not sign.
  if (why === "cancel") return finish(draft, job, { status: "canceled", charged: false });
  if (why === "execution" && draft.lease.awayAt !== null) return lose(draft, job, { code: "node_lost" });
  sendCancel(draft, job, `its ${why} time-out passed`);
  if (why === "execution")
    return finish(draft, job, {
      status: "timed_out",
      failure: { code: "execution_timeout", detail: "its node did not end it" },
      charged: false,
    });
  const failure = { code: "start_timeout", ...(why === "queue" ? waitedFor(draft) : {}) } as const;
  finish(draft, job, { status: "aborted", failure, charged: false });
}
