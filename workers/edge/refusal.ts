import { ERRORS, type ErrorCode, problem } from "@gpux/protocol/errors";

/** What a handler answers when it does not do as asked; `extra` is what the code promises beside the problem. */
export interface Refusal {
  readonly ok: false;
  readonly code: ErrorCode;
  readonly detail?: string;
  readonly extra?: object;
  readonly headers?: Readonly<Record<string, string>>;
}

export function refuse(code: ErrorCode, detail?: string, extra: object = {}): Refusal {
  return detail === undefined ? { ok: false, code, extra } : { ok: false, code, detail, extra };
}

/** Seconds after which asking again makes sense, for codes that say so. */
const RETRY_AFTER_S: Partial<Record<ErrorCode, number>> = {
  idempotency_in_progress: 1,
  queue_full: 2,
  too_many_sockets: 5,
  too_many_quotes: 30,
  no_capacity: 10,
  node_offline: 5,
  edge_busy: 5,
  chain_unavailable: 5,
  token_refused: 60,
  relayer_low_balance: 60,
  intent_reverted: 5,
  rate_limited: 60,
};

/** RFC 9457: the one way in which this Worker says no. */
export function problemResponse(refusal: Refusal, requestId: string): Response {
  const { code, detail, extra, headers } = refusal;
  const retryAfter = RETRY_AFTER_S[code];
  return new Response(JSON.stringify(problem(code, requestId, detail, extra)), {
    status: ERRORS[code].status,
    headers: {
      "content-type": "application/problem+json",
      "cache-control": "no-store",
      ...(retryAfter === undefined ? {} : { "retry-after": String(retryAfter) }),
      // Who signs by a wrong clock learns the time from it; not every host of this Worker puts it there.
      ...(ERRORS[code].status === 401 ? { date: new Date().toUTCString() } : {}),
      ...headers,
    },
  });
}
