import type { ObjectEnv } from "@gpux/durable-objects/bindings";
import { checkFunction } from "@gpux/durable-objects/functions";
import type { Principal } from "@gpux/durable-objects/interfaces";
import { errorAt } from "@gpux/durable-objects/promised";
import { jobIdFor, jobIdsFor, scopeOf } from "@gpux/durable-objects/request-scope";
import { LeaseId } from "@gpux/protocol/ids";
import { JobBatch, JobRequest, JobView, TERMINAL } from "@gpux/protocol/job";
import { z } from "zod";
import { onLease } from "../auth/standing.ts";
import { idempotencyKey } from "../idempotency-key.ts";
import {
  JOB_ANSWERS,
  jobAnswer,
  paymentRefusal,
  REQUEST_HEADERS,
  SUBMIT_REFUSALS,
  submitJob,
} from "../job-submission.ts";
import { viewAnswer } from "../json-answer.ts";
import { listOf } from "../list.ts";
import { preferenceApplied, waitOf } from "../prefer.ts";
import { type Answer, type Mounted, NONE, signedRoute } from "../route.ts";

const Jobs = z.union([JobView, listOf(JobView)]);

const createLeaseJob = signedRoute(
  {
    method: "post",
    path: "/v1/leases/{id}/jobs",
    summary:
      "Run a function on a lease that is open: the warm path; or up to 64 at once, all of which are taken or none",
    params: z.strictObject({ id: LeaseId }),
    query: NONE,
    headers: REQUEST_HEADERS,
    body: z.union([JobRequest, JobBatch]),
    answers: {
      200: {
        description: `${JOB_ANSWERS[200].description}; of an array: each of its jobs, as a list in its order`,
        schema: Jobs,
      },
      202: { description: `${JOB_ANSWERS[202].description}; of an array: at least one is`, schema: Jobs },
    },
    scope: "jobs",
    refusals: SUBMIT_REFUSALS,
  },
  async ({ env, request, params, body }, principal) => {
    const key = idempotencyKey(request);
    if (!key.ok) return key;
    const asked: Asked = {
      lease: params.id,
      scope: scopeOf(null, key.key, principal.nonce),
      wait: waitOf(request),
    };
    return Array.isArray(body)
      ? submitAll(env, principal, body, asked)
      : submitOne(env, principal, body, asked);
  },
);

interface Asked {
  readonly lease: LeaseId;
  readonly scope: string;
  readonly wait: number | null;
}

async function submitOne(
  env: ObjectEnv,
  principal: Principal,
  body: JobRequest,
  { lease: id, scope, wait }: Asked,
): Promise<Answer> {
  const checked = await checkFunction(env.OBJECTS, body);
  if (!checked.ok) return checked;
  const job = await jobIdFor(id, principal.address, scope);
  const submitted = await submitJob(env, principal, id, job, body, wait);
  return submitted.ok ? jobAnswer(submitted.job, submitted.replayed, wait) : paymentRefusal(submitted);
}

async function submitAll(
  env: ObjectEnv,
  principal: Principal,
  body: JobBatch,
  { lease: id, scope, wait }: Asked,
): Promise<Answer> {
  for (const [index, each] of body.entries()) {
    const checked = await checkFunction(env.OBJECTS, each);
    if (!checked.ok) return { ...checked, extra: errorAt(index, checked.code, checked.detail) };
  }
  const ids = await jobIdsFor(id, principal.address, scope, body.length);
  const jobs = ids.flatMap((job, index) => {
    const request = body[index];
    return request === undefined ? [] : { id: job, request };
  });
  const submitted = await onLease(env, principal, id, (lease, as) =>
    lease.submitAll(as, jobs, (wait ?? 0) * 1_000),
  );
  if (!submitted.ok) return paymentRefusal(submitted);
  const isDone = submitted.replayed || submitted.jobs.every(({ status }) => TERMINAL.has(status));
  return viewAnswer({ object: "list", data: submitted.jobs, has_more: false }, isDone ? 200 : 202, {
    ...(submitted.replayed ? { "idempotent-replayed": "true" } : {}),
    ...preferenceApplied(wait),
  });
}

export const leaseJobRoutes: readonly Mounted[] = [createLeaseJob];
