import { beforeAll, describe, expect, test } from "vitest";
import { type SessionGrant, type SessionKey, sessionIdOf } from "../session.ts";
import { encodeBase64Url } from "./base64url.ts";
import type { SignedRequest } from "./request-signature.ts";
import { signedCopy } from "./request-signing.ts";
import { type SessionSigner, signSessionRequest, verifySessionRequest } from "./session.ts";
import { createSeal, SESSION_HEADER } from "./session-token.ts";

const SECRET = `new:${"a1".repeat(32)}`;
const OLD = `old:${"0b".repeat(32)}`;
const seal = createSeal(SECRET);
const now = Date.UTC(2026, 10, 22);
const policy = { now, audience: ["edge.test"], chainId: 10, seal };
const id = sessionIdOf(new Uint8Array(16).fill(7));
const other = sessionIdOf(new Uint8Array(16).fill(8));

type Kind = "Ed25519" | "P-256" | "HMAC";
interface Session extends SessionSigner {
  readonly grant: SessionGrant;
}

async function jwkOf(key: CryptoKeyPair["publicKey"]): Promise<SessionKey> {
  const { kty, crv, x, y } = await crypto.subtle.exportKey("jwk", key);
  return kty === "OKP"
    ? { kty, crv: "Ed25519", x: x ?? "" }
    : { kty: "EC", crv: crv === "P-256" ? crv : "P-256", x: x ?? "", y: y ?? "" };
}
type CryptoKeyPair = { publicKey: Awaited<ReturnType<typeof crypto.subtle.importKey>> };

async function open(kind: Kind, change: Partial<SessionGrant> = {}, by = seal): Promise<Session> {
  const base = { v: 1, id, address: `0x${"ab".repeat(20)}`, scopes: ["read", "jobs"], cap: 500n } as const;
  const place = { expires: now / 1_000 + 3_600, audience: "edge.test", chain: 10 };
  const sealed = async (key: SessionKey) => {
    const grant: SessionGrant = { ...base, ...place, scopes: ["read", "jobs"], key, ...change };
    return { id: grant.id, grant, token: await by.seal(grant) };
  };
  if (kind === "HMAC") {
    const session = await sealed({ kty: "oct" });
    const secret = await by.secretOf(session.id, by.keyId);
    if (secret === null) throw new Error("sealed by a secret that is not there");
    const hmac = { name: "HMAC", hash: "SHA-256" };
    const key = await crypto.subtle.importKey("raw", secret, hmac, false, ["sign"]);
    return {
      ...session,
      sign: async (bytes) => new Uint8Array(await crypto.subtle.sign("HMAC", key, bytes)),
    };
  }
  const ecdsa = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const pair = async () =>
    kind === "P-256"
      ? await crypto.subtle.generateKey(ecdsa, false, ["sign", "verify"])
      : await crypto.subtle.generateKey({ name: "Ed25519" }, false, ["sign", "verify"]);
  const made = await pair();
  if (!("privateKey" in made)) throw new Error("WebCrypto makes pairs of these");
  const { publicKey, privateKey } = made;
  return {
    ...(await sealed(await jwkOf(publicKey))),
    sign: async (bytes) =>
      new Uint8Array(await crypto.subtle.sign(kind === "P-256" ? ecdsa : "Ed25519", privateKey, bytes)),
  };
}

const post = () =>
  new Request("https://edge.test/v1/jobs?x=1", {
    method: "POST",
    headers: { "idempotency-key": "k" },
    body: '{"a":1}',
  });

async function received(request: Request): Promise<SignedRequest> {
  const { method, url, headers } = request;
  return { method, url, headers, body: new Uint8Array(await request.clone().arrayBuffer()) };
}

async function verdict(request: Request, on: object = {}) {
  const verified = await verifySessionRequest(await received(request), { ...policy, ...on });
  return verified.ok ? "ok" : verified.code;
}

/** The request with header fields of another's making. */
function altered(request: Request, headers: Record<string, string | null>): Request {
  const fields = new Headers(request.headers);
  for (const [name, value] of Object.entries(headers))
    if (value === null) fields.delete(name);
    else fields.set(name, value);
  return new Request(request, { headers: fields });
}

let session: Session;
const sign = (by: Session = session) => signSessionRequest(post(), by, { now });
beforeAll(async () => {
  session = await open("Ed25519");
});

describe.each(["Ed25519", "P-256", "HMAC"] as const)("a session with a key for %s", (kind) => {
  test("signs requests that verify, with the grant as it was sealed", async () => {
    const mine = await open(kind);
    const request = await signSessionRequest(post(), mine, { now, nonce: "12345678" });
    expect(await verifySessionRequest(await received(request), policy)).toEqual({
      ok: true,
      grant: mine.grant,
      nonce: "12345678",
      expires: now / 1_000 + 60,
    });
  });

  test("cannot sign with another key of its kind", async () => {
    const mine = await open(kind);
    const theirs = await open(kind, { id: other });
    expect(await verdict(await sign({ ...mine, sign: theirs.sign }))).toBe("signature_invalid");
  });

  test("nor with its token beside the signature of another session", async () => {
    const mine = await open(kind);
    const theirs = await open(kind, { id: other });
    expect(await verdict(await sign({ ...mine, token: theirs.token }))).toBe("session_invalid");
    expect(await verdict(await sign({ ...mine, id: other, token: theirs.token }))).toBe("signature_invalid");
  });
});

describe("a token", () => {
  test.each([
    ["more scopes", { scopes: ["read", "jobs", "quotes", "leases"] }],
    ["a higher cap", { cap: "999999999" }],
    ["a later end", { expires: now / 1_000 + 999_999 }],
    ["another wallet", { address: `0x${"cd".repeat(20)}` }],
    ["another key", { key: { kty: "oct" } }],
  ])("with %s is not the edge's", async (_, change) => {
    const [kid = "", content = "", mac = ""] = session.token.split(".");
    const grant = JSON.parse(atob(content.replaceAll("-", "+").replaceAll("_", "/")));
    const forged = encodeBase64Url(new TextEncoder().encode(JSON.stringify({ ...grant, ...change })));
    expect(await verdict(await sign({ ...session, token: `${kid}.${forged}.${mac}` }))).toBe(
      "session_invalid",
    );
  });

  test("altered in any one character is not the edge's", async () => {
    const { token } = session;
    for (let at = 0; at < token.length; at += 7) {
      const changed = token[at] === "A" ? "B" : "A";
      expect(await seal.open(`${token.slice(0, at)}${changed}${token.slice(at + 1)}`), `at ${at}`).toBeNull();
    }
  });

  test.each([
    ["nothing", "-"],
    ["two parts", "a.b"],
    ["four parts", "a.b.c.d"],
    ["an unknown key id", `nobody.${"A".repeat(40)}.${"A".repeat(43)}`],
    ["a key id from an object's prototype", `constructor.${"A".repeat(40)}.${"A".repeat(43)}`],
    ["no base64url", "new.%%.%%"],
    ["a megabyte", `new.${"A".repeat(1_000_000)}.${"A".repeat(43)}`],
  ])("of %s is refused without a throw", async (_, token) => {
    expect(await seal.open(token)).toBeNull();
  });

  test("sealed by another edge's secret, with the same key id, is refused", async () => {
    const stranger = createSeal(`new:${"ff".repeat(32)}`);
    expect(await verdict(await sign(await open("Ed25519", {}, stranger)))).toBe("session_invalid");
  });

  test("sealed before a rotation counts while the old secret is kept, and no longer", async () => {
    const before = await sign(await open("HMAC", {}, createSeal(OLD)));
    expect(await verdict(before, { seal: createSeal(`${SECRET},${OLD}`) })).toBe("ok");
    expect(await verdict(before, { seal: createSeal(SECRET) })).toBe("session_invalid");
  });

  test.each([
    ["another host", { audience: "elsewhere.test" }],
    ["another chain", { chain: 1 }],
  ])("for %s opens nothing here", async (_, change) => {
    expect(await verdict(await sign(await open("Ed25519", change)))).toBe("session_invalid");
  });

  test("lasts to its end, whatever the signature's own time, and not a millisecond longer", async () => {
    const mine = await open("Ed25519", { expires: now / 1_000 });
    expect(await verdict(await sign(mine), { now: now - 1 })).toBe("ok");
    expect(await verdict(await sign(mine), { now })).toBe("session_expired");
  });
});

describe("a request of a session", () => {
  test("must cover its token, so that none can be put in place of it", async () => {
    const bare = await signedCopy(
      post(),
      { label: "ses", keyid: session.id, sign: (base) => session.sign(base) },
      { now },
    );
    expect(await verdict(bare)).toBe("session_invalid");
    expect(await verdict(altered(bare, { [SESSION_HEADER]: session.token }))).toBe(
      "signature_component_missing",
    );
  });

  test.each([
    ["@query", "/v1/jobs?x=2"],
    ["@path", "/v1/leases?x=1"],
    ["@authority", "//other.test/v1/jobs?x=1"],
  ])("sent with another %s is refused", async (_, url) => {
    const request = await sign();
    const moved = new Request(new URL(url, request.url), request);
    expect(await verdict(moved, { audience: ["edge.test", "other.test"] })).toBe("signature_invalid");
  });

  test("with another body, another key, or without its digest is refused", async () => {
    const request = await sign();
    expect(await verdict(new Request(request.clone(), { body: "{}" }))).toBe("digest_mismatch");
    expect(await verdict(altered(request.clone(), { "idempotency-key": "another" }))).toBe(
      "signature_invalid",
    );
    expect(await verdict(altered(request, { "content-digest": null }))).toBe("digest_missing");
  });

  test.each([
    [-600_000, "signature_not_yet_valid"],
    [600_000, "signature_expired"],
  ])("of a client whose clock is off by ten minutes is refused (%i ms)", async (ms, code) => {
    expect(await verdict(await sign(), { now: now + ms })).toBe(code);
  });

  test("may name its algorithm, and no other", async () => {
    const naming = async (alg: string) => {
      const request = await sign();
      const input = request.headers.get("signature-input") ?? "";
      const changed = altered(request, { "signature-input": `${input};alg="${alg}"` });
      return verdict(changed);
    };
    // The signature does not cover the parameter that was put in, so the right one gets as far as the check of it.
    expect(await naming("ed25519")).toBe("signature_invalid");
    for (const alg of ["hmac-sha256", "ecdsa-p256-sha256", "none", "rsa-v1_5-sha256"])
      expect(await naming(alg), alg).toBe("signature_malformed");
  });

  test("with an HMAC under the public key in place of a signature is refused", async () => {
    const { key } = session.grant;
    if (key.kty !== "OKP") throw new Error("this one is Ed25519");
    const hmac = { name: "HMAC", hash: "SHA-256" };
    const raw = new TextEncoder().encode(key.x);
    const secret = await crypto.subtle.importKey("raw", raw, hmac, false, ["sign"]);
    const confused = await sign({
      ...session,
      sign: async (bytes) => new Uint8Array(await crypto.subtle.sign("HMAC", secret, bytes)),
    });
    expect(await verdict(confused)).toBe("signature_malformed");
    const padded = await sign({
      ...session,
      sign: async (bytes) =>
        Uint8Array.of(
          ...new Uint8Array(await crypto.subtle.sign("HMAC", secret, bytes)),
          ...raw.slice(0, 32),
        ),
    });
    expect(await verdict(padded)).toBe("signature_invalid");
  });

  test.each(["", "ses_", other, "erc8128:10:0x0000000000000000000000000000000000000001", `${id} `])(
    "under the key id %j is refused",
    async (keyid) => {
      const request = await signSessionRequest(post(), { ...session, id: keyid }, { now });
      expect(await verdict(request)).toBe("session_invalid");
    },
  );
});

test("secrets that are none stop the deployment", () => {
  for (const bad of [
    "",
    "x",
    `UP:${"a1".repeat(32)}`,
    `a:${"a1".repeat(31)}`,
    `${SECRET},`,
    `${SECRET},${OLD} `,
  ])
    expect(() => createSeal(bad), bad).toThrow();
});
