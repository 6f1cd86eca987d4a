import { z } from "zod";
import { SessionGrant, type SessionId } from "../session.ts";
import { decodeBase64Url, encodeBase64Url } from "./base64url.ts";

/**
 * The token of a session: `<key id>.<grant>.<mac>`, the grant as base64url of its JSON and the MAC (HMAC-SHA256) over
 * all before it. It travels in the header `gpux-session`, covered by the request's signature, so that a request is
 * checked without asking any store. It is no secret: without the session's key it opens nothing.
 */
export const SESSION_HEADER = "gpux-session";
/** Longest of ours is about 700 characters; checked before anything is decoded. */
const MAX_TOKEN = 1_500;

const SECRETS = /^[a-z0-9]{1,16}:[0-9a-f]{64}(?:,[a-z0-9]{1,16}:[0-9a-f]{64}){0,7}$/;

/** What seals tokens: the first of the operator's secrets; what the others have sealed still counts. */
export interface SessionSeal {
  seal(grant: SessionGrant): Promise<string>;
  /** Null when it was not sealed by one of these secrets, in every byte. Neither time nor audience are judged here. */
  open(token: string): Promise<SessionGrant | null>;
  /** The secret of an `oct` session, from its id and the secret that sealed it: nobody has to keep it. */
  secretOf(id: SessionId, keyId: string): Promise<Uint8Array<ArrayBuffer> | null>;
  /** `<key id>.<mac>` of a text of the edge's own, to be known again by {@link isMarked}. */
  mark(content: string): Promise<string>;
  isMarked(content: string, mark: string): Promise<boolean>;
  readonly keyId: string;
}

/** `CryptoKey`, by a name that the types of Node, workerd and browsers agree on. */
export type WebCryptoKey = Awaited<ReturnType<typeof crypto.subtle.importKey>>;

const text = new TextEncoder();
/** Tokens that one isolate has opened and keeps open: the same text was sealed once and for all. */
const MAX_KNOWN = 1_000;
const HMAC = { name: "HMAC", hash: "SHA-256" };

/**
 * `secrets` is `id:64 hex digits[,...]`, newest first. Throws on anything else: the deployment is wrong. The uses of a
 * secret have prefixes that no other can begin with, so that a token is never a key.
 */
export function createSeal(secrets: string): SessionSeal {
  if (!SECRETS.test(secrets)) throw new Error("session secrets are `id:64 hex digits`, separated by commas");
  const keys = new Map<string, Promise<WebCryptoKey>>();
  const known = new Map<string, SessionGrant>();
  const hexById = new Map(secrets.split(",").map((each): [string, string] => split(each, ":")));
  const [keyId = ""] = hexById.keys();

  function keyOf(id: string): Promise<WebCryptoKey> | null {
    const imported = keys.get(id);
    const hex = hexById.get(id);
    if (imported !== undefined || hex === undefined) return imported ?? null;
    const raw = Uint8Array.from({ length: 32 }, (_, i) => Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16));
    const made = crypto.subtle.importKey("raw", raw, HMAC, false, ["sign", "verify"]);
    keys.set(id, made);
    return made;
  }

  async function read(token: string): Promise<SessionGrant | null> {
    const parts = token.length > MAX_TOKEN ? [] : token.split(".");
    const [id = "", content = "", sealed = ""] = parts;
    const key = parts.length === 3 ? keyOf(id) : null;
    const mac = decodeBase64Url(sealed);
    const bytes = decodeBase64Url(content);
    if (key === null || mac?.length !== 32 || bytes === null) return null;
    // Constant in time, as WebCrypto's verification is.
    const genuine = await crypto.subtle.verify(
      "HMAC",
      await key,
      mac,
      text.encode(`token\n${id}.${content}`),
    );
    return genuine ? SessionGrant.parse(JSON.parse(new TextDecoder().decode(bytes))) : null;
  }

  return {
    keyId,
    async seal(grant) {
      const key = keyOf(keyId);
      if (key === null) throw new Error("there is no session secret");
      const head = `${keyId}.${encodeBase64Url(text.encode(JSON.stringify(z.encode(SessionGrant, grant))))}`;
      const mac = await crypto.subtle.sign("HMAC", await key, text.encode(`token\n${head}`));
      return `${head}.${encodeBase64Url(new Uint8Array(mac))}`;
    },
    async open(token) {
      const grant = known.get(token) ?? (await read(token));
      if (grant === null) return null;
      // What was used last stands last, and what was not used for longest goes.
      known.delete(token);
      known.set(token, grant);
      const [oldest] = known.keys();
      if (known.size > MAX_KNOWN && oldest !== undefined) known.delete(oldest);
      return grant;
    },
    async mark(content) {
      const key = keyOf(keyId);
      if (key === null) throw new Error("there is no session secret");
      const mac = await crypto.subtle.sign("HMAC", await key, text.encode(`mark\n${content}`));
      return `${keyId}.${encodeBase64Url(new Uint8Array(mac))}`;
    },
    async isMarked(content, mark) {
      const [id = "", sealed = "", ...more] = mark.length > MAX_TOKEN ? [] : mark.split(".");
      const key = more.length === 0 ? keyOf(id) : null;
      const mac = decodeBase64Url(sealed);
      if (key === null || mac?.length !== 32) return false;
      return crypto.subtle.verify("HMAC", await key, mac, text.encode(`mark\n${content}`));
    },
    async secretOf(session, id) {
      const key = keyOf(id);
      if (key === null) return null;
      return new Uint8Array(await crypto.subtle.sign("HMAC", await key, text.encode(`secret\n${session}`)));
    },
  };
}

function split(pair: string, at: string): [string, string] {
  const [left = "", right = ""] = pair.split(at);
  return [left, right];
}
