import { setTimeout as wait } from "node:timers/promises";
import type { JobId, LeaseId } from "@gpux/protocol/ids";
import type { AttemptToken } from "@gpux/protocol/job";
import { backoff } from "../link/backoff.ts";
import { type Credentials, signedRequest } from "../link/credentials.ts";
import { sha256Of } from "./digest.ts";
import { put, type UploadAnswer } from "./uploads.ts";

export type Fetched =
  | { ok: true; bytes: Uint8Array }
  | { ok: false; code: "object_unavailable" | "limit_exceeded"; detail: string };
export type Stored = { ok: true } | { ok: false; detail: string };

/** The edge's content-addressed store, as a provider uses it. Aborting rejects with the signal's reason. */
export interface Objects {
  get(sha256: string, maxBytes: number, signal: AbortSignal): Promise<Fetched>;
  put(sha256: string, bytes: Uint8Array, contentType: string, signal: AbortSignal): Promise<Stored>;
  /** As `put`, an output of a job through its lease, so that whoever waits for it there has it at once. */
  putOutput(
    of: OutputPlace,
    sha256: string,
    bytes: Uint8Array,
    contentType: string,
    signal: AbortSignal,
  ): Promise<Stored>;
}

/** Which output of which attempt. */
export interface OutputPlace {
  readonly lease: LeaseId;
  readonly job: JobId;
  readonly attempt: AttemptToken;
  readonly n: number;
}

const TRIES = 6;
/** Functions and inputs that come again, and outputs that the next job takes in: a warm lease fetches nothing. */
const CACHE_BYTES = 128 * 2 ** 20;

export function createObjects(edge: string, credentials: Credentials): Objects {
  const cache = new Map<string, Uint8Array>();
  let cached = 0;
  const keep = (sha256: string, bytes: Uint8Array) => {
    if (bytes.length > CACHE_BYTES / 4 || cache.has(sha256)) return;
    cache.set(sha256, bytes);
    cached += bytes.length;
    for (const [oldest, old] of cache) {
      if (cached <= CACHE_BYTES) return;
      cache.delete(oldest);
      cached -= old.length;
    }
  };
  const ask = async (request: Request, signal: AbortSignal): Promise<Response> => {
    const response = await fetch(await signedRequest(credentials, request), { signal });
    if (response.status === 401) credentials.clock.refusedAt(response.headers.get("date"));
    return response;
  };

  const objects: Objects = {
    async get(sha256, maxBytes, signal) {
      const known = cache.get(sha256);
      if (known !== undefined) {
        // Back to the young end.
        cache.delete(sha256);
        cache.set(sha256, known);
        return known.length > maxBytes ? tooLarge(sha256, maxBytes) : { ok: true, bytes: known };
      }
      let detail = "";
      for (let tried = 0; tried < TRIES; tried += 1) {
        if (tried > 0) await pause(tried, signal);
        try {
          const response = await ask(new Request(objectUrl(edge, sha256)), signal);
          if (!response.ok) {
            detail = await why(response);
            if (isFinal(response.status)) break;
            continue;
          }
          const bytes = await readUpTo(response, maxBytes);
          if (bytes === null) return tooLarge(sha256, maxBytes);
          if ((await sha256Of(bytes)) === sha256) {
            keep(sha256, bytes);
            return { ok: true, bytes };
          }
          detail = "the bytes are not what the hash says";
        } catch (error) {
          signal.throwIfAborted();
          detail = messageOf(error);
        }
      }
      return { ok: false, code: "object_unavailable", detail: `object ${sha256}: ${detail}` };
    },
    async put(sha256, bytes, contentType, signal) {
      let detail = "";
      for (let tried = 0; tried < TRIES; tried += 1) {
        if (tried > 0) await pause(tried, signal);
        try {
          const url = objectUrl(edge, sha256);
          const answer = await put(credentials, { url, sha256, bytes, contentType }, signal);
          if (isStored(answer)) {
            keep(sha256, bytes);
            return { ok: true };
          }
          detail = whyNot(answer.status, answer.text);
          if (isFinal(answer.status)) break;
        } catch (error) {
          signal.throwIfAborted();
          detail = messageOf(error);
        }
      }
      return { ok: false, detail: `output ${sha256}: ${detail}` };
    },
    async putOutput({ lease, job, attempt, n }, sha256, bytes, contentType, signal) {
      const query = new URLSearchParams({
        epoch: String(attempt.epoch),
        attempt: String(attempt.n),
        sha256,
      });
      try {
        const url = new URL(`/v1/agent/leases/${lease}/jobs/${job}/outputs/${n}?${query}`, edge);
        if (isStored(await put(credentials, { url, sha256, bytes, contentType }, signal))) {
          keep(sha256, bytes);
          return { ok: true };
        }
      } catch {
        signal.throwIfAborted();
      }
      // A lease that was restarted may not know the job yet (ACK-5); the store knows every object.
      return objects.put(sha256, bytes, contentType, signal);
    },
  };
  return objects;
}

function objectUrl(edge: string, sha256: string): URL {
  return new URL(`/v1/objects/${sha256}`, edge);
}

function tooLarge(sha256: string, maxBytes: number): Fetched {
  return { ok: false, code: "limit_exceeded", detail: `object ${sha256} is larger than ${maxBytes} bytes` };
}

/** A refusal that asking again does not change. 401 may be a clock, 408 and 429 a matter of time. */
function isFinal(status: number): boolean {
  return status >= 400 && status < 500 && ![401, 408, 409, 425, 429].includes(status);
}

function pause(tried: number, signal: AbortSignal): Promise<void> {
  return wait(backoff(tried, Math.random()), undefined, { signal });
}

async function why(response: Response): Promise<string> {
  const text = await readUpTo(response, 4_096).catch(() => null);
  return whyNot(response.status, text === null ? "" : new TextDecoder().decode(text));
}

function whyNot(status: number, text: string): string {
  return `HTTP ${status} ${text.slice(0, 400)}`.trim();
}

function isStored({ status }: UploadAnswer): boolean {
  return status >= 200 && status < 300;
}

function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // fetch hides what happened in the cause.
  return error.cause instanceof Error ? error.cause.message : error.message;
}

/** The body, or null as soon as it is longer than `maxBytes`. */
async function readUpTo(response: Response, maxBytes: number): Promise<Uint8Array | null> {
  if (response.body === null) return new Uint8Array();
  const chunks: Uint8Array[] = [];
  let length = 0;
  // Leaving the loop cancels the stream.
  for await (const chunk of response.body) {
    length += chunk.length;
    if (length > maxBytes) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, length);
}
