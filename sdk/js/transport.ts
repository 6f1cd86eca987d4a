import { abortedError, errorOfAnswer, GpuxError, invalidResponse, jsonOf, networkError } from "./error.ts";
import { backoff, type Timing } from "./timing.ts";

/** One request, before signing. `path` is joined to the client's address; an absolute URL stands as it is. */
export interface Call {
  readonly method: "GET" | "HEAD" | "POST" | "PUT" | "DELETE";
  readonly path: string;
  readonly body?: Uint8Array<ArrayBuffer> | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
  /** Public routes and other origins get no signature; `wallet`: by no session, `session`: by it alone where there is one. */
  readonly signed?: boolean | SignedBy;
  /** Every request here may be repeated: those that spend carry an Idempotency-Key or a salt. `false` sends once. */
  readonly retried?: boolean;
}

/** Who signs: a session where there is one, or the account in any case. */
export type SignedBy = "session" | "wallet";
/** The request with its signature's headers. Called anew for each try, because a nonce is good for one. */
export type Sign = (request: Request, by: SignedBy) => Promise<Request>;
/** What to do about a refusal of what a session signed: let the account sign it, or nothing. */
export type Recovery = "wallet" | null;

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** What the SDK needs of a zod schema: its parser and its decoded type. */
export interface Schema<Value> {
  safeParse(
    value: unknown,
  ):
    | { success: true; data: Value }
    | { success: false; error: { issues: readonly { path: readonly PropertyKey[]; message: string }[] } };
}

export interface Transport {
  /** The edge's address. */
  readonly url: string;
  /** The whole answer. Throws {@link GpuxError} for anything outside 2xx, after its retries. */
  send(call: Call): Promise<Answer>;
  /** The answer with its body still to be read (event streams). */
  open(call: Call): Promise<Response>;
  /** A JSON answer, hostile until it fits the schema. */
  json<Value>(call: Call, schema: Schema<Value>): Promise<Value>;
  /** A GET with its signature, for who sends it by other means (a WebSocket's upgrade). */
  sign(path: string, by: SignedBy): Promise<Request>;
  readonly recover: (error: GpuxError) => Recovery;
}

export interface TransportSettings {
  readonly url: string;
  readonly fetch: typeof fetch;
  readonly sign: Sign;
  readonly recover: (error: GpuxError) => Recovery;
  readonly maxRetries: number;
  readonly timing: Timing;
}

export function createTransport(settings: TransportSettings): Transport {
  const { timing } = settings;

  async function once<Result>(
    call: Call,
    by: SignedBy,
    read: (response: Response) => Promise<Result>,
  ): Promise<Result> {
    if (call.signal?.aborted) throw abortedError();
    const unsigned = new Request(new URL(call.path, settings.url), {
      method: call.method,
      headers: new Headers(call.headers),
      body: call.body ?? null,
      // A signature names one target, so a redirect could only lose it or leak it.
      redirect: "error",
    });
    const request = call.signed === false ? unsigned : await settings.sign(unsigned, by);
    try {
      const response = await settings.fetch(request, { signal: call.signal ?? null });
      if (response.ok) return await read(response);
      throw errorOfAnswer(response.status, response.headers, await response.text(), timing.now());
    } catch (error) {
      if (error instanceof GpuxError) throw error;
      throw call.signal?.aborted ? abortedError() : networkError(error, unsigned.url);
    }
  }

  async function attempt<Result>(call: Call, read: (response: Response) => Promise<Result>): Promise<Result> {
    const retries = call.retried === false ? 0 : settings.maxRetries;
    let by: SignedBy = call.signed === "wallet" ? "wallet" : "session";
    for (let n = 0; ; n += 1) {
      try {
        return await once(call, by, read);
      } catch (error) {
        const mayRecover = by === "session" && call.signed !== "session";
        if (mayRecover && error instanceof GpuxError && settings.recover(error) === "wallet") {
          // Refused before it was looked at: nothing was tried yet.
          by = "wallet";
          n -= 1;
          continue;
        }
        if (!(error instanceof GpuxError) || n >= retries || !mayRetry(error)) throw error;
        await timing.sleep(error.retryAfterMs ?? backoff(n, timing), call.signal);
      }
    }
  }

  const send = (call: Call) =>
    attempt(call, async (response) => ({
      status: response.status,
      headers: response.headers,
      bytes: new Uint8Array(await response.arrayBuffer()),
    }));

  return {
    url: settings.url,
    send,
    open: (call) => attempt(call, async (response) => response),
    sign: (path, by) => settings.sign(new Request(new URL(path, settings.url)), by),
    recover: settings.recover,
    async json(call, schema) {
      const { headers, bytes } = await send(call);
      const parsed = schema.safeParse(jsonOf(new TextDecoder().decode(bytes)));
      if (parsed.success) return parsed.data;
      const issue = parsed.error.issues[0];
      const where = `${call.method} ${call.path}${issue ? ` at /${issue.path.map(String).join("/")}` : ""}`;
      throw invalidResponse(where, issue?.message ?? "not JSON", headers.get("x-request-id"));
    },
  };
}

/** 409 only while the first request with the same key still runs; other conflicts stay conflicts. */
function mayRetry(error: GpuxError): boolean {
  if (error.code === "network" || error.code === "idempotency_in_progress") return true;
  return error.status === 429 || error.status >= 500;
}

/** Refuses what the edge would refuse, before it is sent. bigint amounts become the wire's strings. */
export function checked<Value>(schema: Schema<Value>, input: unknown): Value {
  const parsed = schema.safeParse(JSON.parse(new TextDecoder().decode(jsonBody(input))));
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new GpuxError({
    code: "request_invalid",
    title: "The request does not fit the schema",
    detail: issue && `/${issue.path.map(String).join("/")}: ${issue.message}`,
    fault: "tenant",
  });
}

export function jsonBody(value: unknown): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(
    JSON.stringify(value, (_, member) => (typeof member === "bigint" ? member.toString() : member)),
  );
}
