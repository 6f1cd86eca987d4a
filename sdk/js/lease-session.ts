import { CLIENT_FRAME_LIMIT, CLIENT_FRAME_VERSION } from "@gpux/protocol/client-frames";
import { JobId } from "@gpux/protocol/ids";
import { JobBatch, type JobEvent, JobRequest, type JobView } from "@gpux/protocol/job";
import type { AllowanceOptions, Allowances } from "./allowances.ts";
import { abortedError, errorOfProblem, GpuxError } from "./error.ts";
import { type BatchInput, dearest } from "./job-batch.ts";
import { MAX_ROUNDS } from "./job-dispatch.ts";
import { createSocketLink, type Dial, type Frame, type Said } from "./socket-link.ts";
import type { Timing } from "./timing.ts";
import { checked, jsonBody, type Transport } from "./transport.ts";
import { committed, type WarmLease, type WarmLeases } from "./warm-leases.ts";

export interface LeaseSessionOptions extends AllowanceOptions {
  readonly signal?: AbortSignal | undefined;
}

export interface SessionRunOptions {
  /** Name of the request, 1 to 64 of A-Za-z0-9._-: the same again, also later or over HTTP, is the same job. Random by default. */
  readonly id?: string;
  /** The job as the lease took it, once that is on record; not called for one that ends before that. */
  readonly onAccepted?: (job: JobView) => void;
  /** Status and progress, of a job that was accepted. */
  readonly onEvent?: (event: JobEvent) => void;
  /** Ends the wait alone: the job goes on. */
  readonly signal?: AbortSignal | undefined;
}

/** One WebSocket into a lease. What it does is what `client.jobs` does on that lease, without a request each. */
export interface LeaseSession extends AsyncDisposable {
  readonly lease: string;
  /** Resolves with the ended job, however it ended. Throws what the edge refused, as `jobs.create` does. */
  run(input: BatchInput, options?: SessionRunOptions): Promise<JobView>;
  /** 1 to 64 jobs: all are taken or none. Resolves in their order when all have ended. */
  batch(inputs: readonly BatchInput[], options?: SessionRunOptions): Promise<JobView[]>;
  /** Of any job of the lease, by its id. Answers how it stands then. */
  cancel(job: string): Promise<JobView>;
  /** Whoever still waits is thrown `aborted`; the jobs go on. */
  close(): Promise<void>;
}

export interface OpenLeaseSession {
  /**
   * A WebSocket into the lease, for many jobs in quick succession: no request, and seldom a signature, for each. It is
   * dialled again when it is lost, and asks again for what was not answered.
   *
   * @example
   * await using session = await client.leases.session(lease.id);
   * const job = await session.run({ function: sha256, inputs: { n: { number: 8 } }, max_price: 50_000n });
   */
  session(id: string, options?: LeaseSessionOptions): Promise<LeaseSession>;
}

export interface LeaseSessionSettings {
  readonly warm: WarmLeases;
  readonly allowances: Allowances;
  readonly transport: Transport;
  readonly timing: Timing;
  readonly dial: Dial;
}

/** A request that has not been answered in full. */
interface Asking {
  readonly id: string;
  readonly text: string;
  /** By place; those that have ended. */
  readonly ended: (JobView | null)[];
  readonly options: SessionRunOptions;
  readonly answer: PromiseWithResolvers<JobView[]>;
  /** Jobs that have not ended. */
  left: number;
}

/** Resolves when the lease has said `ready`; throws what the upgrade was refused for. */
export async function openLeaseSession(
  settings: LeaseSessionSettings,
  lease: string,
  { allowAhead, signal }: LeaseSessionOptions = {},
): Promise<LeaseSession> {
  const { warm, allowances } = settings;
  const { allow, known, raised } = allowances;
  const asking = new Map<string, Asking>();
  /** Of those, what this connection has not taken yet. */
  let unsent: Asking[] = [];
  let underWay = 0;
  /** The edge's limit of that, once it has said so. */
  let mostUnderWay = 0;
  const ready = Promise.withResolvers<void>();
  let over: GpuxError | null = null;
  /** What frames of this session, on their way or taken, brought the lease for an allowance. */
  let brought = 0n;
  /** Allowances rise in the order of the frames that bring them. */
  let turn: Promise<unknown> = Promise.resolve();

  const link = createSocketLink({
    transport: settings.transport,
    timing: settings.timing,
    dial: settings.dial,
    path: `/v1/leases/${lease}/session`,
    onReady(said) {
      mostUnderWay = said.most_under_way;
      underWay = 0;
      unsent = [...asking.values()];
      sendMore();
      ready.resolve();
    },
    onFrame: hear,
    onEnd(why) {
      over = why;
      ready.reject(why);
      for (const { answer } of asking.values()) answer.reject(why);
      asking.clear();
    },
  });
  signal?.addEventListener("abort", () => link.close(), { once: true });
  if (signal?.aborted) link.close();

  /** In their order, as many as the lease takes at once. */
  function sendMore(): void {
    for (let next = unsent[0]; next !== undefined; next = unsent[0]) {
      if (underWay + next.left > mostUnderWay || !link.send(next.text)) return;
      underWay += next.left;
      unsent.shift();
    }
  }

  function hear(said: Said): void {
    const each = asking.get(said.id);
    if (each === undefined) return;
    switch (said.t) {
      case "accepted":
        return each.options.onAccepted?.(said.job);
      case "event":
        return each.options.onEvent?.(said.event);
      case "refused":
        each.answer.reject(errorOfProblem(said.problem));
        return ended(each, each.left);
      case "state":
        each.answer.resolve([said.job]);
        return ended(each, each.left);
      case "result":
      case "failed": {
        const index = said.index ?? 0;
        if (each.ended[index] !== null) return;
        each.ended[index] = said.job;
        const jobs = each.ended.filter((job) => job !== null);
        if (jobs.length === each.ended.length) each.answer.resolve(jobs);
        ended(each, 1);
      }
    }
  }

  function ended(each: Asking, count: number): void {
    each.left -= count;
    underWay -= count;
    if (each.left === 0) asking.delete(each.id);
    sendMore();
  }

  async function ask(frame: Frame, count: number, options: SessionRunOptions): Promise<JobView[]> {
    if (over !== null) throw over;
    if (options.signal?.aborted) throw abortedError();
    const { id } = frame;
    const text = textOf(frame);
    if (asking.has(id)) throw invalidRequest(`${id} names a request that has not been answered`);
    const none = Array.from({ length: count }, () => null);
    const answer = Promise.withResolvers<JobView[]>();
    const each: Asking = { id, text, ended: none, options, answer, left: count };
    asking.set(id, each);
    unsent.push(each);
    const stop = () => {
      answer.reject(abortedError());
      // What was sent goes on, and counts until it ends.
      if (!unsent.includes(each)) return;
      unsent = unsent.filter((other) => other !== each);
      asking.delete(id);
    };
    options.signal?.addEventListener("abort", stop, { once: true });
    sendMore();
    return answer.promise.finally(() => options.signal?.removeEventListener("abort", stop));
  }

  /** What a frame must bring, so that the lease may spend what is committed with it; nothing while that is allowed. */
  async function allowance(place: WarmLease, maxPrice: bigint) {
    if (committed(place) <= brought) return undefined;
    const signed = await allow(place, { maxPrice, ...(allowAhead === undefined ? {} : { allowAhead }) });
    if (signed !== undefined) brought = BigInt(signed.cumulative);
    return signed;
  }

  /** Books, allows and sends in the order of the calls; then waits for the end of all. */
  async function submit(
    wire: readonly BatchInput[],
    together: boolean,
    options: SessionRunOptions,
  ): Promise<JobView[]> {
    const requests = checked(JobBatch, wire);
    const id = options.id ?? crypto.randomUUID();
    const names = requests.map((_, index) => `${id} ${index}`);
    const maxPrice = requests.reduce((sum, { max_price }) => sum + max_price, 0n);
    for (let round = 1; ; round += 1) {
      const before = turn;
      const sent = (async () => {
        await before.catch(() => undefined);
        const place = await known(lease, options.signal);
        for (const [index, { max_price }] of requests.entries())
          warm.book(place, names[index] ?? id, max_price);
        try {
          const signed = await allowance(place, dearest(requests));
          const bring = wire.map((each, index) =>
            index === 0 && signed !== undefined ? { ...each, allowance: signed } : each,
          );
          const frame: Frame = together
            ? { t: "batch", id, requests: bring }
            : { t: "job", id, request: bring[0] };
          return { place, signed, ended: ask(frame, requests.length, options) };
        } catch (error) {
          for (const name of names) warm.unbook(place, name);
          throw error;
        }
      })();
      turn = sent;
      const { place, signed, ended } = await sent;
      try {
        const jobs = await ended;
        for (const [index, job] of jobs.entries()) warm.started(place, names[index] ?? id, job);
        return jobs;
      } catch (error) {
        for (const name of names) warm.unbook(place, name);
        // What came with a job that was not taken did not count.
        if (signed !== undefined) brought = 0n;
        const isShort = error instanceof GpuxError && error.code === "allowance_required";
        if (!isShort || round >= MAX_ROUNDS) throw error;
        await raised(error, { lease, maxPrice, signal: options.signal });
        brought = 0n;
      }
    }
  }

  const session: LeaseSession = {
    lease,
    async run(input, options = {}) {
      const wire: BatchInput = JSON.parse(new TextDecoder().decode(jsonBody(input)));
      checked(JobRequest, wire);
      const [job] = await submit([wire], false, options);
      if (job === undefined) throw new TypeError("one job was asked for");
      return job;
    },
    batch(inputs, options = {}) {
      const wire: BatchInput[] = JSON.parse(new TextDecoder().decode(jsonBody(inputs)));
      return submit(wire, true, options);
    },
    async cancel(job) {
      const frame: Frame = { t: "cancel", id: crypto.randomUUID(), job: checked(JobId, job) };
      const [state] = await ask(frame, 1, {});
      if (state === undefined) throw new TypeError("one job was asked for");
      warm.saw(state);
      return state;
    },
    async close() {
      link.close();
    },
    async [Symbol.asyncDispose]() {
      link.close();
    },
  };
  await ready.promise;
  return session;
}

/** As it travels; one that the edge would close the socket for is not sent. */
function textOf(frame: Frame): string {
  const text = JSON.stringify({ v: CLIENT_FRAME_VERSION, ...frame });
  if (text.length > CLIENT_FRAME_LIMIT)
    throw invalidRequest(
      `a frame has at most ${CLIENT_FRAME_LIMIT} characters, this one ${text.length}: put large inputs as objects`,
    );
  return text;
}

function invalidRequest(detail: string): GpuxError {
  return new GpuxError({
    code: "request_invalid",
    title: "The request cannot be sent",
    detail,
    fault: "tenant",
  });
}
