import { SELF } from "cloudflare:test";
import { decodeBase64Url } from "@gpux/protocol/http-signature/base64url";
import type { SignOptions } from "@gpux/protocol/http-signature/erc8128";
import { type SessionSigner, signSessionRequest } from "@gpux/protocol/http-signature/session";
import { OpenedSession, SessionKey } from "@gpux/protocol/session";
import { type Account, CHAIN_ID, call, ORIGIN, requestOf, type Sent } from "./client.ts";

export type SessionKind = "Ed25519" | "P-256" | "HMAC";

export interface TestSession extends SessionSigner {
  readonly view: OpenedSession;
  request(path: string, sent?: Sent, options?: SignOptions): Promise<Request>;
  call(path: string, sent?: Sent): Promise<Response>;
}

interface Key {
  readonly jwk: SessionKey;
  /** Null of an HMAC session: its secret comes with the answer. */
  readonly sign: SessionSigner["sign"] | null;
}

const ECDSA = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const ED25519 = { name: "Ed25519" };
const HMAC = { name: "HMAC", hash: "SHA-256" };

async function newKey(kind: SessionKind): Promise<Key> {
  if (kind === "HMAC") return { jwk: { kty: "oct" }, sign: null };
  const algorithm = kind === "P-256" ? ECDSA : ED25519;
  const pair = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  if (!("privateKey" in pair)) throw new Error("WebCrypto makes pairs of these");
  const exported = await crypto.subtle.exportKey("jwk", pair.publicKey);
  if (exported instanceof ArrayBuffer) throw new Error("a JSON Web Key is an object");
  const { kty, crv, x, y } = exported;
  const jwk = SessionKey.parse(kind === "P-256" ? { kty, crv, x, y } : { kty, crv, x });
  return {
    jwk,
    sign: async (bytes) => new Uint8Array(await crypto.subtle.sign(algorithm, pair.privateKey, bytes)),
  };
}

/** The body of `POST /v1/sessions` as this edge takes it, with `change` in it. */
export function sessionRequest(key: unknown, change: object = {}) {
  return {
    key,
    scopes: ["read", "jobs"],
    cap: "1000000",
    expires_at: new Date(Date.now() + 3_600_000).toISOString(),
    audience: new URL(ORIGIN).host,
    chain_id: CHAIN_ID,
    ...change,
  };
}

/** A session of a new key, opened by the wallet. */
export async function openSession(
  wallet: Account,
  change: object = {},
  kind: SessionKind = "Ed25519",
): Promise<TestSession> {
  const key = await newKey(kind);
  const response = await call(wallet, "/v1/sessions", { json: sessionRequest(key.jwk, change) });
  if (response.status !== 201) throw new Error(`no session: ${response.status} ${await response.text()}`);
  const view = OpenedSession.parse(await response.json());
  const signer: SessionSigner = { id: view.id, token: view.token, sign: key.sign ?? (await hmacOf(view)) };
  const request: TestSession["request"] = (path, sent = {}, options = {}) =>
    signSessionRequest(requestOf(path, sent), signer, options);
  return { ...signer, view, request, call: async (path, sent) => SELF.fetch(await request(path, sent)) };
}

async function hmacOf({ secret }: OpenedSession): Promise<SessionSigner["sign"]> {
  const bytes = decodeBase64Url(secret ?? "");
  if (bytes?.length !== 32) throw new Error("an HMAC session is answered with its secret");
  const key = await crypto.subtle.importKey("raw", bytes, HMAC, false, ["sign"]);
  return async (message) => new Uint8Array(await crypto.subtle.sign("HMAC", key, message));
}
