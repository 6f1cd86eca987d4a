import type { ObjectEnv } from "@gpux/durable-objects/bindings";
import type { Outcome, PaymentNeeded, Principal, Refused } from "@gpux/durable-objects/interfaces";
import { movedTo } from "@gpux/durable-objects/moved";
import { promisedOf } from "@gpux/durable-objects/promised";
import type { JobId, LeaseId } from "@gpux/protocol/ids";
import { type JobRequest, JobView, TERMINAL } from "@gpux/protocol/job";
import { onJob, onLease } from "./auth/standing.ts";
import { viewAnswer } from "./json-answer.ts";
import { LEASE_HEADER } from "./lease-token.ts";
import { preferenceApplied } from "./prefer.ts";
import { type Refusal, refuse } from "./refusal.ts";

export const REQUEST_HEADERS = {
  Prefer:
    "wait=n: answer when the job (of several: every one) has ended, or after n seconds (at most 60) with its then present state",
  "Idempotency-Key": "the same key and body are the same job",
};

export const JOB_ANSWERS = {
  200: {
    description: "The job has ended, or this request was made before (Idempotent-Replayed)",
    schema: JobView,
  },
  202: { description: "The job is on its way", schema: JobView },
};

/** Of any route that takes a job. */
export const SUBMIT_REFUSALS = [
  "invalid_json",
  "invalid_request",
  "body_too_large",
  "unsupported_media_type",
  "function_unknown",
  "manifest_invalid",
  "input_invalid",
  "idempotency_key_reused",
  "allowance_required",
  "allowance_invalid",
  "lease_underfunded",
  "lease_unknown",
  "lease_closed",
  "queue_full",
  "forbidden",
  "session_cap_exceeded",
] as const;

/** To a lease that is named. A job that was sent before may have moved on since: then it is asked for where it is. */
export async function submitJob(
  env: ObjectEnv,
  principal: Principal,
  id: LeaseId,
  job: JobId,
  request: JobRequest,
  wait: number | null,
): Promise<Outcome<{ job: JobView; replayed: boolean }> | PaymentNeeded> {
  const waitMs = (wait ?? 0) * 1_000;
  const submitted = await onLease(env, principal, id, (lease, as) =>
    lease.submit(as, job, request, null, waitMs),
  );
  const to = movedTo(submitted);
  if (to === null) return submitted;
  const found = await onJob(env, principal, to, (lease, as) => lease.job(as, job, waitMs));
  return found.ok ? { ...found, replayed: true } : found;
}

/** The job as it was taken, or as the same request found it. `token`: leads the next one to its lease. */
export function jobAnswer(
  job: JobView,
  replayed: boolean,
  wait: number | null,
  token: string | null = null,
): Response {
  return viewAnswer(job, replayed || TERMINAL.has(job.status) ? 200 : 202, {
    location: job.urls.get,
    ...(token === null ? {} : { [LEASE_HEADER]: token }),
    ...(replayed ? { "idempotent-replayed": "true" } : {}),
    ...preferenceApplied(wait),
  });
}

/** A refusal with what it promises: the quote to sign, the allowance to give, or why the market has nothing. */
export function paymentRefusal(refused: Refused | PaymentNeeded): Refusal {
  return refuse(refused.code, refused.detail, promisedOf(refused));
}
