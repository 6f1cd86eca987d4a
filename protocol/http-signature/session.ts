import type { SessionGrant, SessionKey } from "../session.ts";
import { decodeBase64Url } from "./base64url.ts";
import {
  type RequestPolicy,
  type RequestRefusal,
  type SignedRequest,
  signedClaims,
} from "./request-signature.ts";
import { type SignOptions, signedCopy } from "./request-signing.ts";
import { SESSION_HEADER, type SessionSeal, type WebCryptoKey } from "./session-token.ts";
import { type ParsedSignature, parseSignature } from "./signature-fields.ts";

/**
 * HTTP requests signed by a session's key: RFC 9421 with a registered algorithm over the signature base itself, keyid
 * the session's id, and the sealed grant in a covered header.
 */

const LABEL = "ses";

/** RFC 9421 section 6.2. The algorithm follows from the sealed key alone; one that is named must be that. */
const ALGORITHMS = {
  OKP: { alg: "ed25519", bytes: 64 },
  EC: { alg: "ecdsa-p256-sha256", bytes: 64 },
  oct: { alg: "hmac-sha256", bytes: 32 },
} as const satisfies Record<SessionKey["kty"], { alg: string; bytes: number }>;

export interface SessionSigner {
  readonly id: string;
  readonly token: string;
  /** Over the bytes: Ed25519, ECDSA with SHA-256 as `r s`, or HMAC-SHA256. */
  sign(message: Uint8Array): Promise<Uint8Array>;
}

/** As `signRequest` of erc8128.ts, by a session. */
export function signSessionRequest(
  request: Request,
  signer: SessionSigner,
  options: SignOptions = {},
): Promise<Request> {
  const headers = new Headers(request.headers);
  headers.set(SESSION_HEADER, signer.token);
  return signedCopy(
    new Request(request, { headers }),
    { label: LABEL, keyid: signer.id, sign: (base) => signer.sign(base) },
    options,
  );
}

export type SessionPolicy = RequestPolicy & { readonly chainId: number; readonly seal: SessionSeal };

export type SessionRefusal = RequestRefusal | "signature_invalid" | "session_invalid" | "session_expired";

export type VerifiedSession = {
  readonly ok: true;
  readonly grant: SessionGrant;
  /** As in an ERC-8128 request; unique for this session alone. */
  readonly nonce: string;
  readonly expires: number;
};

/**
 * Which session signed the request, or why it is refused; cheap checks first. Whether the session has been revoked is
 * for the object that the request lands on.
 */
export async function verifySessionRequest(
  request: SignedRequest,
  policy: SessionPolicy,
): Promise<VerifiedSession | { readonly ok: false; readonly code: SessionRefusal }> {
  const parsed = parseSignature(request.headers);
  const token = request.headers.get(SESSION_HEADER);
  if (!parsed.ok || token === null) return { ok: false, code: "session_invalid" };
  const grant = await policy.seal.open(token);
  if (grant === null || grant.id !== parsed.value.parameters.keyid)
    return { ok: false, code: "session_invalid" };
  if (grant.chain !== policy.chainId || !policy.audience.includes(grant.audience))
    return { ok: false, code: "session_invalid" };
  const { alg, bytes } = ALGORITHMS[grant.key.kty];
  const named = parsed.value.parameters.alg;
  if ((named !== undefined && named !== alg) || parsed.value.signature.length !== bytes)
    return { ok: false, code: "signature_malformed" };
  if (policy.now >= grant.expires * 1_000) return { ok: false, code: "session_expired" };

  const claims = await signedClaims(parsed.value, request, policy);
  if (!claims.ok) return claims;
  const { base, nonce, expires } = claims.value;
  if (!(await isSignedBy(grant, parsed.value, base, token, policy.seal)))
    return { ok: false, code: "signature_invalid" };
  return { ok: true, grant, nonce, expires };
}

/** A seal answers the same grant for the same token as long as it knows it: its key is imported once. */
const keys = new WeakMap<SessionGrant, Promise<WebCryptoKey | null>>();

async function isSignedBy(
  grant: SessionGrant,
  { signature }: ParsedSignature,
  base: Uint8Array,
  token: string,
  seal: SessionSeal,
): Promise<boolean> {
  const algorithm = IMPORT[grant.key.kty];
  let known = keys.get(grant);
  if (known === undefined) {
    known = verifyingKey(grant, token, seal);
    keys.set(grant, known);
  }
  const key = await known;
  if (key === null) return false;
  return await crypto.subtle.verify(algorithm, key, signature, base);
}

const IMPORT = {
  OKP: { name: "Ed25519" },
  EC: { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" },
  oct: { name: "HMAC", hash: "SHA-256" },
} as const satisfies Record<SessionKey["kty"], object>;

async function verifyingKey(
  grant: SessionGrant,
  token: string,
  seal: SessionSeal,
): Promise<WebCryptoKey | null> {
  if (grant.key.kty !== "oct") return importSessionKey(grant.key);
  const secret = await seal.secretOf(grant.id, token.slice(0, token.indexOf(".")));
  return secret === null ? null : crypto.subtle.importKey("raw", secret, IMPORT.oct, false, ["verify"]);
}

/** Null when it is no point of its curve. */
export async function importSessionKey(
  key: Exclude<SessionKey, { kty: "oct" }>,
): Promise<WebCryptoKey | null> {
  const x = decodeBase64Url(key.x);
  const y = key.kty === "EC" ? decodeBase64Url(key.y) : new Uint8Array();
  if (x === null || y === null) return null;
  // RFC 8032 section 5.1.2 has the key as it is; SEC 1, 2.3.3 the point as 4, x, y.
  const raw = key.kty === "EC" ? Uint8Array.of(4, ...x, ...y) : x;
  try {
    return await crypto.subtle.importKey("raw", raw, IMPORT[key.kty], false, ["verify"]);
  } catch {
    return null;
  }
}
