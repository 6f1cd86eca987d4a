import {
  accountSigner,
  formatKeyId,
  signRequest,
  verifyRequest,
} from "@gpux/protocol/http-signature/erc8128";
import vectors from "@gpux/protocol/vectors/http-signature.json" with { type: "json" };
import { createSignerClient, createVerifierClient } from "@slicekit/erc8128";
import { appendSignature, createSignature, verifySignature } from "http-message-sig";
import { privateKeyToAccount } from "viem/accounts";
import { bytesToHex, hexToBytes, verifyMessage } from "viem/utils";
import { describe, expect, test } from "vitest";

/** Two strangers' implementations must agree with ours in both directions: ERC-8128's own, and a plain RFC 9421. */

const account = privateKeyToAccount(`0x${"11".repeat(32)}`);
const signer = accountSigner(account, 10);
const stranger = { ...signer, address: account.address };
const now = Date.UTC(2026, 10, 22, 12);
const created = now / 1000;
const policy = { now, audience: ["api.gpux.example", "localhost:8787"], chainId: 10 };

const requests: [string, () => Request][] = [
  ["a GET", () => new Request("https://api.gpux.example/v1/nodes")],
  ["a GET with a query", () => new Request("https://api.gpux.example/v1/offers?gpu=RTX%204090&limit=10")],
  ["a port that is not the scheme's", () => new Request("http://LOCALHOST:8787/v1/nodes/../leases")],
  ["the scheme's own port", () => new Request("https://api.gpux.example:443/")],
  [
    "a POST with text",
    () => new Request("https://api.gpux.example/v1/jobs", { method: "POST", body: '{"a":"é"}' }),
  ],
  [
    "a POST with an empty body",
    () => new Request("https://api.gpux.example/v1/jobs", { method: "POST", body: "" }),
  ],
  [
    "a POST without body",
    () => new Request("https://api.gpux.example/v1/leases/x/close", { method: "POST" }),
  ],
  [
    "a PUT with bytes and a query",
    () =>
      new Request("https://api.gpux.example/v1/objects/ab?x=%2F&y", {
        method: "PUT",
        body: Uint8Array.from({ length: 4096 }, (_, i) => i % 256),
      }),
  ],
];

async function received(request: Request) {
  return {
    method: request.method,
    url: request.url,
    headers: request.headers,
    body: new Uint8Array(await request.clone().arrayBuffer()),
  };
}

describe("@slicekit/erc8128", () => {
  const seen = new Set<string>();
  const verifier = createVerifierClient({
    verifyMessage: (question) => verifyMessage(question),
    nonceStore: {
      consume: async (key) => {
        const fresh = !seen.has(key);
        seen.add(key);
        return fresh;
      },
    },
    defaults: { now: () => created },
  });

  test.each(requests)("takes what we sign: %s", async (_what, make) => {
    const request = await signRequest(make(), signer, { now });
    const verified = await verifier.verifyRequest({ request });
    expect(verified).toMatchObject({
      ok: true,
      address: account.address.toLowerCase(),
      chainId: 10,
      binding: "request-bound",
      replayable: false,
    });
    expect(await verifier.verifyRequest({ request })).toMatchObject({ ok: false, reason: "replay" });
  });

  test("takes our idempotency key", async () => {
    const request = new Request("https://api.gpux.example/v1/jobs", {
      method: "POST",
      headers: { "idempotency-key": "order-1" },
      body: "{}",
    });
    const verified = await verifier.verifyRequest({
      request: await signRequest(request, signer, { now }),
      policy: { additionalRequestBoundComponents: ["idempotency-key"] },
    });
    expect(verified.ok).toBe(true);
  });

  test.each(vectors.vectors)(
    "takes our vector: $name",
    async ({ request: plain, headers, created: vectorCreated }) => {
      const body = plain.body === "" ? {} : { body: Buffer.from(plain.body, "base64") };
      const request = new Request(plain.url, {
        method: plain.method,
        headers: [...Object.entries(plain.headers), ...Object.entries(headers)],
        ...body,
      });
      const verified = await verifier.verifyRequest({ request, policy: { now: () => vectorCreated } });
      expect(verified).toMatchObject({ ok: true, address: vectors.address, chainId: vectors.chainId });
    },
  );

  test("refuses what we sign once it is changed", async () => {
    const request = await signRequest(new Request("https://api.gpux.example/v1/nodes"), signer, { now });
    const changed = new Request("https://api.gpux.example/v1/leases", request);
    expect((await verifier.verifyRequest({ request: changed })).ok).toBe(false);
  });

  test.each(requests)("signs what we take: %s", async (_what, make) => {
    const client = createSignerClient(stranger, { created });
    const request = await client.signRequest(make());
    expect(await verifyRequest(await received(request), policy)).toMatchObject({
      ok: true,
      address: account.address.toLowerCase(),
      keyId: formatKeyId(10, account.address),
      created,
      expires: created + 60,
    });
  });

  test("signs replayable and class-bound requests that we refuse", async () => {
    const get = () => new Request("https://api.gpux.example/v1/nodes");
    const client = createSignerClient(stranger, { created });
    const replayable = await client.signRequest(get(), { replay: "replayable" });
    expect(await verifyRequest(await received(replayable), policy)).toEqual({
      ok: false,
      code: "signature_malformed",
    });
    const classBound = await client.signRequest(get(), {
      binding: "class-bound",
      components: ["@authority"],
    });
    expect(await verifyRequest(await received(classBound), policy)).toEqual({
      ok: false,
      code: "signature_component_missing",
    });
  });
});

describe("http-message-sig", () => {
  /** EIP-191 has no registered name, so we tell this library out of band what the key is. */
  const wallet = {
    algorithm: "eip191-secp256k1",
    verify: (base: Uint8Array, signature: Uint8Array) =>
      verifyMessage({ address: account.address, message: { raw: base }, signature: bytesToHex(signature) }),
    sign: async (base: Uint8Array) => hexToBytes(await account.signMessage({ message: { raw: base } })),
  };

  test.each(requests)("takes what we sign: %s", async (_what, make) => {
    const request = await signRequest(make(), signer, { now });
    const verified = await verifySignature(request, {
      policy: {
        algorithms: [wallet.algorithm],
        requiredComponents: ["@method", "@authority", "@path"],
        requiredParameters: ["created", "expires", "nonce", "keyid"],
        now: created,
      },
      resolveVerifier: () => wallet,
    });
    expect(verified.parameters.keyid).toBe(formatKeyId(10, account.address));
  });

  test.each(requests)("signs what we take: %s", async (_what, make) => {
    const request = make();
    const body = new Uint8Array(await request.clone().arrayBuffer());
    const digest = await signRequest(make(), signer, { now });
    const field = digest.headers.get("content-digest");
    const message = new Request(request.url, {
      method: request.method,
      ...(field === null ? {} : { body, headers: { "content-digest": field } }),
    });
    const fields = await createSignature(message, {
      label: "any-label",
      components: [
        "@path",
        "@method",
        "@authority",
        ...(new URL(request.url).search === "" ? [] : ["@query"]),
        ...(field === null ? [] : ["content-digest"]),
      ],
      parameters: {
        keyid: formatKeyId(10, account.address),
        nonce: "nonce-of-a-stranger",
        expires: created + 300,
        created,
      },
      signer: wallet,
    });
    const headers = appendSignature(message.headers, fields);
    const verified = await verifyRequest({ method: message.method, url: message.url, headers, body }, policy);
    expect(verified).toMatchObject({ ok: true, address: account.address.toLowerCase() });
  });
});
