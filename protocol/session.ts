import { z } from "zod";
import { Address, base32 } from "./ids.ts";
import { Amount } from "./money.ts";

/**
 * Sessions: a wallet signs once (`POST /v1/sessions`) that a key may act for it, within scopes, a cap on spending and
 * a time. The grant then travels with each request as a token that the edge has sealed (http-signature/session.ts).
 */

/** `ses_` and 128 random bits; also the keyid of the session's signatures. */
export const SessionId = z
  .templateLiteral(["ses_", z.string().regex(/^[0-9a-z]{26}$/)])
  .describe("a session's id, `ses_...`");
export type SessionId = z.infer<typeof SessionId>;

/** From 16 random bytes. */
export function sessionIdOf(seed: Uint8Array): SessionId {
  return SessionId.parse(`ses_${base32(seed.subarray(0, 16))}`);
}

/** What a session may do. Opening sessions is the wallet's alone. */
export const SessionScope = z.enum([
  // Leases, jobs, events and outputs, as they are.
  "read",
  // Objects, and jobs on the wallet's leases: what they cost counts against the cap.
  "jobs",
  // Firm quotes, which hold GPUs for 30 s.
  "quotes",
  // Opening, topping up and closing leases. The money is moved by the payer's own signature, never by the session's.
  "leases",
]);
export type SessionScope = z.infer<typeof SessionScope>;

/** RFC 7515 appendix C, of 32 bytes: a coordinate or an Ed25519 key. */
const Base64Url32 = z.string().regex(/^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/, "32 bytes in base64url");

/**
 * The session's key as a JSON Web Key (RFC 7517, RFC 8037), its public part. `oct` asks the edge for a secret: stock
 * HTTP clients can HMAC, but the edge then knows the key (docs/security.md), so that such a session gets less.
 */
export const SessionKey = z.union([
  z.strictObject({ kty: z.literal("OKP"), crv: z.literal("Ed25519"), x: Base64Url32 }),
  z.strictObject({ kty: z.literal("EC"), crv: z.literal("P-256"), x: Base64Url32, y: Base64Url32 }),
  z.strictObject({ kty: z.literal("oct") }),
]);
export type SessionKey = z.infer<typeof SessionKey>;

/** What a session whose key the edge knows may do. */
export const BEARER_SCOPES: ReadonlySet<SessionScope> = new Set(["read", "jobs"]);

/** Whether the edge knows the key, and could have signed for it. */
export function isBearer(key: SessionKey): boolean {
  return key.kty === "oct";
}

export const LONGEST_SESSION_S = 7 * 24 * 3_600;
export const SHORTEST_SESSION_S = 60;

const Scopes = z
  .array(SessionScope)
  .min(1)
  .max(SessionScope.options.length)
  .refine((scopes) => new Set(scopes).size === scopes.length, "a scope twice");

/** Body of `POST /v1/sessions`; the wallet signs the request (ERC-8128), and so all of this. */
export const SessionRequest = z.strictObject({
  key: SessionKey,
  scopes: Scopes,
  /** Base units: the most that jobs under this session may cost together, over all leases. */
  cap: Amount,
  expires_at: z.iso.datetime(),
  /** `host[:port]` of the edge, and the chain that it settles on: the grant is worth nothing elsewhere. */
  audience: z.string().min(1).max(255),
  chain_id: z.int().min(1),
});
export type SessionRequest = z.output<typeof SessionRequest>;

/** What the token says, sealed by the edge. */
export const SessionGrant = z.strictObject({
  v: z.literal(1),
  id: SessionId,
  /** The wallet that granted it. */
  address: Address,
  key: SessionKey,
  scopes: Scopes,
  cap: Amount,
  /** Seconds since the epoch. */
  expires: z.int().min(0),
  audience: z.string(),
  chain: z.int(),
});
export type SessionGrant = z.output<typeof SessionGrant>;

export const SessionView = z.object({
  id: SessionId,
  object: z.literal("session"),
  key: SessionKey,
  scopes: z.array(SessionScope),
  cap: Amount,
  /** Of the cap, what is set aside for leases that the session has been used on; the unused part can be taken back. */
  reserved: Amount,
  created_at: z.iso.datetime(),
  expires_at: z.iso.datetime(),
  revoked_at: z.iso.datetime().nullable(),
  /** Leases that have yet to be told of the revocation. */
  untold_leases: z.int().min(0),
});
export type SessionView = z.output<typeof SessionView>;

/** The answer to `POST /v1/sessions`: the only time that the token, and an `oct` session's secret, are told. */
export const OpenedSession = SessionView.extend({
  token: z.string(),
  /** base64url; of an `oct` session alone. */
  secret: z.string().optional(),
});
export type OpenedSession = z.output<typeof OpenedSession>;
