import { type Refusal, refuse } from "./refusal.ts";

/** RFC 8941 string characters that a header can carry, bounded. */
const IDEMPOTENCY_KEY = /^[!-~]{1,255}$/;

/** The request's Idempotency-Key; null without one. */
export function idempotencyKey(
  request: Request,
): { readonly ok: true; readonly key: string | null } | Refusal {
  const key = request.headers.get("idempotency-key");
  if (key === null || IDEMPOTENCY_KEY.test(key)) return { ok: true, key };
  return refuse("invalid_request", "Idempotency-Key must have 1 to 255 printable characters");
}
