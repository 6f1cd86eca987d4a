import type { PaymentNeeded, Refused } from "@gpux/durable-objects/interfaces";
import { CreditOffer } from "@gpux/protocol/credit";
import { ERRORS, type ErrorCode } from "@gpux/protocol/errors";
import { JobView, TERMINAL } from "@gpux/protocol/job";
import { Quote } from "@gpux/protocol/lease";
import { z } from "zod";
import { viewAnswer } from "./json-answer.ts";
import { LEASE_HEADER } from "./lease-token.ts";
import { preferenceApplied } from "./prefer.ts";
import { type Refusal, refuse } from "./refusal.ts";

export const REQUEST_HEADERS = {
  Prefer:
    "wait=n: answer when the job (of several: every one) has ended, or after n seconds (at most 60) with its then present state",
  "Idempotency-Key": "the same key and body are the same job",
};

export const JOB_ANSWERS = {
  200: {
    description: "The job has ended, or this request was made before (Idempotent-Replayed)",
    schema: JobView,
  },
  202: { description: "The job is on its way", schema: JobView },
};

/** Of any route that takes a job. */
export const SUBMIT_REFUSALS = [
  "invalid_json",
  "invalid_request",
  "body_too_large",
  "unsupported_media_type",
  "function_unknown",
  "manifest_invalid",
  "input_invalid",
  "idempotency_key_reused",
  "allowance_required",
  "allowance_invalid",
  "lease_underfunded",
  "lease_unknown",
  "lease_closed",
  "queue_full",
  "forbidden",
  "session_cap_exceeded",
] as const;

/** The job as it was taken, or as the same request found it. `token`: leads the next one to its lease. */
export function jobAnswer(
  job: JobView,
  replayed: boolean,
  wait: number | null,
  token: string | null = null,
): Response {
  return viewAnswer(job, replayed || TERMINAL.has(job.status) ? 200 : 202, {
    location: job.urls.get,
    ...(token === null ? {} : { [LEASE_HEADER]: token }),
    ...(replayed ? { "idempotent-replayed": "true" } : {}),
    ...preferenceApplied(wait),
  });
}

/** A refusal with what it promises: the quote to sign, the allowance to give, or why the market has nothing. */
export function paymentRefusal(refused: Refused | PaymentNeeded): Refusal {
  const { ok, code, detail, ...promised } = {
    quote: undefined,
    credit: undefined,
    index: undefined,
    ...refused,
  };
  const { quote, credit, index, ...rest } = promised;
  return refuse(code, detail, {
    ...rest,
    ...(quote === undefined ? {} : { quote: z.encode(Quote, quote) }),
    ...(credit === undefined ? {} : { credit: z.encode(CreditOffer, credit) }),
    ...(index === undefined ? {} : errorAt(index, code, detail)),
  });
}

/** Which job of an array a refusal is for; none of them was taken. */
export function errorAt(index: number, code: ErrorCode, detail: string | undefined) {
  return { errors: [{ pointer: `/${index}`, detail: detail ?? ERRORS[code].title }] };
}
