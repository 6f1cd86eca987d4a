import { privateKeyToAccount } from "viem/accounts";
import { hashMessage, hexToBytes } from "viem/utils";
import { describe, expect, test } from "vitest";
import { contentDigest } from "./content-digest.ts";
import {
  accountSigner,
  formatKeyId,
  nonceRetention,
  parseKeyId,
  signRequest,
  type VerifyPolicy,
  verifyRequest,
} from "./erc8128.ts";
import { signatureBase } from "./signature-base.ts";
import { parseSignature, serializeSignatureInput, writeSignature } from "./signature-fields.ts";

const now = Date.UTC(2026, 10, 22, 12);
const account = privateKeyToAccount(`0x${"11".repeat(32)}`);
const other = privateKeyToAccount(`0x${"22".repeat(32)}`);
const signer = accountSigner(account, 10);
const policy: VerifyPolicy = { now, audience: ["api.gpux.example"], chainId: 10 };
const url = "https://api.gpux.example/v1/jobs?dry=1";

type Received = { method: string; url: string; headers: Headers; body: Uint8Array };

async function received(request: Request): Promise<Received> {
  return {
    method: request.method,
    url: request.url,
    headers: new Headers(request.headers),
    body: new Uint8Array(await request.arrayBuffer()),
  };
}

const post = () =>
  new Request(url, {
    method: "POST",
    headers: { "content-type": "application/json", "idempotency-key": "order-1" },
    body: '{"function":"a"}',
  });

const signedPost = async (options: Parameters<typeof signRequest>[2] = {}) =>
  received(await signRequest(post(), signer, { now, nonce: "nonce-0001", ...options }));

describe("a signed request verifies", () => {
  test("with body, query and idempotency key", async () => {
    expect(await verifyRequest(await signedPost(), policy)).toEqual({
      ok: true,
      address: account.address.toLowerCase(),
      nonce: "nonce-0001",
      keyId: `erc8128:10:${account.address.toLowerCase()}`,
      created: now / 1000,
      expires: now / 1000 + 60,
    });
  });

  test("and covers all that it carries", async () => {
    const parsed = parseSignature((await signedPost()).headers);
    expect(parsed.ok && parsed.value.components).toEqual([
      "@method",
      "@authority",
      "@path",
      "@query",
      "content-digest",
      "idempotency-key",
    ]);
  });

  test("without body and query, with a fresh nonce each time", async () => {
    const nonces = new Set<string>();
    for (let i = 0; i < 3; i += 1) {
      const request = await signRequest(new Request("https://api.gpux.example/v1/nodes"), signer, { now });
      const verified = await verifyRequest(await received(request), policy);
      expect(verified.ok).toBe(true);
      if (verified.ok) nonces.add(verified.nonce);
    }
    expect(nonces.size).toBe(3);
  });

  test("with an empty body that is present", async () => {
    const request = await signRequest(new Request(url, { method: "POST", body: "" }), signer, { now });
    expect(request.headers.get("content-digest")).toBe(await contentDigest(new Uint8Array()));
    expect((await verifyRequest(await received(request), policy)).ok).toBe(true);
  });

  test("when it is signed twice: the later signature replaces the earlier", async () => {
    const twice = await signRequest(await signRequest(post(), accountSigner(other, 10), { now }), signer, {
      now,
    });
    const verified = await verifyRequest(await received(twice), policy);
    expect(verified.ok && verified.address).toBe(account.address.toLowerCase());
  });

  test("up to the skew on both sides", async () => {
    const request = await signedPost({ expiresInS: 300 });
    expect((await verifyRequest(request, { ...policy, now: now - 30_000 })).ok).toBe(true);
    expect((await verifyRequest(request, { ...policy, now: now + 330_000 })).ok).toBe(true);
  });

  test("and its nonce is kept past the skew", () => {
    expect(nonceRetention({ expires: 100 })).toBe(130);
  });
});

/** Signs what `signRequest` would not: `input` and covered components as given. */
async function handSigned(
  request: Received,
  components: readonly string[],
  parameters: Parameters<typeof serializeSignatureInput>[1],
): Promise<Received> {
  const input = serializeSignatureInput(components, parameters);
  const base = signatureBase(request, components, input) ?? "";
  const fields = writeSignature("eth", input, hexToBytes(await account.signMessage({ message: base })));
  const headers = new Headers(request.headers);
  headers.set("signature-input", fields.signatureInput);
  headers.set("signature", fields.signature);
  return { ...request, headers };
}

function withHeader(request: Received, name: string, value: string | null): Received {
  const headers = new Headers(request.headers);
  if (value === null) headers.delete(name);
  else headers.set(name, value);
  return { ...request, headers };
}

function editHeader(request: Received, name: string, edit: (value: string) => string): Received {
  return withHeader(request, name, edit(request.headers.get(name) ?? ""));
}

const flipBit = (text: string) => {
  const at = text.indexOf(":") + 11;
  return `${text.slice(0, at)}${text[at] === "A" ? "B" : "A"}${text.slice(at + 1)}`;
};

describe("a request is refused", () => {
  const changes: [string, string, (request: Received) => Received | Promise<Received>][] = [
    ["without signature", "signature_missing", (r) => withHeader(r, "signature", null)],
    ["without signature input", "signature_missing", (r) => withHeader(r, "signature-input", null)],
    ["with another method", "signature_invalid", (r) => ({ ...r, method: "PUT" })],
    ["with another path", "signature_invalid", (r) => ({ ...r, url: r.url.replace("/jobs", "/leases") })],
    ["with another query", "signature_invalid", (r) => ({ ...r, url: r.url.replace("dry=1", "dry=0") })],
    ["with its query cut", "signature_invalid", (r) => ({ ...r, url: r.url.replace("?dry=1", "") })],
    ["with another idempotency key", "signature_invalid", (r) => withHeader(r, "idempotency-key", "order-2")],
    [
      "with its idempotency key cut",
      "signature_component_missing",
      (r) => withHeader(r, "idempotency-key", null),
    ],
    [
      "with another body",
      "digest_mismatch",
      (r) => ({ ...r, body: new TextEncoder().encode('{"function":"b"}') }),
    ],
    ["with its body cut", "digest_mismatch", (r) => ({ ...r, body: new Uint8Array() })],
    [
      "with a digest that is not signed for",
      "signature_invalid",
      async (r) => {
        const body = new TextEncoder().encode("other");
        return { ...withHeader(r, "content-digest", await contentDigest(body)), body };
      },
    ],
    ["without its digest", "digest_missing", (r) => withHeader(r, "content-digest", null)],
    ["with a malformed digest", "digest_mismatch", (r) => withHeader(r, "content-digest", "sha-256=abc")],
    [
      "with one bit of the signature changed",
      "signature_invalid",
      (r) => editHeader(r, "signature", flipBit),
    ],
    [
      "with a later expiry",
      "signature_invalid",
      (r) =>
        editHeader(r, "signature-input", (input) =>
          input.replace(/expires=\d+/, `expires=${now / 1000 + 61}`),
        ),
    ],
    [
      "with another nonce",
      "signature_invalid",
      (r) => editHeader(r, "signature-input", (input) => input.replace("nonce-0001", "nonce-0002")),
    ],
    [
      "in another's name",
      "signature_invalid",
      (r) =>
        editHeader(r, "signature-input", (input) =>
          input.replace(/0x[0-9a-f]{40}/, other.address.toLowerCase()),
        ),
    ],
    [
      "for another chain",
      "signature_wrong_chain",
      (r) => editHeader(r, "signature-input", (input) => input.replace("erc8128:10:", "erc8128:1:")),
    ],
    [
      "with a keyid of another kind",
      "signature_malformed",
      (r) => editHeader(r, "signature-input", (input) => input.replace("erc8128:10:", "erc8128:010:")),
    ],
    [
      "with an algorithm",
      "signature_malformed",
      (r) => editHeader(r, "signature-input", (input) => `${input};alg="ed25519"`),
    ],
    [
      "with a second label",
      "signature_malformed",
      (r) => editHeader(r, "signature-input", (input) => `${input}, b${input.slice(3)}`),
    ],
    [
      "with a duplicate label",
      "signature_malformed",
      (r) => editHeader(r, "signature-input", (input) => `${input}, ${input}`),
    ],
    [
      "with a second signature",
      "signature_malformed",
      (r) => editHeader(r, "signature", (text) => `${text}, b${text.slice(3)}`),
    ],
  ];

  test.each(changes)("%s", async (_what, code, change) => {
    expect(await verifyRequest(await change(await signedPost()), policy)).toEqual({ ok: false, code });
  });

  test("after it has expired, and before it was made", async () => {
    const request = await signedPost();
    expect(await verifyRequest(request, { ...policy, now: now + 90_001 })).toEqual({
      ok: false,
      code: "signature_expired",
    });
    expect(await verifyRequest(request, { ...policy, now: now - 30_001 })).toEqual({
      ok: false,
      code: "signature_not_yet_valid",
    });
  });

  test("at another server: the host is the server's to name, not the client's", async () => {
    const elsewhere = { ...policy, audience: ["evil.example"] };
    expect(await verifyRequest(await signedPost(), elsewhere)).toEqual({
      ok: false,
      code: "signature_wrong_audience",
    });
    const replayed = { ...(await signedPost()), url: url.replace("api.gpux.example", "evil.example") };
    expect(await verifyRequest(replayed, elsewhere)).toEqual({ ok: false, code: "signature_invalid" });
  });

  test("by a verifier of another chain", async () => {
    expect(await verifyRequest(await signedPost(), { ...policy, chainId: 1 })).toEqual({
      ok: false,
      code: "signature_wrong_chain",
    });
  });

  test("when another key signs in the account's name", async () => {
    const impostor = { ...accountSigner(other, 10), address: account.address };
    const request = await received(await signRequest(post(), impostor, { now }));
    expect(await verifyRequest(request, policy)).toEqual({ ok: false, code: "signature_invalid" });
  });

  const created = now / 1000;
  const keyid = formatKeyId(10, account.address);
  const full = { created, expires: created + 60, nonce: "nonce-0001", keyid };
  const covered = ["@method", "@authority", "@path", "@query", "content-digest", "idempotency-key"];

  test("hand-signed with all that is asked for, it passes (the control of the cases below)", async () => {
    const request = await handSigned(await signedPost(), [...covered, "content-type", "@scheme"], full);
    expect((await verifyRequest(request, policy)).ok).toBe(true);
  });

  test.each(covered)("when %s is not covered", async (missing) => {
    const request = await handSigned(
      await signedPost(),
      covered.filter((name) => name !== missing),
      full,
    );
    expect(await verifyRequest(request, policy)).toEqual({ ok: false, code: "signature_component_missing" });
  });

  test.each([
    ["no nonce", { created, expires: created + 60, keyid }],
    ["a nonce that is too short", { ...full, nonce: "seven77" }],
    ["a nonce with a space", { ...full, nonce: "nonce 0001" }],
    ["no expiry", { created, nonce: full.nonce, keyid }],
    ["no creation", { expires: created + 60, nonce: full.nonce, keyid }],
    ["no keyid", { created, expires: created + 60, nonce: full.nonce }],
    ["a window over 300 s", { ...full, expires: created + 301 }],
    ["an expiry at its creation", { ...full, expires: created }],
  ])("for %s", async (_what, parameters) => {
    const request = await handSigned(await signedPost(), covered, parameters);
    expect(await verifyRequest(request, policy)).toEqual({ ok: false, code: "signature_malformed" });
  });

  test("when a covered header is not there", async () => {
    const request = await handSigned(withHeader(await signedPost(), "x-a", "1"), [...covered, "x-a"], full);
    expect(await verifyRequest(withHeader(request, "x-a", null), policy)).toEqual({
      ok: false,
      code: "signature_component_missing",
    });
  });
});

describe("smart wallets", () => {
  const wallet = { ...accountSigner(other, 10), address: "0x00000000000000000000000000000000000000C1" };

  test("are asked by ERC-1271 with address, EIP-191 hash and signature bytes", async () => {
    const signature = `0x${"ab".repeat(200)}` as const;
    let base = new Uint8Array();
    const request = await received(
      await signRequest(
        post(),
        {
          ...wallet,
          signMessage: async (message) => {
            base = new Uint8Array(message);
            return signature;
          },
        },
        { now },
      ),
    );
    const asked: unknown[] = [];
    const verified = await verifyRequest(request, {
      ...policy,
      verifyContractSignature: async (...question) => {
        asked.push(question);
        return true;
      },
    });
    expect(verified.ok && verified.address).toBe(wallet.address.toLowerCase());
    expect(asked).toEqual([[wallet.address.toLowerCase(), hashMessage({ raw: base }), signature]]);
  });

  test("are refused when the contract says no", async () => {
    const request = await received(await signRequest(post(), wallet, { now }));
    const verified = await verifyRequest(request, { ...policy, verifyContractSignature: async () => false });
    expect(verified).toEqual({ ok: false, code: "signature_invalid" });
  });

  test("are not asked when the key itself has signed, nor before the cheap checks pass", async () => {
    const verifyContractSignature = async () => {
      throw new Error("asked");
    };
    expect((await verifyRequest(await signedPost(), { ...policy, verifyContractSignature })).ok).toBe(true);
    const tampered = { ...(await signedPost()), body: new Uint8Array(3) };
    expect((await verifyRequest(tampered, { ...policy, verifyContractSignature })).ok).toBe(false);
  });
});

describe("signing", () => {
  test.each([{ expiresInS: 301 }, { expiresInS: 0 }, { expiresInS: Number.NaN }, { nonce: "short" }])(
    "throws on what no server takes: %j",
    async (options) => {
      await expect(signRequest(post(), signer, { now, ...options })).rejects.toThrow(RangeError);
    },
  );

  test("leaves the request's own headers and body as they were", async () => {
    const request = await signRequest(post(), signer, { now });
    expect(request.headers.get("content-type")).toBe("application/json");
    expect(await request.text()).toBe('{"function":"a"}');
  });
});

describe("keyid", () => {
  test("names chain and account in lower case", () => {
    const keyId = formatKeyId(10, account.address);
    expect(parseKeyId(keyId)).toEqual({ chainId: 10, address: account.address.toLowerCase() });
    expect(parseKeyId(`erc8128:10:${account.address}`)).toEqual(parseKeyId(keyId));
  });

  test.each([
    "",
    "erc8128:0:0x",
    `eip155:10:0x${"11".repeat(20)}`,
    `erc8128:10:0x${"11".repeat(21)}`,
    `erc8128:-1:0x${"11".repeat(20)}`,
  ])("refuses %j", (text) => {
    expect(parseKeyId(text)).toBeNull();
  });
});
