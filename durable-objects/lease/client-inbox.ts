import { Problem } from "@gpux/protocol/answers";
import { CLIENT_CLOSE, CLIENT_FRAME_LIMIT, FromClient, MOST_UNDER_WAY } from "@gpux/protocol/client-frames";
import { type ErrorCode, problem } from "@gpux/protocol/errors";
import type { JobId } from "@gpux/protocol/ids";
import { invalidRequest } from "@gpux/protocol/invalid-request";
import { JobBatch, JobRequest, type JobView } from "@gpux/protocol/job";
import { parserOf } from "@gpux/protocol/parser";
import type { ObjectEnv } from "../bindings.ts";
import { askAs } from "../caller.ts";
import { checkFunction } from "../functions.ts";
import type { Caller, Outcome, PaymentNeeded, Principal, Refused } from "../interfaces.ts";
import { errorAt, promisedOf } from "../promised.ts";
import { jobIdsFor, scopeOf } from "../request-scope.ts";
import type { Client, Dialler } from "./clients.ts";
import type { Life } from "./life.ts";
import { type Asked, takeIn } from "./submission.ts";

/** Frames of one socket that may wait their turn; who keeps to `most_under_way` never has so many. */
const MOST_WAITING = 2 * MOST_UNDER_WAY;
/** RFC 6455 section 5.5: a close frame's reason has at most 123 bytes. */
const REASON_LENGTH = 120;

const parseFrame = parserOf(FromClient);
const parseRequest = parserOf(JobRequest);
const parseBatch = parserOf(JobBatch);

const OVER: ReadonlySet<ErrorCode> = new Set(["session_revoked", "session_expired"]);

interface Line {
  last: Promise<void>;
  waiting: number;
}

/**
 * What comes over session sockets. A socket's frames are taken one after another, as they were sent: a job may need the
 * allowance that came with the one before it. What they ask for is taken in as it is over HTTP (submission.ts).
 */
export class ClientInbox {
  readonly #life: Life;
  readonly #env: ObjectEnv;
  readonly #cancel: (as: Caller, job: JobId) => Promise<Outcome<{ job: JobView }>>;
  readonly #lines = new WeakMap<Client, Line>();

  constructor(
    life: Life,
    env: ObjectEnv,
    cancel: (as: Caller, job: JobId) => Promise<Outcome<{ job: JobView }>>,
  ) {
    this.#life = life;
    this.#env = env;
    this.#cancel = cancel;
  }

  /** Resolves when the frame has been dealt with. */
  async take(client: Client, raw: string | ArrayBuffer): Promise<void> {
    const { clients } = this.#life;
    if (client.dialler.until <= Date.now()) return clients.expire(Date.now());
    const length = typeof raw === "string" ? raw.length : raw.byteLength;
    if (length > CLIENT_FRAME_LIMIT)
      return clients.close(client, CLIENT_CLOSE.tooLong, `at most ${CLIENT_FRAME_LIMIT} characters`);
    const frame = parseFrame(parseJson(raw));
    if (!frame.success)
      return clients.close(client, CLIENT_CLOSE.badFrame, reasonOf(invalidRequest("", frame.error).detail));
    const line = this.#lines.get(client) ?? { last: Promise.resolve(), waiting: 0 };
    this.#lines.set(client, line);
    if (line.waiting >= MOST_WAITING)
      return clients.close(client, CLIENT_CLOSE.flooded, "wait for answers before you send more");
    line.waiting += 1;
    const turn = line.last.then(() => this.#answer(client, frame.data));
    line.last = turn.catch((error: unknown) => this.#broke(client, frame.data, error));
    await line.last;
    line.waiting -= 1;
  }

  async #answer(client: Client, frame: FromClient): Promise<void> {
    // It may have gone while the frames before were dealt with.
    if (this.#life.clients.of(client.socket) === null) return;
    switch (frame.t) {
      case "job": {
        const request = parseRequest(frame.request);
        if (!request.success) return this.#invalid(client, frame.id, request.error);
        return this.#submit(client, frame.id, [request.data], false);
      }
      case "batch": {
        const requests = parseBatch(frame.requests);
        if (!requests.success) return this.#invalid(client, frame.id, requests.error);
        return this.#submit(client, frame.id, requests.data, true);
      }
      case "cancel": {
        const canceled = await this.#as(client, (as) => this.#cancel(as, frame.job));
        if (!canceled.ok) return this.#refuse(client, frame.id, canceled);
        return this.#life.clients.send(client, { t: "state", id: frame.id, job: canceled.job });
      }
    }
  }

  async #submit(
    client: Client,
    id: string,
    requests: readonly JobRequest[],
    together: boolean,
  ): Promise<void> {
    const { clients, state } = this.#life;
    if (state === null) return this.#refuse(client, id, { ok: false, code: "lease_unknown" });
    for (const [index, request] of requests.entries()) {
      const checked = await checkFunction(this.#env.OBJECTS, request);
      if (checked.ok) continue;
      const { code, detail } = checked;
      return this.#refuse(client, id, checked, together ? errorAt(index, code, detail) : {});
    }
    // The request's name is its Idempotency-Key: over HTTP it would be the same jobs.
    const scope = scopeOf(null, id, "");
    const ids = await jobIdsFor(state.lease.id, client.dialler.address, scope, requests.length);
    const asked = requests.flatMap((request, index): Asked[] => {
      const job = ids[index];
      return job === undefined ? [] : [{ job, clientId: null, request }];
    });
    const fresh = asked.filter(({ job }) => !client.waits.has(job));
    if (client.waits.size + fresh.length > MOST_UNDER_WAY)
      return this.#refuse(client, id, { ok: false, code: "too_many_under_way" });
    // Before they are taken in: some of that writes their rows, and one that is on record is told.
    for (const { job } of fresh) {
      const index = together ? asked.findIndex((each) => each.job === job) : null;
      clients.wait(client, job, { id, index, told: false });
    }
    const taken = await this.#as(client, (as) => takeIn(this.#life, as, asked, together));
    if (taken.ok) return this.#life.tellClients();
    for (const { job } of fresh) clients.unwait(client, job);
    this.#refuse(client, id, taken);
  }

  /**
   * Nobody awaits this lease here, so it may ask the Account, which in turn asks this lease: what came over HTTP is
   * asked for by the Worker the same way.
   */
  #as<Answer extends object>(
    { dialler }: Client,
    ask: (as: Caller) => Promise<Answer>,
  ): Promise<Answer | Refused> {
    const by = principalOf(dialler);
    const lease = this.#life.state?.lease.id;
    return askAs(by, ask, async (needs) =>
      lease === undefined
        ? { ok: false, code: "lease_unknown" }
        : this.#env.ACCOUNT.getByName(by.address).admitSession(by, lease, needs),
    );
  }

  #invalid(client: Client, id: string, error: Parameters<typeof invalidRequest>[1]): void {
    const { detail, errors } = invalidRequest("", error);
    const refused = {
      ok: false,
      code: "invalid_request",
      ...(detail === undefined ? {} : { detail }),
    } as const;
    this.#refuse(client, id, refused, { errors });
  }

  #refuse(client: Client, id: string, refused: Refused | PaymentNeeded, extra: object = {}): void {
    const { code, detail } = refused;
    const said = problem(code, client.dialler.request, detail, { ...promisedOf(refused), ...extra });
    this.#life.clients.send(client, { t: "refused", id, problem: Problem.parse(said) });
    if (OVER.has(code)) this.#life.clients.close(client, CLIENT_CLOSE.unauthorized, "the session is over");
  }

  /** A bug or the platform: the operator gets all of it, the client the number to quote. */
  #broke(client: Client, frame: FromClient, error: unknown): void {
    const { request } = client.dialler;
    const lease = this.#life.state?.lease.id;
    console.error(
      JSON.stringify({ event: "frame_failed", lease, frame: frame.t, request, error: String(error) }),
    );
    this.#refuse(client, frame.id, { ok: false, code: "internal" });
  }
}

function principalOf({ address, session, bearer }: Dialler): Principal {
  const none = { address, nonce: "", expires: 0 };
  return session === null ? none : { ...none, session: { id: session, scopes: ["jobs"], bearer } };
}

function parseJson(raw: string | ArrayBuffer): unknown {
  if (typeof raw !== "string") return undefined;
  try {
    return JSON.parse(raw);
  } catch {
    return undefined;
  }
}

function reasonOf(detail: string | undefined): string {
  return (detail ?? "a frame does not fit the protocol").replace(/[^ -~]/g, "?").slice(0, REASON_LENGTH);
}
