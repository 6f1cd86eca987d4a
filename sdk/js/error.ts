import { Problem } from "@gpux/protocol/answers";
import type { ErrorCode, Fault } from "@gpux/protocol/errors";
import { retryAfter } from "./timing.ts";

/**
 * What only the client can find wrong. `network`: no answer came; `aborted`: the caller's signal; `timed_out`: the
 * caller's limit; `response_invalid`: an answer outside the schemas, or without a code; `object_mismatch` is also
 * raised here, when bytes are not what their hash says; `quote_mismatch`: a quote or lease is not what was asked, so
 * nothing was signed; `spend_limit`: a signature would allow more than the caller set; `request_invalid`: refused
 * before sending.
 */
export type ClientErrorCode =
  | "network"
  | "aborted"
  | "timed_out"
  | "response_invalid"
  | "quote_mismatch"
  | "spend_limit"
  | "request_invalid";

/** A code of protocol/errors.ts or the client's own; a newer edge may answer with one this client does not know. */
export type GpuxErrorCode = ErrorCode | ClientErrorCode | (string & Record<never, never>);

interface GpuxErrorParts {
  readonly code: GpuxErrorCode;
  readonly title: string;
  readonly hint?: string | undefined;
  readonly detail?: string | undefined;
  readonly status?: number | undefined;
  readonly requestId?: string | undefined;
  readonly retryable?: boolean | undefined;
  readonly fault?: Fault | undefined;
  readonly retryAfterMs?: number | null;
  readonly problem?: Problem | undefined;
  readonly cause?: unknown;
}

/**
 * Every refusal that the SDK throws. `status` is 0 when no answer came; `problem` is the RFC 9457 body with what its
 * code promises (`quote`, `allowance`, `wait`, `errors`).
 */
export class GpuxError extends Error {
  readonly code: GpuxErrorCode;
  readonly title: string;
  readonly hint: string | null;
  readonly detail: string | null;
  readonly status: number;
  readonly requestId: string | null;
  readonly retryable: boolean;
  readonly fault: Fault | null;
  /** What Retry-After asked for, when it was at most a minute. */
  readonly retryAfterMs: number | null;
  readonly problem: Problem | null;

  constructor(parts: GpuxErrorParts) {
    super(parts.detail === undefined ? parts.title : `${parts.title}: ${parts.detail}`, {
      cause: parts.cause,
    });
    this.name = "GpuxError";
    this.code = parts.code;
    this.title = parts.title;
    this.hint = parts.hint ?? null;
    this.detail = parts.detail ?? null;
    this.status = parts.status ?? 0;
    this.requestId = parts.requestId ?? null;
    this.retryable = parts.retryable ?? false;
    this.fault = parts.fault ?? null;
    this.retryAfterMs = parts.retryAfterMs ?? null;
    this.problem = parts.problem ?? null;
  }
}

/** `url` of the request: people see which address was tried. */
export function networkError(cause: unknown, url: string): GpuxError {
  return new GpuxError({
    code: "network",
    title: "The edge cannot be reached",
    hint: "Check the address and this machine's network.",
    detail: `${new URL(url).origin}: ${cause instanceof Error ? reasonOf(cause) : String(cause)}`,
    retryable: true,
    cause,
  });
}

/** fetch hides the reason (`ECONNREFUSED`) one or two causes deep. */
function reasonOf(error: Error): string {
  return error.cause instanceof Error ? reasonOf(error.cause) : error.message || error.name;
}

export function abortedError(): GpuxError {
  return new GpuxError({ code: "aborted", title: "The caller stopped the request" });
}

export function invalidResponse(what: string, detail: string, requestId: string | null): GpuxError {
  return new GpuxError({
    code: "response_invalid",
    title: "The edge's answer does not fit the schema",
    hint: "Update @gpux/sdk, or check that the address is a GPUX edge.",
    detail: `${what}: ${detail}`,
    requestId: requestId ?? undefined,
  });
}

/** From an answer outside 2xx; a body that is no problem+json (a proxy's page) still becomes an error with its status. */
export function errorOfAnswer(status: number, headers: Headers, body: string, now: number): GpuxError {
  const requestId = headers.get("x-request-id") ?? undefined;
  const retryAfterMs = retryAfter(headers, now);
  const parsed = Problem.safeParse(jsonOf(body));
  if (!parsed.success || parsed.data.code === undefined) {
    return new GpuxError({
      code: "response_invalid",
      title: `The answer has status ${status} and no code`,
      hint: "Check that the address is a GPUX edge.",
      detail: body.slice(0, 200) || undefined,
      status,
      requestId,
      retryable: status === 429 || status >= 500,
      retryAfterMs,
    });
  }
  return errorOfProblem(parsed.data, { status, requestId, retryAfterMs });
}

/** From the RFC 9457 body of a refusal, whichever way it came; `answer`: what else is known of it. */
export function errorOfProblem(
  problem: Problem,
  answer: { status?: number; requestId?: string | undefined; retryAfterMs?: number | null } = {},
): GpuxError {
  return new GpuxError({
    code: problem.code ?? "response_invalid",
    title: problem.title,
    hint: problem.hint,
    detail: problem.detail,
    status: answer.status ?? problem.status,
    requestId: problem.request_id ?? answer.requestId,
    retryable: problem.retryable,
    fault: problem.fault,
    retryAfterMs: answer.retryAfterMs ?? null,
    problem,
  });
}

export function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
