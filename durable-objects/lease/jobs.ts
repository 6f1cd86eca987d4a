import type { ErrorCode } from "@gpux/protocol/errors";
import type { JobId } from "@gpux/protocol/ids";
import type { AttemptToken, Checkpoint, JobRequest } from "@gpux/protocol/job";
import type { SessionId } from "@gpux/protocol/session";
import { ceiling, committed, executionMs, leftOf, mostOf } from "./billing.ts";
import { type Draft, note, put, send } from "./draft.ts";
import { type Attempt, currentAttempt, isTerminal, type Job } from "./job-state.ts";
import type { Run } from "./runs.ts";
import { isDedicated, isWorking, type Lease, pledged, windUpAt } from "./state.ts";
import type { Ticket } from "./tickets.ts";

/** The way of a job through its lease (SPEC JOB-*). Each function changes the draft only. */

/** Jobs that have not ended, per lease. */
export const QUEUE_LIMIT = 1_000;

/** What the agent gets beyond the execution time-out before the edge ends the job itself. */
export const BACKSTOP_MS = 10_000;

/** After a new connection `started` and the end are said again: so long nobody is timed out who may have begun. */
const REPLAY_MS = 5_000;

/** A canceled job ends at the agent's answer, or after this. */
export const CANCEL_MS = 5_000;

/** `index`: of a batch, which of its jobs is refused (batch.ts). */
export type Refusal = { readonly ok: false; readonly index?: number } & (
  | { readonly code: ErrorCode; readonly detail?: string }
  | { readonly code: "allowance_required"; readonly cumulative: bigint }
);

export function refuse(code: ErrorCode, detail?: string): Refusal {
  return { ok: false, code, ...(detail === undefined ? {} : { detail }) };
}

export interface Arrival {
  readonly job: JobId;
  readonly clientId: string | null;
  /** The job that it does again. */
  readonly retryOf?: JobId | null;
  /** What that one has kept and paid for: this one goes on from it (CKP-2). */
  readonly checkpoint?: Checkpoint | null;
  /** As in {@link Job}. */
  readonly batch?: string | null;
  readonly request: JobRequest;
  readonly inputHash: string;
  /** That asked for it; absent or null: the wallet. */
  readonly session?: SessionId | null;
}

/** JOB-1: nothing is queued that the lease's funding and the consumer's allowance do not cover in full. */
export function admit(draft: Draft, arrival: Arrival): Refusal | null {
  const { lease, jobs, now } = draft;
  const known = jobs.get(arrival.job);
  if (known !== undefined)
    return isSame(known, arrival) ? null : { ok: false, code: "idempotency_key_reused" };
  const refusal = roomFor(draft, arrival.request, arrival.request.max_price);
  if (refusal !== null) return refusal;

  draft.lease = { ...draft.lease, arrivals: lease.arrivals + 1 };
  put(draft, {
    ...arrived(arrival.job, draft.lease.arrivals, arrival.request, now),
    clientId: arrival.clientId,
    retryOf: arrival.retryOf ?? null,
    batch: arrival.batch ?? null,
    session: arrival.session ?? null,
    inputHash: arrival.inputHash,
    checkpoint: arrival.checkpoint ?? null,
  });
  note(draft, arrival.job, "status", { status: "queued" });
  return null;
}

/** Whether the lease takes one more such job, which may cost `most`. An allowance that it brings counts from here on. */
export function roomFor(draft: Draft, request: JobRequest, most: bigint): Refusal | null {
  const { lease, jobs, now } = draft;
  if (lease.status === "quoted")
    return { ok: false, code: "payment_required", detail: "the lease is not funded yet" };
  if (lease.status !== "funding" && lease.status !== "active" && lease.status !== "suspended")
    return { ok: false, code: "lease_closed" };
  // A node may say that it stops before the funding has landed: what came then would be aborted at once.
  if (lease.drainAt !== null) return refuse("lease_closed", "its node is about to stop");
  if (now + request.timeouts.execution_s * 1_000 > windUpAt(lease))
    return { ok: false, code: "lease_closed", detail: "it ends before the job's execution time-out" };
  if ([...jobs.values()].filter((job) => !isTerminal(job)).length >= QUEUE_LIMIT)
    return { ok: false, code: "queue_full" };

  const funded = pledged(lease);
  const needed = committed(draft) + mostOf(lease, { max_price: most });
  if (needed > funded)
    return {
      ok: false,
      code: "lease_underfunded",
      detail: `${needed} would be committed, ${funded} is funded`,
    };
  raiseAllowance(draft, request.allowance);
  return needed > ceiling(draft.lease) ? { ok: false, code: "allowance_required", cumulative: needed } : null;
}

/** JOB-2: whether an arrival asks for what a known job of its id is. */
export function isSame(
  known: Pick<Job, "inputHash" | "batch">,
  { inputHash, batch = null }: Pick<Arrival, "inputHash" | "batch">,
): boolean {
  return known.inputHash === inputHash && known.batch === batch;
}

/** A lower one than is known changes nothing. */
export function raiseAllowance(draft: Draft, offered: JobRequest["allowance"]): void {
  if (offered !== undefined && offered.cumulative > (draft.lease.allowance?.cumulative ?? 0n))
    draft.lease = { ...draft.lease, allowance: offered };
}

/** As a job begins here. */
export function arrived(
  id: JobId,
  n: number,
  request: JobRequest,
  at: number,
): Omit<Job, "clientId" | "retryOf" | "batch" | "session" | "inputHash"> {
  return {
    id,
    n,
    request,
    status: "queued",
    createdAt: at,
    queuedAt: at,
    endedAt: null,
    cancelAskedAt: null,
    attempts: [],
    prefetched: null,
    outputs: [],
    billedMs: 0,
    price: 0n,
    failure: null,
    receipt: null,
    kept: [],
    checkpoint: null,
    move: null,
    been: [],
    past: null,
  };
}

/**
 * ACK-5: a job that was accepted, and perhaps answered, whose row a crash of the edge took. It is as it was when it was
 * sent, so that the agent's word on its end counts. One that the consumer asked for again meanwhile runs again, and is
 * charged for that alone. What others may cost that were taken since, while its own money seemed free, is theirs: the rest
 * is the most that it can cost now, and who knew what it cost has left that. Of a lease that is closing the final usage is asked for anew when the job has ended, unless its
 * agent has signed that already: what it had to tell it told before.
 */
export function restore(draft: Draft, ticket: Ticket, request: JobRequest): void {
  const { lease, jobs } = draft;
  if (!isWorking(lease) || (lease.closing !== null && lease.closing.provider !== null)) return;
  if (jobs.has(ticket.job)) return;
  const { attempt: token, sentAt } = ticket;
  // Its agent is about to say again how it began and ended: until then no time-out ends it.
  draft.lease = { ...lease, closing: null, arrivals: lease.arrivals + 1, metAt: draft.now };
  put(draft, {
    ...arrived(ticket.job, draft.lease.arrivals, coveredOf(draft, request), ticket.createdAt),
    clientId: ticket.clientId,
    retryOf: ticket.retryOf,
    batch: ticket.batch,
    session: ticket.session,
    inputHash: ticket.inputHash,
    status: "starting",
    attempts: [{ token, sentAt, startedAt: null, endedAt: null, outcome: null }],
  });
  // Its lines went with its row.
  note(draft, ticket.job, "status", { status: "queued" });
  note(draft, ticket.job, "status", { status: "starting", attempt: token.n });
}

/** The request, as much of it as funding and allowance still pay for. */
function coveredOf(draft: Draft, request: JobRequest): JobRequest {
  const { lease } = draft;
  const left = [lease.funded, ceiling(lease)].map((most) => most - committed(draft));
  if (left.every((each) => mostOf(lease, request) <= each)) return request;
  const [least = 0n] = left.sort((a, b) => (a < b ? -1 : 1));
  return { ...request, max_price: least > 0n ? least : 0n };
}

/** CKP-1: who asked for it, where its agent knows of it and may have to give way for others. */
export function keepsWork(lease: Lease, { request }: Job): boolean {
  return request.checkpoint === true && lease.keeps && lease.text.tier === "yieldable" && !isDedicated(lease);
}

/** A job as its agent is told to run it. */
export function runOf(draft: Draft, job: Job, token: AttemptToken): Run {
  // Also on a lease that never gives way, of a job that has moved there: what it has done is paid for.
  const goesOn = job.checkpoint !== null && draft.lease.keeps;
  return {
    job: job.id,
    attempt: token,
    function: job.request.function,
    inputs: job.request.inputs,
    execution_ms: executionMs(draft.lease, job),
    max_price: leftOf(job),
    committed: committed(draft),
    ...(goesOn || keepsWork(draft.lease, job) ? { checkpoint: job.checkpoint } : {}),
    ...(draft.lease.prefetches ? { turn: { priority: job.request.priority, n: job.n } } : {}),
    ...(draft.lease.allowance === null ? {} : { allowance: draft.lease.allowance }),
  };
}

/**
 * Running began `ms` ago, but not before the job was sent. Once begun, the edge's own clock holds (MTR-1), unless the
 * connection was cut since: an outage can hold `started` back until the end is told, and work done meanwhile would
 * not be billed, so that the agent would rightly not sign.
 */
export function begin(draft: Draft, job: Job, ms: number): Job {
  const attempt = currentAttempt(job);
  if (attempt === undefined || (job.status !== "starting" && job.status !== "running")) return job;
  const wasCut = (draft.lease.metAt ?? 0) > attempt.sentAt;
  if (job.status === "running" && !wasCut) return job;
  const startedAt = Math.max(attempt.sentAt, draft.now - ms);
  if (attempt.startedAt !== null && attempt.startedAt <= startedAt) return job;
  const running: Job = { ...withAttempt(job, { ...attempt, startedAt }), status: "running" };
  put(draft, running);
  if (job.status === "starting")
    note(draft, job.id, "status", { status: "running", attempt: attempt.token.n });
  return running;
}

export function withAttempt(job: Job, attempt: Attempt): Job {
  return { ...job, attempts: [...job.attempts.slice(0, -1), attempt] };
}

export function sendCancel(draft: Draft, job: Job, reason: string): void {
  const attempt = currentAttempt(job);
  if (attempt !== undefined) send(draft, { t: "cancel", job: job.id, attempt: attempt.token, reason });
}

/** Tells the agent that a job which it was sent before its turn is not to be begun any more. */
export function recall(draft: Draft, { id: job, prefetched }: Job, reason: string): void {
  if (prefetched !== null) send(draft, { t: "cancel", job, attempt: prefetched.token, reason });
}

/** When this job's next time-out falls due, and what it is. */
export function deadline(
  draft: Pick<Draft, "lease">,
  job: Job,
): { at: number; why: "queue" | "start" | "execution" | "cancel" } {
  const { queue_s, start_s } = job.request.timeouts;
  const { metAt } = draft.lease;
  const replayed = (sentAt: number) => (metAt !== null && metAt > sentAt ? metAt + REPLAY_MS : 0);
  const attempt = currentAttempt(job);
  if (job.cancelAskedAt !== null) return { at: job.cancelAskedAt + CANCEL_MS, why: "cancel" };
  if (job.status === "queued" || attempt === undefined) {
    // JOB-12: the time of those before it in the agent is its time in the queue.
    const { sentAt, turn } = job.prefetched ?? { sentAt: Number.POSITIVE_INFINITY, turn: null };
    return turn === null
      ? { at: Math.max(job.queuedAt + queue_s * 1_000, replayed(sentAt)), why: "queue" }
      : { at: Math.max(turn.at + start_s * 1_000, replayed(sentAt)), why: "start" };
  }
  if (attempt.startedAt === null)
    return { at: Math.max(attempt.sentAt + start_s * 1_000, replayed(attempt.sentAt)), why: "start" };
  return { at: attempt.startedAt + executionMs(draft.lease, job) + BACKSTOP_MS, why: "execution" };
}
