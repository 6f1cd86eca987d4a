import { Address, JobId, Sha256 } from "@gpux/protocol/ids";
import { z } from "zod";
import { mayNot } from "./answers.ts";
import { currentAttempt, isTerminal, sameAttempt } from "./job-state.ts";
import type { Life } from "./life.ts";
import { type Live, OutputPipes } from "./output-pipe.ts";
import { isSettled } from "./state.ts";

const LONGEST_WAIT_MS = 60_000;

const Which = { job: JobId, n: z.coerce.number().int().min(0).max(63), as: Address };
const Wanted = z.object({ ...Which, wait: z.coerce.number().int().min(0).max(LONGEST_WAIT_MS) });
const Brought = z.object({
  ...Which,
  epoch: z.coerce.number().int().min(1),
  attempt: z.coerce.number().int().min(1),
  sha256: Sha256,
  bytes: z.coerce.number().int().min(0),
  type: z.string().max(100),
});

const status = (code: number) => new Response(null, { status: code });

/** Outputs too large for frames (SPEC BLK-*): `PUT` by the node's agent, `GET` by whoever waits for one. */
export class Outputs {
  readonly #life: Life;
  readonly #objects: R2Bucket;
  readonly #pipes = new OutputPipes();

  constructor(life: Life, objects: R2Bucket) {
    this.#life = life;
    this.#objects = objects;
  }

  async answer(request: Request): Promise<Response> {
    const asked = Object.fromEntries(new URL(request.url).searchParams);
    if (request.method === "PUT") {
      const brought = Brought.safeParse(asked);
      return brought.success ? this.#take(brought.data, request.body) : status(400);
    }
    const wanted = Wanted.safeParse(asked);
    return wanted.success ? this.#give(wanted.data) : status(400);
  }

  /** 201 when it is stored; 409 from an attempt that is over, whose output nobody waits for. */
  async #take(
    { as, job: id, n, epoch, attempt, sha256, bytes, type }: z.output<typeof Brought>,
    body: ReadableStream<Uint8Array> | null,
  ): Promise<Response> {
    const { state } = this.#life;
    if (state === null || isSettled(state.lease)) return status(410);
    if (as !== state.lease.terms.providerSigner) return status(403);
    const job = this.#life.job(id);
    if (job === null) return status(404);
    // The socket's word that it has begun may come after its bytes.
    const token = job.prefetched?.token ?? currentAttempt(job)?.token;
    if (isTerminal(job) || token === undefined || !sameAttempt(token, { epoch, n: attempt }))
      return status(409);
    const upload = { sha256, bytes, contentType: type, body: body ?? new Blob([]).stream() };
    try {
      await this.#pipes.pass(nameOf(id, n), upload, this.#objects);
      return status(201);
    } catch (error) {
      console.error(JSON.stringify({ event: "upload_failed", job: id, output: n, error: String(error) }));
      return status(422);
    }
  }

  /** 200 with the bytes while they come; 204 when the job has ended, and storage has them or nobody; 202 after the wait. */
  async #give({ as, job: id, n, wait }: z.output<typeof Wanted>): Promise<Response> {
    if (mayNot(this.#life.state, as) !== null) return status(403);
    const name = nameOf(id, n);
    const begun = Promise.withResolvers<Live>();
    this.#pipes.next(name, begun.resolve);
    try {
      for (const until = Date.now() + wait; ; ) {
        const job = this.#life.job(id);
        if (job === null || isTerminal(job)) return status(204);
        const left = until - Date.now();
        if (left <= 0) return status(202);
        const changed = this.#life.waiters.change(id, left).then(() => null);
        const live = await Promise.race([begun.promise, changed]);
        if (live === null) continue;
        const headers = {
          "content-type": live.contentType,
          "content-length": String(live.bytes),
          "x-gpux-sha256": live.sha256,
        };
        return new Response(live.body, { headers });
      }
    } finally {
      this.#pipes.forget(name, begun.resolve);
    }
  }
}

function nameOf(job: JobId, n: number): string {
  return `${job} ${n}`;
}
