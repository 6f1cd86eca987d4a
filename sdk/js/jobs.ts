import { decodeBase64 } from "@gpux/protocol/http-signature/structured-fields";
import { Sha256 } from "@gpux/protocol/ids";
import { type JobEvent, JobView, TERMINAL } from "@gpux/protocol/job";
import { GpuxError, invalidResponse } from "./error.ts";
import { type BatchInput, type BatchOptions, createJobBatch } from "./job-batch.ts";
import {
  type CreateOptions,
  createJobDispatch,
  type DispatchSettings,
  type JobInput,
  type RetryOptions,
} from "./job-dispatch.ts";
import { jobEvents } from "./job-events.ts";
import type { EventOptions } from "./journal.ts";
import { matching } from "./objects.ts";
import { backoff } from "./timing.ts";

interface Abortable {
  readonly signal?: AbortSignal | undefined;
}

export interface RunOptions extends CreateOptions {
  /** The job as the edge took it, before its first event. */
  readonly onJob?: (job: JobView) => void;
  readonly onEvent?: (event: JobEvent) => void;
}

export interface Jobs {
  /**
   * Sends a job, and pays for it as far as the client may: opens a quoted lease (`autoOpen`), signs the allowance it
   * needs. The Idempotency-Key is made before the first send and stays through every retry, so the job runs once.
   */
  create(input: JobInput, options?: CreateOptions): Promise<JobView>;
  /**
   * Sends 1 to 64 jobs to a lease at once, with one allowance for all: it takes all of them or none. Answers them in
   * their order, with `wait` when every one has ended. A refusal's `problem.errors` point at the job (`/3`).
   */
  batch(lease: string, inputs: readonly BatchInput[], options?: BatchOptions): Promise<JobView[]>;
  /** `wait`: seconds (at most 60) to hold the answer back until the job has ended. */
  get(id: string, options?: Abortable & { wait?: number }): Promise<JobView>;
  /** From the job's first event to its last, over cuts. */
  events(id: string, options?: EventOptions): AsyncGenerator<JobEvent>;
  /** Resolves when the job has ended; throws `timed_out` after `timeoutMs` (the job goes on). */
  wait(id: string, options?: Abortable & { timeoutMs?: number }): Promise<JobView>;
  /** What it used until then is charged. Throws `job_ended` for one that has ended. */
  cancel(id: string, options?: Abortable): Promise<JobView>;
  /**
   * Does an ended job again on its lease, as a new job with the same request. Asked twice it is one retry, unless the
   * Idempotency-Key is another. Throws `job_not_ended`, or `lease_closed` when the lease is over.
   */
  retry(id: string, options?: RetryOptions): Promise<JobView>;
  /** The bytes of output `n`, checked against the hash that the job names. */
  output(job: JobView, n: number, options?: Abortable): Promise<Uint8Array<ArrayBuffer>>;
  /**
   * The bytes of output `n` of a job that need not have ended: as they come from its node, when they come within `wait`
   * seconds (at most 60). Throws `job_not_ended` when they do not. Checked against the hash that came with them, which is
   * the job's when it has ended.
   */
  awaitOutput(
    id: string,
    n: number,
    options?: Abortable & { wait?: number },
  ): Promise<Uint8Array<ArrayBuffer>>;
  /** create, events and wait in one: resolves with the ended job, however it ended. */
  run(input: JobInput, options?: RunOptions): Promise<JobView>;
}

const LONGEST_WAIT_S = 60;
/** After the end, for the receipt's second signature. */
const RECEIPT_WAIT_S = 10;
const PROMPT_MS = 1_000;

export function createJobs(settings: DispatchSettings): Jobs {
  const { transport, timing, warm } = settings;
  const dispatch = createJobDispatch(settings);

  async function get(id: string, { wait, signal }: Abortable & { wait?: number } = {}): Promise<JobView> {
    const query =
      wait === undefined ? "" : `?wait=${Math.min(Math.max(Math.floor(wait), 0), LONGEST_WAIT_S)}`;
    const job = await transport.json({ method: "GET", path: `/v1/jobs/${id}${query}`, signal }, JobView);
    warm.saw(job);
    return job;
  }

  async function wait(id: string, options: Abortable & { timeoutMs?: number } = {}): Promise<JobView> {
    const { signal, timeoutMs = Number.POSITIVE_INFINITY } = options;
    const deadline = timing.now() + timeoutMs;
    for (let asked = 0; ; asked += 1) {
      const before = timing.now();
      const left = Math.max(0, Math.ceil((deadline - before) / 1_000));
      const job = await get(id, { wait: Math.min(left, LONGEST_WAIT_S), signal });
      if (TERMINAL.has(job.status)) return isUnsigned(job) ? countersigned(id, signal) : job;
      const now = timing.now();
      if (now >= deadline) throw timedOut(job);
      // An answer that was not held back must not become a tight loop.
      if (now - before < PROMPT_MS) await timing.sleep(backoff(asked, timing), signal);
    }
  }

  function countersigned(id: string, signal: AbortSignal | undefined): Promise<JobView> {
    return get(id, { wait: RECEIPT_WAIT_S, signal });
  }

  const events: Jobs["events"] = (id, options = {}) => jobEvents(transport, timing, id, options);

  return {
    create: dispatch.create,
    batch: createJobBatch(settings),
    get,
    wait,
    events,
    async cancel(id, { signal } = {}) {
      const job = await transport.json({ method: "POST", path: `/v1/jobs/${id}/cancel`, signal }, JobView);
      warm.saw(job);
      return job;
    },
    retry: async (id, options = {}) =>
      dispatch.retry(await get(id, options.signal === undefined ? {} : { signal: options.signal }), options),
    async output(job, n, { signal } = {}) {
      const output = job.outputs[n];
      if (output === undefined || !Sha256.safeParse(output.sha256).success) {
        throw new GpuxError({
          code: "not_found",
          title: "The job has no such output",
          detail: `output ${n} of ${job.id}`,
        });
      }
      const url = new URL(output.url, settings.url);
      // Tenants' bytes may be served from another origin: our signature is not for it.
      const signed = url.origin === new URL(settings.url).origin;
      const { bytes } = await transport.send({ method: "GET", path: url.href, signed, signal });
      await matching(bytes, output.sha256);
      return bytes;
    },
    async awaitOutput(id, n, { wait: seconds = LONGEST_WAIT_S, signal } = {}) {
      const path = `/v1/jobs/${id}/outputs/${n}?wait=${Math.min(Math.max(Math.floor(seconds), 0), LONGEST_WAIT_S)}`;
      const { bytes, headers } = await transport.send({ method: "GET", path, signal });
      const said = /^sha-256=:([A-Za-z0-9+/]{43}=):$/.exec(headers.get("repr-digest") ?? "")?.[1];
      const hash = said === undefined ? null : decodeBase64(said);
      if (hash === null) throw invalidResponse(path, "Repr-Digest is missing", headers.get("x-request-id"));
      await matching(bytes, Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join(""));
      return bytes;
    },
    async run(input, options = {}) {
      const { signal, onJob, onEvent } = options;
      const job = await dispatch.create(input, options);
      onJob?.(job);
      if (onEvent !== undefined) for await (const event of events(job.id, { signal })) onEvent(event);
      return wait(job.id, { signal });
    },
  };
}

function isUnsigned({ receipt }: JobView): boolean {
  return receipt !== undefined && (receipt.provider_signature === null || receipt.edge_signature === null);
}

function timedOut(job: JobView): GpuxError {
  return new GpuxError({
    code: "timed_out",
    title: "The job has not ended in time",
    hint: "It goes on: ask for it by its id, or cancel it.",
    detail: `${job.id} is ${job.status}`,
  });
}
