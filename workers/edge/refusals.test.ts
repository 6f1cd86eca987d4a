import { listDurableObjectIds, SELF } from "cloudflare:test";
import { env } from "cloudflare:workers";
import {
  type Account,
  addressOf,
  newAccount,
  requestOf,
  type Sent,
  signed,
} from "@gpux/durable-objects/testing/client";
import { ECHO } from "@gpux/durable-objects/testing/echo";
import { store, unknownLease } from "@gpux/durable-objects/testing/functions";
import { ERRORS, type ErrorCode } from "@gpux/protocol/errors";
import { contentDigest } from "@gpux/protocol/http-signature/content-digest";
import { accountSigner, type SignOptions, signRequest } from "@gpux/protocol/http-signature/erc8128";
import { beforeAll, describe, expect, test } from "vitest";

const account = newAccount();
let echo = "";
let broken = "";
let noManifest = "";

beforeAll(async () => {
  echo = await store(account, ECHO);
  broken = await store(account, { ...ECHO, outputs: [{ ...ECHO.outputs[0], buffer: "nowhere" }] });
  noManifest = await store(account, "only a text");
});

async function send(request: Request): Promise<{ response: Response; body: Record<string, unknown> }> {
  const response = await SELF.fetch(request);
  return { response, body: await response.json() };
}

/** The code, and everything that the table promises for it. */
function expectProblem(response: Response, body: Record<string, unknown>, code: ErrorCode): void {
  const { status, title, hint, fault, retryable } = ERRORS[code];
  expect(body).toMatchObject({ code, status, title, hint, fault, retryable });
  expect(response.status).toBe(status);
  expect(response.headers.get("content-type")).toBe("application/problem+json");
  expect(body.request_id).toBe(response.headers.get("x-request-id"));
}

const job = (change: object = {}) => ({
  function: echo,
  max_price: "1000",
  inputs: { value: { number: 1 } },
  ...change,
});
const quote = { demand: { gpu_model: "NOBODY_HAS_IT" } };

/** Objects that exist by now, in all namespaces: a refused request must create none and change none. */
async function objects(): Promise<string[]> {
  const ids = await Promise.all(
    [env.LEASE, env.NODE, env.ACCOUNT].map((namespace) => listDurableObjectIds<undefined>(namespace)),
  );
  return ids.flat().map(String).sort();
}

describe("a signed request that makes no sense changes nothing", () => {
  const cases: [string, ErrorCode, string, () => Sent][] = [
    ["malformed JSON", "invalid_json", "/v1/jobs", () => jsonText("{")],
    [
      "JSON that is not UTF-8",
      "invalid_json",
      "/v1/jobs",
      () => ({ ...jsonText(""), body: Uint8Array.of(0x22, 0xff, 0x22) }),
    ],
    [
      "no body",
      "invalid_json",
      "/v1/quotes",
      () => ({ method: "POST", headers: { "content-type": "application/json" } }),
    ],
    ["an array", "invalid_request", "/v1/jobs", () => ({ json: [] })],
    ["an unknown field", "invalid_request", "/v1/jobs", () => ({ json: job({ colour: "red" }) })],
    ["a number as an amount", "invalid_request", "/v1/jobs", () => ({ json: job({ max_price: 1000 }) })],
    ["a negative amount", "invalid_request", "/v1/jobs", () => ({ json: job({ max_price: "-1" }) })],
    [
      "an amount above uint88",
      "invalid_request",
      "/v1/jobs",
      () => ({ json: job({ max_price: "9".repeat(27) }) }),
    ],
    [
      "a wrong type deep inside",
      "invalid_request",
      "/v1/jobs",
      () => ({ json: job({ demand: { resources: { gpus: "1" } } }) }),
    ],
    ["a hash that is none", "invalid_request", "/v1/jobs", () => ({ json: job({ function: "ABC" }) })],
    ["an unknown query parameter", "invalid_request", "/v1/jobs?dry=1", () => ({ json: job() })],
    ["an id of the wrong form", "invalid_request", "/v1/leases/lse_short/jobs", () => ({ json: job() })],
    [
      "a job id of the edge's own form",
      "invalid_request",
      "/v1/jobs/job_of-my-own",
      () => ({ method: "PUT", json: job() }),
    ],
    [
      "an idempotency key with spaces",
      "invalid_request",
      "/v1/jobs",
      () => ({ json: job(), headers: { "idempotency-key": "a b" } }),
    ],
    [
      "a body over 48 KB",
      "body_too_large",
      "/v1/jobs",
      () => ({ json: job({ inputs: { value: { base64: "A".repeat(49_152) } } }) }),
    ],
    [
      "another content type",
      "unsupported_media_type",
      "/v1/jobs",
      () => ({ ...jsonText("{}"), headers: { "content-type": "text/plain" } }),
    ],
    [
      "a function that nobody stored",
      "function_unknown",
      "/v1/jobs",
      () => ({ json: job({ function: "00".repeat(32) }) }),
    ],
    [
      "an object that is no manifest",
      "manifest_invalid",
      "/v1/jobs",
      () => ({ json: job({ function: noManifest }) }),
    ],
    [
      "a manifest with an unknown buffer",
      "manifest_invalid",
      "/v1/jobs",
      () => ({ json: job({ function: broken }) }),
    ],
    ["a missing input", "input_invalid", "/v1/jobs", () => ({ json: job({ inputs: {} }) })],
    [
      "an input that the function has not",
      "input_invalid",
      "/v1/jobs",
      () => ({ json: job({ inputs: { value: { number: 1 }, more: { number: 1 } } }) }),
    ],
    [
      "an input of the wrong kind",
      "input_invalid",
      "/v1/jobs",
      () => ({ json: job({ inputs: { value: { json: 1 } } }) }),
    ],
    [
      "an input out of its range",
      "input_invalid",
      "/v1/jobs",
      () => ({ json: job({ inputs: { value: { number: 11 } } }) }),
    ],
    [
      "an input named as JavaScript's own",
      "input_invalid",
      "/v1/jobs",
      () => ({ json: job({ inputs: { value: { number: 1 }, constructor: { number: 1 } } }) }),
    ],
    ["a route that is not there", "not_found", "/v1/nothing", () => ({})],
    ["a method that is not there", "method_not_allowed", "/v1/quotes", () => ({})],
    ["an agent's socket without an upgrade", "invalid_request", "/v1/agent/connect", () => ({})],
    ["an agent's path that is not there", "not_found", "/v1/agent/nothing", () => ({})],
  ];
  test.each(cases)("%s: %s", async (_, code, path, sent) => {
    const before = await objects();
    const { response, body } = await send(await signed(account, requestOf(path, sent())));
    expectProblem(response, body, code);
    expect(await objects()).toEqual(before);
  });
});

function jsonText(body: string): Sent {
  return { method: "POST", body, headers: { "content-type": "application/json" } };
}

test("schema errors point at each field", async () => {
  const request = await signed(account, requestOf("/v1/jobs", { json: job({ max_price: 1, retries: 9 }) }));
  const { body } = await send(request);
  const errors = Array.isArray(body.errors) ? body.errors : [];
  expect(errors.map((error) => error.pointer).sort()).toEqual(["/max_price", "/retries"]);
});

describe("a request that refers to what is not there", () => {
  const lease = unknownLease();
  const jobOfLease = `job_${lease.slice(4)}_${"a".repeat(26)}`;
  const cases: [string, ErrorCode, string, () => Sent][] = [
    ["a lease", "lease_unknown", `/v1/leases/${lease}`, () => ({})],
    ["a lease to close", "lease_unknown", `/v1/leases/${lease}/close`, () => ({ method: "POST" })],
    ["a job on a lease", "lease_unknown", `/v1/leases/${lease}/jobs`, () => ({ json: job() })],
    ["a job on a named lease", "lease_unknown", "/v1/jobs", () => ({ json: job({ lease }) })],
    ["a job", "lease_unknown", `/v1/jobs/${jobOfLease}`, () => ({})],
    ["a job's events", "lease_unknown", `/v1/jobs/${jobOfLease}/events`, () => ({})],
    ["a job's output", "lease_unknown", `/v1/jobs/${jobOfLease}/outputs/0`, () => ({})],
    ["a job to cancel", "lease_unknown", `/v1/jobs/${jobOfLease}/cancel`, () => ({ method: "POST" })],
    ["a client's job id", "job_unknown", "/v1/jobs/never-made-this", () => ({})],
    [
      "a quote",
      "quote_unknown",
      "/v1/leases",
      () => ({
        json: {
          lease,
          funding: { amount: "1", salt: `0x${"00".repeat(32)}`, valid_before: 1, signature: "0x" },
        },
      }),
    ],
    ["a node", "node_unknown", `/v1/nodes/${addressOf(newAccount())}`, () => ({})],
    ["an object", "object_unknown", `/v1/objects/${"0".repeat(64)}`, () => ({})],
    ["an offer", "no_capacity", "/v1/quotes", () => ({ json: quote })],
    [
      "a lease's data socket",
      "lease_gone",
      `/v1/agent/leases/${lease}`,
      () => ({ headers: { upgrade: "websocket" } }),
    ],
  ];
  test.each(cases)("%s: %s", async (_, code, path, sent) => {
    const { response, body } = await send(await signed(account, requestOf(path, sent())));
    expectProblem(response, body, code);
  });
});

describe("a request whose signature is not good for it reaches no object", () => {
  const post = () => requestOf("/v1/quotes", { json: quote });
  const at = (change: SignOptions, by: Account = account) => signed(by, post(), change);
  const elsewhere = async (change: (url: URL) => void) => {
    const good = await at({});
    const url = new URL(good.url);
    change(url);
    return new Request(url, good);
  };
  const withHeader = async (name: string, value: string | null, request?: Request) => {
    const copy = new Request(request ?? (await at({})));
    if (value === null) copy.headers.delete(name);
    else copy.headers.set(name, value);
    return copy;
  };
  const now = Math.floor(Date.now() / 1000);
  const cases: [string, ErrorCode, () => Promise<Request>][] = [
    ["none", "signature_missing", async () => post()],
    ["unreadable headers", "signature_malformed", () => withHeader("signature-input", "eth=")],
    ["one by a clock that is ten minutes slow", "signature_expired", () => at({ created: now - 600 })],
    ["one by a clock that is ten minutes fast", "signature_not_yet_valid", () => at({ created: now + 600 })],
    [
      "one for another host",
      "signature_wrong_audience",
      () =>
        elsewhere((url) => {
          url.hostname = "other.test";
        }),
    ],
    [
      "one for another path",
      "signature_invalid",
      () =>
        elsewhere((url) => {
          url.pathname = "/v1/leases";
        }),
    ],
    [
      "one for another query",
      "signature_component_missing",
      () =>
        elsewhere((url) => {
          url.search = "?a=1";
        }),
    ],
    ["one for another chain", "signature_wrong_chain", () => signRequest(post(), accountSigner(account, 1))],
    [
      "one for another method",
      "signature_invalid",
      async () =>
        new Request(await signed(account, requestOf("/v1/quotes", { method: "PUT", json: quote })), {
          method: "POST",
        }),
    ],
    [
      "one in another's name",
      "signature_invalid",
      () => signRequest(post(), { ...accountSigner(account, 31_337), address: newAccount().address }),
    ],
    [
      "an idempotency key put on later",
      "signature_component_missing",
      () => withHeader("idempotency-key", "mine-now"),
    ],
    ["no digest", "digest_missing", () => withHeader("content-digest", null)],
    ["a digest of another body", "digest_mismatch", async () => new Request(await at({}), { body: "{}" })],
    [
      "another body with its own digest",
      "signature_invalid",
      async () => {
        const body = new TextEncoder().encode("{}");
        return withHeader("content-digest", await contentDigest(body), new Request(await at({}), { body }));
      },
    ],
  ];
  test.each(cases)("%s: %s", async (_, code, make) => {
    const before = await objects();
    const { response, body } = await send(await make());
    expectProblem(response, body, code);
    if (response.status === 401) {
      const { date } = Object.fromEntries(response.headers);
      expect(Math.abs(Date.parse(date ?? "") - Date.now())).toBeLessThan(60_000);
    }
    expect(await objects()).toEqual(before);
  });

  test("ACK-2 a replayed one: signature_replayed", async () => {
    const request = await at({});
    expect((await send(request.clone())).body.code).toBe("no_capacity");
    const { response, body } = await send(request);
    expectProblem(response, body, "signature_replayed");
  });

  test("ACK-2 a replayed upgrade of an agent: signature_replayed", async () => {
    const upgrade = await signed(
      newAccount(),
      requestOf("/v1/agent/connect", { headers: { upgrade: "websocket" } }),
    );
    const first = await SELF.fetch(upgrade.clone());
    first.webSocket?.accept();
    expect(first.status).toBe(101);
    const { response, body } = await send(upgrade);
    expect(body.code).toBe("signature_replayed");
    expect(response.status).toBe(401);
  });
});

test("a body that goes on for ever is cut at the limit, whatever its length header says", async () => {
  let sent = 0;
  const endless = new ReadableStream<Uint8Array>({
    pull(controller) {
      sent += 1;
      controller.enqueue(new Uint8Array(16_384));
    },
  });
  const request = new Request("https://edge.test/v1/jobs", {
    method: "POST",
    body: endless,
    headers: { "content-type": "application/json", "content-length": "10" },
  });
  const { response, body } = await send(request);
  expectProblem(response, body, "body_too_large");
  expect(sent).toBeLessThan(32);
});

test("headers that only the edge may set are not taken from a client", async () => {
  const victim = addressOf(newAccount());
  const response = await SELF.fetch("https://edge.test/v1/agent/connect", {
    headers: {
      upgrade: "websocket",
      "x-gpux-principal": victim,
      "x-gpux-nonce": "n",
      "x-gpux-expires": "99999999999",
    },
  });
  expect(response.status).toBe(401);
  const mine = newAccount();
  const request = requestOf("/v1/agent/connect", {
    headers: { upgrade: "websocket", "x-gpux-principal": victim },
  });
  const socket = (await SELF.fetch(await signed(mine, request))).webSocket;
  socket?.accept();
  socket?.send(JSON.stringify({ v: 1, seq: 0, ack: 0, t: "ack" }));
  const existing = (await listDurableObjectIds<undefined>(env.NODE)).map(String);
  expect(existing).toContain(String(env.NODE.idFromName(addressOf(mine))));
  expect(existing).not.toContain(String(env.NODE.idFromName(victim)));
});

test("a browser of any origin may read what the API answers, also its refusals", async () => {
  const headers = { origin: "https://app.example" };
  const refused = await SELF.fetch("https://edge.test/v1/leases", { headers });
  expect([refused.status, refused.headers.get("access-control-allow-origin")]).toEqual([401, "*"]);
  const preflight = await SELF.fetch("https://edge.test/v1/jobs", {
    method: "OPTIONS",
    headers: { ...headers, "access-control-request-method": "POST" },
  });
  expect(preflight.status).toBe(204);
  expect(preflight.headers.get("access-control-allow-headers")).toContain("signature-input");
});

test("a wrong method says which are right", async () => {
  const response = await SELF.fetch("https://edge.test/v1/nodes", { method: "POST", body: "{}" });
  expect(response.status).toBe(405);
  expect(response.headers.get("allow")).toBe("GET, HEAD, OPTIONS");
});
