import { SELF } from "cloudflare:test";
import { ORIGIN, requestOf } from "@gpux/durable-objects/testing/client";
import { ERRORS, type ErrorCode } from "@gpux/protocol/errors";
import { IntentRefusalCode, intentHints } from "@gpux/protocol/intent";
import { relayErrorOf } from "@gpux/protocol/relay-errors";
import { generatePrivateKey, privateKeyToAddress } from "viem/accounts";
import { describe, expect, test } from "vitest";
import { problemResponse } from "./refusal.ts";
import { refuseIntent } from "./relay-refusal.ts";

// The real relayer stands beside this edge, but no node answers it. What intents come to is in test/e2e/relay.test.ts,
// on a chain.

const fresh = () => privateKeyToAddress(generatePrivateKey()).toLowerCase();
const withdraw = () => ({ kind: "withdraw", account: fresh(), occasion: "test" });

async function send(path: string, sent: Parameters<typeof requestOf>[1] = {}) {
  const response = await SELF.fetch(requestOf(path, sent));
  const body: Record<string, unknown> = await response.json();
  return { response, body };
}
const post = (json: unknown, headers: Record<string, string> = {}) => send("/v1/relay", { json, headers });

describe("RLY-12 every refusal of the relayer", () => {
  test.each(IntentRefusalCode.options)(
    "%s has a problem of its own, with the hint of an intent",
    async (code) => {
      const refusal = refuseIntent({ status: "rejected", key: "fund:0x1:0x2", code, detail: "why" });
      const response = problemResponse(refusal, "req_1");
      const error = relayErrorOf(code);
      expect(response.status).toBe(ERRORS[error].status);
      expect(await response.json()).toMatchObject({
        code: error,
        title: ERRORS[error].title,
        hint: intentHints[code],
        refusal: code,
        key: "fund:0x1:0x2",
        detail: "why",
      });
    },
  );

  test("and no two of them the same", () => {
    const errors = IntentRefusalCode.options.map(relayErrorOf);
    expect(new Set(errors).size).toBe(errors.length);
  });
});

describe("POST /v1/relay", () => {
  test("takes nothing while no node can be asked, and says when to come again", async () => {
    const intent = withdraw();
    const { response, body } = await post(intent, { prefer: "wait=1" });
    expect([response.status, body.code]).toEqual([503, "chain_unavailable"]);
    expect(response.headers.get("retry-after")).toBe("5");
    expect(body).toMatchObject({ refusal: "chain_unavailable", key: `withdraw:${intent.account}:test` });
    const standing = await send(`/v1/relay/withdraw:${intent.account}:test`);
    expect([standing.response.status, standing.body.code]).toEqual([404, "intent_unknown"]);
  });

  const badBodies: [title: string, code: ErrorCode, body: BodyInit | object, type?: string][] = [
    ["no JSON", "invalid_json", "{"],
    ["no intent", "invalid_request", {}],
    ["an unknown kind", "invalid_request", { kind: "steal", account: fresh() }],
    ["an unknown field", "invalid_request", { ...withdraw(), gas: 1 }],
    ["an account that is none", "invalid_request", { ...withdraw(), account: "0x12" }],
    ["a number as an amount", "invalid_request", { kind: "deposit", amount: 5 }],
    ["a body of another type", "unsupported_media_type", "kind=withdraw", "text/plain"],
    ["a body above the limit", "body_too_large", { ...withdraw(), occasion: "x".repeat(49 * 1024) }],
  ];
  test.each(badBodies)("refuses %s: %s", async (_title, code, body, type = "application/json") => {
    const content = typeof body === "string" ? body : JSON.stringify(body);
    const sent = { method: "POST", body: content, headers: { "content-type": type } };
    const { response, body: problem } = await send("/v1/relay", sent);
    expect(response.status).toBe(ERRORS[code].status);
    expect(response.headers.get("content-type")).toBe("application/problem+json");
    expect(problem).toMatchObject({ code, hint: ERRORS[code].hint });
  });

  test("points at the field that does not fit", async () => {
    const { body } = await post({ ...withdraw(), account: "0x12" });
    expect(body.errors).toMatchObject([{ pointer: "/account" }]);
  });
});

describe("GET /v1/relay/{key}", () => {
  test("knows what was taken, and nothing else", async () => {
    const unknown = await send(`/v1/relay/withdraw:${fresh()}:test`);
    expect([unknown.response.status, unknown.body.code]).toEqual([404, "intent_unknown"]);
  });

  test.each(["steal:0x12", "fund:", "'--", "fund:%2e%2e%2f", `fund:${"x".repeat(300)}`])(
    "takes no key like %s",
    async (key) => {
      const { response, body } = await send(`/v1/relay/${key}`);
      expect([response.status, body.code]).toEqual([422, "invalid_request"]);
    },
  );

  test("waits no longer than a minute", async () => {
    const { response, body } = await send(`/v1/relay/withdraw:${fresh()}:test?wait=61`);
    expect([response.status, body.code]).toEqual([422, "invalid_request"]);
  });
});

test("a page of any origin may submit", async () => {
  const response = await SELF.fetch(`${ORIGIN}/v1/relay`, {
    method: "OPTIONS",
    headers: { origin: "https://dapp.example", "access-control-request-method": "POST" },
  });
  expect([response.status, response.headers.get("access-control-allow-origin")]).toEqual([204, "*"]);
});
