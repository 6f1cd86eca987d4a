import { z } from "zod";
import { canonicalJson, sha256Hex } from "./canonical.ts";
import { CreditAuthorization } from "./funding.ts";
import { Address, Bytes32, ClientJobId, HexBytes, JobId, LeaseId, Sha256 } from "./ids.ts";
import { Amount } from "./money.ts";
import { Demand } from "./resources.ts";

/** Inline values stay below this (bytes of base64 text), so that a job fits one frame; larger ones go by object. */
export const INLINE_LIMIT = 32 * 1024;

/** A value for one of the function's inputs: a number, JSON, bytes in base64, or an object by its hash. */
export const InputValue = z.union([
  z.strictObject({ number: z.number() }),
  z.strictObject({ json: z.json() }),
  z.strictObject({ base64: z.base64().max(INLINE_LIMIT) }),
  z.strictObject({ object: Sha256 }),
]);
export type InputValue = z.infer<typeof InputValue>;

/** Milliseconds are for machines; a request speaks in seconds. */
export const Timeouts = z.strictObject({
  /** Before the job is sent to a node. */
  queue_s: z.int().min(1).max(86_400).default(600),
  /** From sent to running. */
  start_s: z.int().min(1).max(3_600).default(60),
  /** Running; the meter never bills more than this. */
  execution_s: z.int().min(1).max(3_600).default(120),
});
export type Timeouts = z.infer<typeof Timeouts>;

/** The consumer's signature over `Allowance(leaseId, cumulative)`: the most that this lease may have used in all. */
export const SignedAllowance = z.strictObject({ cumulative: Amount, signature: HexBytes });
export type SignedAllowance = z.output<typeof SignedAllowance>;

/** What an attempt that gave way has kept of its work: an object, which the next attempt goes on from (SPEC CKP-1). */
export const Checkpoint = z.strictObject({ sha256: Sha256, bytes: z.int().min(1) });
export type Checkpoint = z.infer<typeof Checkpoint>;

/** The body of `POST /v1/leases/{id}/jobs`, and what a lease keeps of any job. */
export const JobRequest = z.strictObject({
  kind: z.literal("function").default("function"),
  /** SHA-256 of the packed manifest, which lies in /v1/objects. */
  function: Sha256,
  inputs: z.record(z.string().max(64), InputValue).default({}),
  /** The most that this job may cost, in token base units. */
  max_price: Amount,
  timeouts: Timeouts.prefault({}),
  /** Attempts after the first, for losses that are not the tenant's fault. */
  retries: z.int().min(0).max(5).default(2),
  /** Within its lease: higher goes first, then older. */
  priority: z.int().min(-10).max(10).default(0),
  /**
   * Should its GPU be taken back, what it has done is kept and billed, and its next attempt goes on from there. Without it
   * such an attempt is free, and the next begins anew. What is bought by it is time, so it is the consumer's to say.
   */
  checkpoint: z.boolean().optional(),
  allowance: SignedAllowance.optional(),
});
export type JobRequest = z.output<typeof JobRequest>;

/** Jobs that one request may bring. */
export const MOST_IN_BATCH = 64;

/**
 * An array as the body of `POST /v1/leases/{id}/jobs`: all are taken, or none is. Of the allowances that they bring the
 * highest counts, for all of them.
 */
export const JobBatch = z.array(JobRequest).min(1).max(MOST_IN_BATCH);
export type JobBatch = z.output<typeof JobBatch>;

/** The body of `POST /v1/jobs/{id}/retry`: all else is as in the job that it does again. */
export const RetryRequest = z.strictObject({ allowance: SignedAllowance.optional() });
export type RetryRequest = z.output<typeof RetryRequest>;

/** The body of `POST /v1/jobs` and `PUT /v1/jobs/{id}`: the edge chooses the lease. */
export const RoutedJobRequest = JobRequest.extend({
  demand: Demand.prefault({}),
  /** Only this lease; without it the account's warm leases are tried, then a quote is made. */
  lease: LeaseId.optional(),
  /** Whose money a lease that is quoted for it is opened with; the principal's when left out. */
  payer: Address.optional(),
  /** Opens `lease`, which was quoted, from credit: signed as the `payment_required` before it asked (SPEC CRD-5). */
  funding: CreditAuthorization.optional(),
});
export type RoutedJobRequest = z.output<typeof RoutedJobRequest>;

/** What the receipt's inputHash commits to: the function and its inputs, exactly as they were sent. */
export function inputHash(request: Pick<JobRequest, "function" | "inputs">): Promise<string> {
  return sha256Hex(canonicalJson({ function: request.function, inputs: request.inputs }));
}

export const JobStatus = z.enum([
  "queued",
  "starting",
  "running",
  "succeeded",
  "failed",
  "canceled",
  "timed_out",
  "aborted",
]);
export type JobStatus = z.infer<typeof JobStatus>;

export const TERMINAL: ReadonlySet<JobStatus> = new Set([
  "succeeded",
  "failed",
  "canceled",
  "timed_out",
  "aborted",
]);

/** Fencing token of an attempt: a result that carries an older one is refused. */
export const AttemptToken = z.strictObject({ epoch: z.int().min(1), n: z.int().min(1) });
export type AttemptToken = z.infer<typeof AttemptToken>;

export const Output = z.strictObject({
  name: z.string().max(64),
  content_type: z.string().max(100),
  bytes: z.int().min(0),
  sha256: Sha256,
});
export type Output = z.infer<typeof Output>;

const Time = z.iso.datetime();

/**
 * The receipt as published: the typed struct in wire form and, as soon as both have signed, the lease's usage that
 * covers it. The signatures are over `Usage(leaseId, cumulative, evidence)`; `proof` is the audit path of the receipt's
 * digest, leaf `sequence - 1` of `size`, under that evidence (merkle.ts). So many receipts share two signatures.
 */
export const SignedReceipt = z.object({
  receipt: z.record(z.string(), z.unknown()),
  usage: z.object({ cumulative: Amount, evidence: Bytes32, size: z.int().min(1) }).nullable(),
  proof: z.array(Bytes32).max(53).nullable(),
  provider_signature: HexBytes.nullable(),
  edge_signature: HexBytes.nullable(),
});
export type SignedReceipt = z.output<typeof SignedReceipt>;

/** A job as the API shows it. Views are open objects: an older client must survive a newer edge's additions. */
export const JobView = z.object({
  id: JobId,
  object: z.literal("job"),
  client_id: ClientJobId.optional(),
  /** The job that this one does again. */
  retry_of: JobId.optional(),
  status: JobStatus,
  lease_id: LeaseId,
  node: Address,
  function: Sha256,
  created_at: Time,
  started_at: Time.optional(),
  ended_at: Time.optional(),
  progress: z.object({ fraction: z.number().min(0).max(1), note: z.string().optional() }).optional(),
  attempts: z.array(
    z.object({
      n: z.int(),
      node: Address,
      /** Of one on another lease, from which the job has moved: which. */
      lease_id: LeaseId.optional(),
      started_at: Time.optional(),
      ended_at: Time.optional(),
      /** `succeeded`, `canceled`, `yielded`, or why it failed: a code of the failures. */
      outcome: z.string().optional(),
      /** What of the job's price is for this attempt. */
      paid: Amount.optional(),
      /** Of one that gave way and kept what it had done: the time that it is paid for, and its receipt. */
      billed_ms: z.int().min(0).optional(),
      receipt: SignedReceipt.optional(),
    }),
  ),
  max_price: Amount,
  /** What it cost; while it runs, what it would cost if it ended now. */
  price: Amount,
  billed_ms: z.int().min(0),
  wait: z
    .strictObject({
      position: z.int().min(0),
      eta_s: z.number().nullable(),
      possible: z.boolean(),
      blockers: z.record(z.string(), z.int()),
    })
    .optional(),
  outputs: z.array(Output.extend({ url: z.string() })),
  /** What the next attempt goes on from. */
  checkpoint: Checkpoint.optional(),
  /** Of the attempt that ended the job. */
  receipt: SignedReceipt.optional(),
  error: z
    .strictObject({
      code: z.string(),
      title: z.string(),
      detail: z.string().optional(),
      hint: z.string(),
      fault: z.string(),
    })
    .optional(),
  urls: z.object({ get: z.string(), events: z.string(), cancel: z.string() }),
});
export type JobView = z.output<typeof JobView>;

/**
 * One entry of a lease's journal, as `GET /v1/jobs/{id}/events` streams it; `id` rises within the lease. `status`
 * tells every status, at an end with price and billed time; `attempt` that one was lost or gave way. `receipt` is written
 * only when the node refused to sign it (`{sequence, refused: true}`): then the job costs nothing. One that is signed comes
 * after the job's end, in a block with others, and is read from the job. `move` names the lease that was asked to take the
 * job (`{to}`): what follows comes from there, with higher ids, or from here, when it would not.
 */
export const JobEvent = z.object({
  id: z.int().min(1),
  job: JobId,
  at: Time,
  type: z.enum(["status", "progress", "log", "attempt", "receipt", "move"]),
  data: z.record(z.string(), z.unknown()),
});
export type JobEvent = z.infer<typeof JobEvent>;
