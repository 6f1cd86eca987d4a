import type { ObjectEnv } from "@gpux/durable-objects/bindings";
import { configOf } from "@gpux/durable-objects/config";
import { checkFunction } from "@gpux/durable-objects/functions";
import type { Principal } from "@gpux/durable-objects/interfaces";
import { movedByReason } from "@gpux/durable-objects/moved";
import { jobIdFor, scopeOf } from "@gpux/durable-objects/request-scope";
import { canonicalJson, sha256Hex } from "@gpux/protocol/canonical";
import type { ErrorCode } from "@gpux/protocol/errors";
import { encodeBase64 } from "@gpux/protocol/http-signature/structured-fields";
import { ClientJobId, JobId, type LeaseId, leaseOfJob, Sha256 } from "@gpux/protocol/ids";
import { JobEvent, JobView, RetryRequest, RoutedJobRequest, TERMINAL } from "@gpux/protocol/job";
import { hexToBytes } from "viem/utils";
import { z } from "zod";
import { onJob } from "../auth/standing.ts";
import { eventStream } from "../event-stream.ts";
import { idempotencyKey } from "../idempotency-key.ts";
import {
  JOB_ANSWERS,
  jobAnswer,
  paymentRefusal,
  REQUEST_HEADERS,
  SUBMIT_REFUSALS,
  submitJob,
} from "../job-submission.ts";
import { jsonAnswer } from "../json-answer.ts";
import { leaseToken, routedLease } from "../lease-token.ts";
import { MOST_WAIT_S, waitOf } from "../prefer.ts";
import { type Refusal, refuse } from "../refusal.ts";
import { type Answer, type Mounted, NO_BODY, NONE, signedRoute } from "../route.ts";
import { tenantBytes } from "../tenant-bytes.ts";

/** A job's id as the edge or as the client gave it. */
const AnyJobId = z.union([JobId, ClientJobId]);
const JobParams = z.strictObject({ id: AnyJobId });
/** What begins like the edge's own ids could hide a job behind another. */
const NewClientId = ClientJobId.refine((id) => !id.startsWith("job_"), "must not begin with job_");

const ROUTED_REFUSALS = [
  ...SUBMIT_REFUSALS,
  "idempotency_in_progress",
  "signature_replayed",
  "payment_required",
  "quote_unknown",
  "quote_expired",
  "funding_invalid",
  "insufficient_credit",
  "node_offline",
  "price_below_offers",
  "no_capacity",
  "too_many_quotes",
  "hold_limit",
] as const;

/** Of a lease that cannot take the job, while another may: the Account looks for one, or for what would pay for it. */
const NOT_HERE: ReadonlySet<ErrorCode> = new Set([
  "lease_closed",
  "lease_unknown",
  "lease_underfunded",
  "queue_full",
]);

const createJob = signedRoute(
  {
    method: "post",
    path: "/v1/jobs",
    summary:
      "Run a function: the edge chooses a lease of the account's, or answers with a quote to sign and, where its credit suffices, the allocation that opens it",
    params: NONE,
    query: NONE,
    headers: {
      ...REQUEST_HEADERS,
      "GPUX-Lease":
        "as an earlier answer brought it, for the same key and demand: leads to that lease in one hop. A retry brings the one that its first try brought",
    },
    body: RoutedJobRequest,
    answers: JOB_ANSWERS,
    scope: "jobs",
    refusals: ROUTED_REFUSALS,
  },
  ({ env, request, body }, principal) => submitRouted(env, request, principal, body, null),
);

const putJob = signedRoute(
  {
    method: "put",
    path: "/v1/jobs/{id}",
    summary: "Run a function under a job id of the caller's making; idempotent",
    params: z.strictObject({ id: NewClientId }),
    query: NONE,
    headers: { Prefer: REQUEST_HEADERS.Prefer },
    body: RoutedJobRequest,
    answers: JOB_ANSWERS,
    scope: "jobs",
    refusals: ROUTED_REFUSALS,
  },
  ({ env, request, params, body }, principal) => submitRouted(env, request, principal, body, params.id),
);

async function submitRouted(
  env: ObjectEnv,
  request: Request,
  principal: Principal,
  body: RoutedJobRequest,
  clientId: string | null,
): Promise<Answer> {
  const key = idempotencyKey(request);
  if (!key.ok) return key;
  const wait = waitOf(request);
  const checked = await checkFunction(env.OBJECTS, body);
  if (!checked.ok) return checked;
  const config = configOf(env);
  const { demand } = body;
  const isFree = clientId === null && body.lease === undefined && body.funding === undefined;
  const led = isFree ? await routedLease(config, request, principal, demand) : null;
  if (led !== null) {
    const taken = await submitTo(env, principal, led, body, scopeOf(null, key.key, principal.nonce), wait);
    if (taken.ok) {
      const token = await leaseToken(config, principal, demand, led);
      return jobAnswer(taken.job, taken.replayed, wait, token);
    }
    if (!NOT_HERE.has(taken.code)) return paymentRefusal(taken);
  }
  // Which lease and which allowance pay for it is found out on the way; it is the same request all the while.
  const {
    lease: _lease,
    allowance: _allowance,
    funding: _funding,
    ...same
  } = z.encode(RoutedJobRequest, body);
  const bodyHash = await sha256Hex(canonicalJson(same));
  const account = env.ACCOUNT.getByName(principal.address);
  const submitted = await account.submit(principal, key.key, bodyHash, body, clientId);
  if (!submitted.ok) return paymentRefusal(submitted);
  const { job, replayed, routes } = submitted;
  const token = routes ? await leaseToken(config, principal, demand, job.lease_id) : null;
  if (wait === null || TERMINAL.has(job.status)) return jobAnswer(job, replayed, wait, token);
  // Not inside the Account: a caller that waits must not keep it awake, nor others of the account waiting.
  const ended = await onJob(env, principal, job.lease_id, (lease, as) => lease.job(as, job.id, wait * 1_000));
  return ended.ok ? jobAnswer(ended.job, replayed, wait, token) : ended;
}

/** The warm path: one hop. */
async function submitTo(
  env: ObjectEnv,
  principal: Principal,
  id: LeaseId,
  { demand: _, lease: __, payer: ___, funding: ____, ...job }: RoutedJobRequest,
  scope: string,
  wait: number | null,
) {
  const job_id = await jobIdFor(id, principal.address, scope);
  return submitJob(env, principal, id, job_id, job, wait);
}

const getJob = signedRoute(
  {
    method: "get",
    path: "/v1/jobs/{id}",
    summary: "A job; with `wait`, when it has ended or after that many seconds",
    params: JobParams,
    query: z.strictObject({ wait: z.coerce.number().int().min(0).max(MOST_WAIT_S).default(0) }),
    body: NO_BODY,
    answers: { 200: { description: "The job", schema: JobView } },
    scope: "read",
    refusals: ["job_unknown", "lease_unknown", "forbidden"],
  },
  async ({ env, params, query }, principal) => {
    const found = await findJob(env, principal, params.id);
    if (!found.ok) return found;
    const answer = await onJob(env, principal, found.lease, (lease, as) =>
      lease.job(as, found.job, query.wait * 1_000),
    );
    return answer.ok ? jsonAnswer(JobView, answer.job) : answer;
  },
);

const getEvents = signedRoute(
  {
    method: "get",
    path: "/v1/jobs/{id}/events",
    summary:
      "The job's events as a stream (text/event-stream), from its first or after Last-Event-ID to its end",
    params: JobParams,
    query: NONE,
    headers: { "Last-Event-ID": "only events after this one" },
    body: NO_BODY,
    answers: {
      200: {
        description:
          "Server-sent events; each `data` is a JobEvent. A receipt is signed after the job's end and read from the job; a `receipt` event says that the node refused to sign it, and that the job is free",
        schema: null,
      },
    },
    scope: "read",
    refusals: ["job_unknown", "lease_unknown", "forbidden", "invalid_request"],
  },
  async ({ env, request, params }, principal) => {
    const after = z.coerce
      .number()
      .int()
      .min(0)
      .safeParse(request.headers.get("last-event-id") ?? "0");
    if (!after.success) return refuse("invalid_request", "Last-Event-ID must be an id of this stream");
    const found = await findJob(env, principal, params.id);
    if (!found.ok) return found;
    const known = await onJob(env, principal, found.lease, (lease, as) => lease.job(as, found.job, 0));
    if (!known.ok) return known;
    const watch = async (id: LeaseId, last: number) => {
      const query = new URLSearchParams({ job: found.job, after: String(last), as: principal.address });
      const answer = await env.LEASE.getByName(id).fetch(
        new Request(`https://lease/watch?${query}`, { headers: { upgrade: "websocket" } }),
      );
      return answer.webSocket;
    };
    // From the lease that had the job first: what happened there comes first.
    const socket = await watch(found.lease, after.data);
    const follow = async (reason: string, last: number) => {
      const to = movedByReason(reason);
      return to === null ? null : watch(to, Math.max(last, after.data));
    };
    return socket === null ? refuse("job_unknown") : eventStream(socket, JobEvent, follow);
  },
);

const getOutput = signedRoute(
  {
    method: "get",
    path: "/v1/jobs/{id}/outputs/{n}",
    summary:
      "The bytes of a job's output; with `wait`, of one that has not ended, as they come from its node within that many seconds",
    params: z.strictObject({ id: AnyJobId, n: z.coerce.number().int().min(0).max(63) }),
    query: z.strictObject({ wait: z.coerce.number().int().min(0).max(MOST_WAIT_S).default(0) }),
    body: NO_BODY,
    answers: {
      200: {
        description:
          "The bytes, as an attachment, with their hash in Repr-Digest; cut off where the upload was, or is not what its hash says",
        schema: null,
      },
    },
    scope: "read",
    refusals: ["job_unknown", "job_not_ended", "lease_unknown", "object_unknown", "forbidden"],
  },
  async ({ env, params, query }, principal) => {
    const found = await findJob(env, principal, params.id);
    if (!found.ok) return found;
    const ask = () => onJob(env, principal, found.lease, (lease, as) => lease.job(as, found.job, 0));
    let answer = await ask();
    if (answer.ok && query.wait > 0 && !TERMINAL.has(answer.job.status)) {
      const at = { job: found.job, lease: answer.job.lease_id };
      const live = await liveOutput(env, principal, at, params.n, query.wait);
      if (live !== null) return live;
      answer = await ask();
      // It was there no longer either: it has moved.
      if (answer.ok && !TERMINAL.has(answer.job.status)) return refuse("job_not_ended", "it has moved");
    }
    if (!answer.ok) return answer;
    const output = answer.job.outputs[params.n];
    const object = output === undefined ? null : await env.OBJECTS.get(output.sha256);
    if (output === undefined || object === null) return refuse("object_unknown", `output ${params.n}`);
    return withDigest(tenantBytes(object, object.body, output.content_type, output.name), output.sha256);
  },
);

/** From the Lease while the node uploads it; null when the job has ended, and storage has it or nobody. */
async function liveOutput(
  env: ObjectEnv,
  { address }: Principal,
  { job, lease }: { readonly job: JobId; readonly lease: LeaseId },
  n: number,
  wait: number,
): Promise<Answer | null> {
  const query = new URLSearchParams({ job, n: String(n), as: address, wait: String(wait * 1_000) });
  const live = await env.LEASE.getByName(lease).fetch(new Request(`https://lease/output?${query}`));
  if (live.status === 204) return null;
  const sha256 = Sha256.safeParse(live.headers.get("x-gpux-sha256"));
  if (live.status !== 200 || !sha256.success) return refuse("job_not_ended", `output ${n} has not come yet`);
  const about = { size: Number(live.headers.get("content-length")), httpEtag: `"${sha256.data}"` };
  const type = live.headers.get("content-type") ?? "application/octet-stream";
  return withDigest(tenantBytes(about, live.body, type, `${job}-${n}`), sha256.data);
}

/** RFC 9530: whoever reads it can tell whether it got all of what the receipt names. */
function withDigest(response: Response, sha256: string): Response {
  response.headers.set("repr-digest", `sha-256=:${encodeBase64(hexToBytes(`0x${sha256}`))}:`);
  return response;
}

const cancelJob = signedRoute(
  {
    method: "post",
    path: "/v1/jobs/{id}/cancel",
    summary: "Stop a job; what it used until then is charged",
    params: JobParams,
    query: NONE,
    body: NO_BODY,
    answers: { 200: { description: "The job, canceled or about to be", schema: JobView } },
    scope: "jobs",
    refusals: ["job_unknown", "job_ended", "job_moving", "lease_unknown", "forbidden"],
  },
  async ({ env, params }, principal) => {
    const found = await findJob(env, principal, params.id);
    if (!found.ok) return found;
    const answer = await onJob(env, principal, found.lease, (lease, as) => lease.cancel(as, found.job));
    return answer.ok ? jsonAnswer(JobView, answer.job) : answer;
  },
);

const retryJob = signedRoute(
  {
    method: "post",
    path: "/v1/jobs/{id}/retry",
    summary:
      "Do an ended job again on its lease, as a new job; without an Idempotency-Key, the same one however often it is asked",
    params: JobParams,
    query: NONE,
    headers: REQUEST_HEADERS,
    body: RetryRequest,
    answers: JOB_ANSWERS,
    scope: "jobs",
    refusals: [...SUBMIT_REFUSALS, "job_unknown", "job_not_ended"],
  },
  async ({ env, request, params, body }, principal) => {
    const key = idempotencyKey(request);
    if (!key.ok) return key;
    const found = await findJob(env, principal, params.id);
    if (!found.ok) return found;
    const wait = waitOf(request);
    const submitted = await onJob(env, principal, found.lease, async (lease, as, id) => {
      // Another key is another retry of the same job.
      const next = await jobIdFor(id, principal.address, `retry:${found.job} ${key.key ?? ""}`);
      return lease.retry(as, found.job, next, body.allowance ?? null, (wait ?? 0) * 1_000);
    });
    return submitted.ok ? jobAnswer(submitted.job, submitted.replayed, wait) : paymentRefusal(submitted);
  },
);

export const jobRoutes: readonly Mounted[] = [
  createJob,
  putJob,
  getJob,
  getEvents,
  getOutput,
  cancelJob,
  retryJob,
];

async function findJob(
  env: ObjectEnv,
  principal: Principal,
  id: string,
): Promise<{ readonly ok: true; readonly job: JobId; readonly lease: LeaseId } | Refusal> {
  const own = JobId.safeParse(id);
  const job = own.success ? own.data : await env.ACCOUNT.getByName(principal.address).resolve(id);
  return job === null ? refuse("job_unknown") : { ok: true, job, lease: leaseOfJob(job) };
}
