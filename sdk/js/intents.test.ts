import { problem } from "@gpux/protocol/errors";
import { type IntentDone, intentHints } from "@gpux/protocol/intent";
import { describe, expect, it } from "vitest";
import { createClient } from "./client.ts";
import { GpuxError } from "./error.ts";
import type { IntentInput } from "./intents.ts";
import { consumer, lower } from "./testing/market.ts";
import { createScriptedEdge, refuse } from "./testing/scripted-edge.ts";
import { createTestClock } from "./testing/test-clock.ts";

const account = lower(consumer.address);
const intent: IntentInput = { kind: "withdraw", account, occasion: "today" };
const key = `withdraw:${account}:today`;
const POST = "POST /v1/relay";
const GET = `GET /v1/relay/${encodeURIComponent(key)}`;

const answer: IntentDone & { object: string } = {
  object: "intent",
  status: "done",
  key,
  superseded: false,
  txHash: `0x${"11".repeat(32)}`,
  blockNumber: 7,
  blockHash: `0x${"22".repeat(32)}`,
  blockTimestamp: 1_800_000_000,
  result: { kind: "withdraw", account, amount: "5" },
  cost: null,
  confirmation: "included",
  enough: true,
};
const done = () => Response.json(answer);
const pending = () =>
  Response.json({ object: "intent", status: "pending", key, txHash: null }, { status: 202 });
const rejected = () =>
  Response.json({
    object: "intent",
    status: "rejected",
    key,
    code: "expired",
    detail: "too late",
    hint: intentHints.expired,
  });

function setUp() {
  const { timing, slept } = createTestClock();
  const edge = createScriptedEdge({ now: timing.now });
  const client = createClient({ url: "https://edge.test", account: consumer, fetch: edge.fetch, timing });
  const refusal = async (work: Promise<unknown>) => {
    const error = await work.then(
      () => null,
      (reason: unknown) => reason,
    );
    if (!(error instanceof GpuxError)) throw new Error(`no refusal but ${String(error)}`);
    return error;
  };
  return { client, edge, slept, refusal };
}

describe("relay", () => {
  it("submits the intent unsigned, for its own signatures are all it needs, and returns what came of it", async () => {
    const { client, edge } = setUp();
    edge.script(POST, done);
    expect(await client.intents.relay(intent)).toEqual(answer);
    expect(edge.routes()).toEqual([POST]);
    expect(edge.seen[0]).toMatchObject({ signer: null, body: JSON.stringify(intent) });
    expect(edge.seen[0]?.headers.get("prefer")).toBe("wait=30");
  });

  it("follows it by its key while it is pending, without a tight loop", async () => {
    const { client, edge, slept } = setUp();
    edge.script(POST, pending);
    edge.script(GET, pending, pending, done);
    expect(await client.intents.relay(intent)).toMatchObject({ status: "done", key });
    expect(edge.routes()).toEqual([POST, GET, GET, GET]);
    expect(slept).toHaveLength(3);
  });

  it("throws the edge's refusal with the hint for an intent", async () => {
    const { client, edge, refusal } = setUp();
    const extra = { refusal: "wallet_not_deployed", hint: intentHints.wallet_not_deployed };
    edge.script(POST, () => refuse("wallet_not_deployed", extra));
    expect(await refusal(client.intents.relay(intent))).toMatchObject({
      code: "wallet_not_deployed",
      status: 422,
      hint: intentHints.wallet_not_deployed,
    });
  });

  it("throws the same code for what is refused only later", async () => {
    const { client, edge, refusal } = setUp();
    edge.script(POST, pending);
    edge.script(GET, rejected);
    expect(await refusal(client.intents.relay(intent))).toMatchObject({
      code: "intent_expired",
      hint: intentHints.expired,
      detail: `${key}: too late`,
    });
  });

  it("gives up waiting after the caller's time, and says that it goes on", async () => {
    const { client, edge, refusal } = setUp();
    edge.script(POST, pending);
    const error = await refusal(client.intents.relay(intent, { timeoutMs: 0 }));
    expect(error).toMatchObject({ code: "timed_out", detail: key });
    expect(edge.seen[0]?.headers.get("prefer")).toBe("wait=0");
  });

  it("asks again after a lost answer: the same intent is the same", async () => {
    const { client, edge } = setUp();
    edge.script(POST, () => new TypeError("connection reset"), done);
    expect(await client.intents.relay(intent)).toMatchObject({ status: "done" });
    expect(edge.routes()).toEqual([POST, POST]);
  });

  it("sends nothing that does not fit the schema", async () => {
    const { client, edge, refusal } = setUp();
    const wrong = { ...intent, account: "0x12" } as const;
    expect(await refusal(client.intents.relay(wrong))).toMatchObject({ code: "request_invalid" });
    expect(edge.routes()).toEqual([]);
  });

  it("stops when the caller does", async () => {
    const { client, edge, refusal } = setUp();
    const stop = new AbortController();
    edge.script(POST, () => {
      stop.abort();
      return pending();
    });
    expect(await refusal(client.intents.relay(intent, { signal: stop.signal }))).toMatchObject({
      code: "aborted",
    });
  });
});

describe("get", () => {
  it("shows how an intent stands, also a refused one", async () => {
    const { client, edge } = setUp();
    edge.script(GET, rejected);
    expect(await client.intents.get(key)).toMatchObject({ status: "rejected", code: "expired" });
  });

  it("throws for a key that the relayer does not know", async () => {
    const { client, edge, refusal } = setUp();
    edge.script(GET, () =>
      Response.json(problem("intent_unknown", "req_1"), {
        status: 404,
        headers: { "content-type": "application/problem+json" },
      }),
    );
    expect(await refusal(client.intents.get(key))).toMatchObject({ code: "intent_unknown", status: 404 });
  });
});
