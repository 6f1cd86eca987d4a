import { matchesContentDigest, namesSha256 } from "./content-digest.ts";
import { SESSION_HEADER } from "./session-token.ts";
import { type RequestHead, signatureBase } from "./signature-base.ts";
import type { ParsedSignature } from "./signature-fields.ts";

/**
 * What every signed request must fulfil, whatever key signed it (a wallet's or a session's): coverage, time,
 * nonce, audience, body. All of it comes before the signature check, which is what costs.
 */

export type SignedRequest = RequestHead & {
  /** The raw bytes as received; empty when there are none. */
  readonly body: Uint8Array;
  /**
   * In place of a body that is too large to be read before its signature is checked: the SHA-256 that the caller will
   * hold the streamed bytes to. The request's digest must be this one and no other.
   */
  readonly streamed?: Uint8Array;
};

export type RequestPolicy = {
  /** Milliseconds since the epoch. */
  readonly now: number;
  /** The `host[:port]` names under which this server answers, lower case, without the scheme's default port. */
  readonly audience: readonly string[];
};

export type RequestRefusal =
  | "signature_malformed"
  | "signature_expired"
  | "signature_not_yet_valid"
  | "signature_wrong_audience"
  | "signature_component_missing"
  | "digest_missing"
  | "digest_mismatch";

export type SignedClaims = {
  /** UTF-8 of the signature base: what the signature must be over. */
  readonly base: Uint8Array;
  readonly nonce: string;
  readonly keyId: string;
  /** Seconds since the epoch. */
  readonly created: number;
  readonly expires: number;
};

/** A signature lives at most this long; the nonce has to be remembered for as long, plus the skew. */
export const MAX_WINDOW_S = 300;
/** How far a client's clock may be off, either way. */
export const CLOCK_SKEW_S = 30;

/** Printable, so that it can be a key anywhere; long enough that a client does not collide with itself. */
export function isNonce(text: string): boolean {
  return /^[!-~]{8,128}$/.test(text);
}

function hasBody(request: SignedRequest): boolean {
  return request.streamed !== undefined || request.body.length > 0;
}

/** What a request has to cover: what it does, where, with which body, under which idempotency key and session. */
export function requiredComponents(request: SignedRequest, url = new URL(request.url)): string[] {
  const required = ["@method", "@authority", "@path"];
  if (url.search !== "") required.push("@query");
  if (hasBody(request) || request.headers.get("content-digest") !== null) required.push("content-digest");
  for (const name of ["idempotency-key", SESSION_HEADER])
    if (request.headers.get(name) !== null) required.push(name);
  return required;
}

/**
 * The signature base and claims of a request that deserves a signature check. Replay inside the window is not
 * refused here: that is for the object the request lands on, by (keyId, nonce).
 */
export async function signedClaims(
  parsed: ParsedSignature,
  request: SignedRequest,
  policy: RequestPolicy,
): Promise<{ ok: true; value: SignedClaims } | { ok: false; code: RequestRefusal }> {
  const { created, expires, nonce, keyid } = parsed.parameters;
  if (created === undefined || expires === undefined || nonce === undefined || keyid === undefined) {
    return { ok: false, code: "signature_malformed" };
  }
  if (expires <= created || expires - created > MAX_WINDOW_S || !isNonce(nonce)) {
    return { ok: false, code: "signature_malformed" };
  }
  const now = policy.now / 1000;
  if (created > now + CLOCK_SKEW_S) return { ok: false, code: "signature_not_yet_valid" };
  if (expires < now - CLOCK_SKEW_S) return { ok: false, code: "signature_expired" };

  const url = new URL(request.url);
  if (!policy.audience.includes(url.host)) {
    return { ok: false, code: "signature_wrong_audience" };
  }
  const digest = request.headers.get("content-digest");
  if (digest === null && hasBody(request)) return { ok: false, code: "digest_missing" };
  if (!requiredComponents(request, url).every((name) => parsed.components.includes(name))) {
    return { ok: false, code: "signature_component_missing" };
  }
  const base = signatureBase(request, parsed.components, parsed.input);
  if (base === null) return { ok: false, code: "signature_component_missing" };
  if (digest !== null) {
    const matches =
      request.streamed === undefined
        ? await matchesContentDigest(digest, request.body)
        : namesSha256(digest, request.streamed);
    if (!matches) return { ok: false, code: "digest_mismatch" };
  }
  return {
    ok: true,
    value: { base: new TextEncoder().encode(base), nonce, keyId: keyid, created, expires },
  };
}
