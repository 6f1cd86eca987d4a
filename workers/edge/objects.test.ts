import { SELF } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { addressOf, call, newAccount, ORIGIN, requestOf, signed } from "@gpux/durable-objects/testing/client";
import { sha256Hex } from "@gpux/protocol/canonical";
import { contentDigest } from "@gpux/protocol/http-signature/content-digest";
import { expect, test } from "vitest";

const account = newAccount();
const bytes = (length: number) => crypto.getRandomValues(new Uint8Array(length));

async function put(body: Uint8Array<ArrayBuffer>, sha256: string, headers: Record<string, string> = {}) {
  const sent = { method: "PUT", body, headers: { "content-length": String(body.length), ...headers } };
  return call(account, `/v1/objects/${sha256}`, sent);
}

test("what is put can be got by anyone who knows the hash, never as a page of this origin", async () => {
  const body = new Uint8Array(new TextEncoder().encode("<script>alert(1)</script>"));
  const sha256 = await sha256Hex(body);
  const stored = await put(body, sha256, { "content-type": "text/html" });
  expect([stored.status, await stored.json()]).toEqual([
    201,
    { object: "object", sha256, bytes: body.length },
  ]);

  const got = await SELF.fetch(`${ORIGIN}/v1/objects/${sha256}`);
  expect(new Uint8Array(await got.arrayBuffer())).toEqual(body);
  expect(Object.fromEntries(got.headers)).toMatchObject({
    "content-type": "text/html",
    "content-disposition": `attachment; filename="${sha256}"`,
    "content-security-policy": "sandbox; default-src 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "public, max-age=31536000, immutable",
  });
  const head = await SELF.fetch(`${ORIGIN}/v1/objects/${sha256}`, { method: "HEAD" });
  expect([head.status, head.headers.get("content-length")]).toEqual([200, String(body.length)]);
});

test("putting the same bytes again changes nothing", async () => {
  const body = bytes(1_000);
  const sha256 = await sha256Hex(body);
  expect((await put(body, sha256)).status).toBe(201);
  const first = await env.OBJECTS.head(sha256);
  expect((await put(body, sha256)).status).toBe(200);
  expect((await env.OBJECTS.head(sha256))?.uploaded).toEqual(first?.uploaded);
});

test("an object of some megabytes streams through", async () => {
  const body = new Uint8Array(5 * 2 ** 20).fill(7);
  const sha256 = await sha256Hex(body);
  expect((await put(body, sha256)).status).toBe(201);
  expect((await env.OBJECTS.head(sha256))?.size).toBe(body.length);
});

test("a digest of other bytes than the path names is refused before the body is read", async () => {
  const sha256 = await sha256Hex("other bytes");
  const refused = await put(bytes(100), sha256);
  expect([refused.status, await refused.json()]).toMatchObject([400, { code: "digest_mismatch" }]);
  expect(await env.OBJECTS.head(sha256)).toBeNull();
});

test("bytes that are not what hash and digest say are not stored", async () => {
  const promised = bytes(100);
  const sha256 = await sha256Hex(promised);
  const signedRequest = await signed(
    account,
    requestOf(`/v1/objects/${sha256}`, { method: "PUT", body: promised }),
  );
  const headers = new Headers(signedRequest.headers);
  headers.set("content-length", "100");
  const refused = await SELF.fetch(
    new Request(signedRequest.url, { method: "PUT", headers, body: bytes(100) }),
  );
  expect([refused.status, await refused.json()]).toMatchObject([422, { code: "object_mismatch" }]);
  expect(await env.OBJECTS.head(sha256)).toBeNull();
});

test.each([
  ["shorter", 99],
  ["longer", 101],
])("a body %s than its length header says stores nothing", async (_, length) => {
  const body = bytes(100);
  const sha256 = await sha256Hex(body);
  const refused = await put(body, sha256, { "content-length": String(length) });
  expect(refused.ok).toBe(false);
  expect(await env.OBJECTS.head(sha256)).toBeNull();
});

test.each<[string, Record<string, string>, string]>([
  ["no length", {}, "invalid_request"],
  ["a length over the limit", { "content-length": String(64 * 2 ** 20 + 1) }, "body_too_large"],
  ["no signature", { "content-length": "1" }, "signature_missing"],
])("a put with %s is refused", async (_, headers, code) => {
  const body = Uint8Array.of(1);
  const sha256 = await sha256Hex(body);
  const digest = { "content-digest": await contentDigest(body) };
  const request = new Request(`${ORIGIN}/v1/objects/${sha256}`, {
    method: "PUT",
    // A stream of unknown length: a blob's would bring its own header.
    body: new ReadableStream({
      start(controller) {
        controller.enqueue(body);
        controller.close();
      },
    }),
    headers: { ...digest, ...headers },
  });
  expect(await (await SELF.fetch(request)).json()).toMatchObject({ code });
  expect(await env.OBJECTS.head(sha256)).toBeNull();
});

test("a signature for one object does not store another", async () => {
  const [mine, other] = [bytes(10), bytes(10)];
  const path = `/v1/objects/${await sha256Hex(mine)}`;
  const request = await signed(
    account,
    requestOf(path, { method: "PUT", body: mine, headers: { "content-length": "10" } }),
  );
  const moved = new Request(`${ORIGIN}/v1/objects/${await sha256Hex(other)}`, request);
  expect(await (await SELF.fetch(moved)).json()).toMatchObject({ code: "digest_mismatch" });
});

test("what is not a hash is not a path", async () => {
  const refused = await SELF.fetch(`${ORIGIN}/v1/objects/${addressOf(account)}`);
  expect(await refused.json()).toMatchObject({ code: "invalid_request" });
});
