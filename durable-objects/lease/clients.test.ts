import { evictDurableObject, runDurableObjectAlarm, runInDurableObject, SELF } from "cloudflare:test";
import { CLIENT_CLOSE, CLIENT_FRAME_LIMIT, MOST_UNDER_WAY } from "@gpux/protocol/client-frames";
import { socketProtocols } from "@gpux/protocol/http-signature/socket-credentials";
import type { LeaseId } from "@gpux/protocol/ids";
import { afterEach, beforeAll, expect, test, vi } from "vitest";
import { type Account, call, newAccount, requestOf, signed } from "../testing/client.ts";
import { ECHO } from "../testing/echo.ts";
import { store, unknownLease } from "../testing/functions.ts";
import { openSession } from "../testing/session.ts";
import { MOST_CLIENTS } from "./clients.ts";
import { LeaseObject } from "./object.ts";
import { ClientLine, upgradeTo } from "./testing/client-line.ts";
import { DataLine, funded as fundedBy, OUTPUT, quotedTo } from "./testing/data-line.ts";
import { Neighbours } from "./testing/neighbours.ts";

let neighbours: Neighbours;
let echo: string;
beforeAll(async () => {
  neighbours = await Neighbours.meet();
  echo = await store(newAccount(), ECHO);
});
afterEach(() => {
  vi.useRealTimers();
});

const funded = (change: { unattended?: bigint } = {}) => fundedBy(neighbours, change);

async function connected(wallet: Account, lease: LeaseId): Promise<ClientLine> {
  return ClientLine.dial(await signed(wallet, upgradeTo(lease)));
}

const asked = (value: number, change: object = {}) => ({
  function: echo,
  inputs: { value: { number: value } },
  max_price: "100000",
  ...change,
});

function rowsOf(stub: DurableObjectStub): Promise<unknown> {
  return runInDurableObject(
    stub,
    (_, { storage }) =>
      storage.sql
        .exec(
          `SELECT count(DISTINCT id) AS n FROM (SELECT id FROM jobs
             UNION ALL SELECT value ->> 0 FROM tail, json_each(tail.doc, '$.jobs'))`,
        )
        .one().n,
  );
}

async function codeOf(request: Request): Promise<string> {
  const response = await SELF.fetch(request);
  const body: { code?: string } = await response.json();
  return `${response.status} ${body.code}`;
}

test("SOC-1 the upgrade is signed by the wallet or a session, in header fields or in a subprotocol", async () => {
  const { wallet, lease } = await funded();
  const session = await openSession(wallet, { scopes: ["jobs"] });
  const path = `/v1/leases/${lease}/session`;
  await connected(wallet, lease);
  await ClientLine.dial(
    await session.request(path, { headers: Object.fromEntries(upgradeTo(lease).headers) }),
  );
  for (const by of [await signed(wallet, requestOf(path)), await session.request(path)]) {
    const headers = { upgrade: "websocket", "sec-websocket-protocol": socketProtocols(by).join(", ") };
    await ClientLine.dial(requestOf(path, { headers }));
  }
});

test("SOC-1 whoever may not send jobs gets no socket, and without an upgrade the reason alone", async () => {
  const { wallet, lease } = await funded();
  const path = `/v1/leases/${lease}/session`;
  const reader = await openSession(wallet, { scopes: ["read"] });
  const once = await signed(wallet, upgradeTo(lease));
  await ClientLine.dial(new Request(once));
  const withoutProtocol = requestOf(path, { headers: { upgrade: "websocket" } });
  const twice = socketProtocols(await signed(wallet, requestOf(path)));
  const cases: [string, Request][] = [
    ["401 signature_missing", upgradeTo(lease)],
    ["401 signature_replayed", once],
    ["403 forbidden", await signed(newAccount(), upgradeTo(lease))],
    ["403 scope_missing", await reader.request(path, { headers: { upgrade: "websocket" } })],
    ["426 upgrade_required", await signed(wallet, requestOf(path))],
    ["426 upgrade_required", await signed(wallet, withoutProtocol)],
    [
      "401 signature_malformed",
      requestOf(path, {
        headers: { upgrade: "websocket", "sec-websocket-protocol": [...twice, ...twice].join(", ") },
      }),
    ],
    [
      "401 signature_malformed",
      requestOf(path, {
        headers: { upgrade: "websocket", "sec-websocket-protocol": "gpux.v1, gpux.auth.e30" },
      }),
    ],
    ["404 lease_unknown", await signed(wallet, upgradeTo(unknownLease()))],
  ];
  for (const [expected, request] of cases) expect(await codeOf(request)).toBe(expected);
});

test("SOC-2 a job that ends at once is answered by its end alone, before its rows are written", async () => {
  const { wallet, lease, stub } = await funded();
  const agent = await DataLine.dial(lease);
  const client = await connected(wallet, lease);
  // Rows are written 10 ms later at the earliest: here, never before the answer.
  vi.useFakeTimers({ toFake: ["setTimeout"] });
  client.say({ t: "job", id: "fast", request: asked(1) });
  const run = await agent.run();
  agent.succeeded(run);
  const { id, job } = await client.next("result");
  expect({ id, status: job.status, job: job.id }).toEqual({ id: "fast", status: "succeeded", job: run.job });
  expect(job.outputs).toMatchObject([OUTPUT]);
  expect(job.receipt?.receipt).toMatchObject({ sequence: 1 });
  expect(await rowsOf(stub)).toBe(0);
});

test("SOC-2 a job that takes longer is accepted once it is on record, then told of to its end", async () => {
  const { wallet, lease, stub } = await funded();
  const agent = await DataLine.dial(lease);
  const client = await connected(wallet, lease);
  client.say({ t: "job", id: "slow", request: asked(1) });
  const run = await agent.run();
  const accepted = await client.next("accepted");
  expect(accepted).toMatchObject({ id: "slow", job: { id: run.job, status: "starting" } });
  expect(await rowsOf(stub)).toBe(1);
  agent.started(run);
  expect(await client.next("event")).toMatchObject({ id: "slow", event: { data: { status: "running" } } });
  agent.failed(run);
  expect(await client.next("failed")).toMatchObject({
    id: "slow",
    job: { error: { code: "input_invalid" } },
  });
});

test("SOC-3 the same id is the same job, over another socket and over HTTP, and no other request's", async () => {
  const { wallet, lease } = await funded();
  const agent = await DataLine.dial(lease);
  const client = await connected(wallet, lease);
  client.say({ t: "job", id: "once", request: asked(1) });
  const run = await agent.run();
  await client.next("accepted");
  client.close();

  const again = await connected(wallet, lease);
  again.say({ t: "job", id: "once", request: asked(1) });
  expect((await again.next("accepted")).job.id).toBe(run.job);
  again.say({ t: "job", id: "once", request: asked(2) });
  expect((await again.next("refused")).problem.code).toBe("idempotency_key_reused");
  agent.succeeded(run);
  expect((await again.next("result")).job.id).toBe(run.job);
  again.say({ t: "job", id: "once", request: asked(1) });
  expect((await again.next("result")).job.id).toBe(run.job);
  const overHttp = await call(wallet, `/v1/leases/${lease}/jobs`, {
    json: asked(1),
    headers: { "idempotency-key": "once" },
  });
  expect(await overHttp.json()).toMatchObject({ id: run.job, status: "succeeded" });
});

test("SOC-3 a batch is taken as a whole, each of its jobs ends by its place, and a refusal names the one", async () => {
  const { wallet, lease } = await funded();
  const agent = await DataLine.dial(lease);
  const client = await connected(wallet, lease);
  client.say({ t: "batch", id: "many", requests: [asked(1), asked(2)] });
  for (const index of [0, 1]) {
    const run = await agent.run();
    agent.succeeded(run);
    expect(await client.end()).toMatchObject({ t: "result", id: "many", index, job: { id: run.job } });
  }
  client.say({ t: "batch", id: "wrong", requests: [asked(1), { ...asked(2), max_price: "-1" }] });
  expect((await client.next("refused")).problem).toMatchObject({
    code: "invalid_request",
    errors: [{ pointer: "/1/max_price" }],
  });
  client.say({ t: "batch", id: "dear", requests: [asked(3), asked(4, { max_price: "99999999" })] });
  expect((await client.next("refused")).problem).toMatchObject({
    code: "lease_underfunded",
    errors: [{ pointer: "/1" }],
  });
});

test("SOC-4 what is refused is refused as over HTTP, by its id, and the socket stays", async () => {
  const { wallet, lease } = await funded({ unattended: 0n });
  const client = await connected(wallet, lease);
  const refused = async (id: string, request: unknown) => {
    client.say({ t: "job", id, request });
    const { id: of, problem } = await client.next("refused");
    expect(of).toBe(id);
    const { request_id: _, ...overSocket } = problem;
    const { request_id: __, ...overHttp } = await call(wallet, `/v1/leases/${lease}/jobs`, {
      json: request,
    }).then((response) => response.json<Record<string, unknown>>());
    expect(overSocket).toEqual(overHttp);
    return problem;
  };
  expect(await refused("a", { ...asked(1), more: 1 })).toMatchObject({ code: "invalid_request" });
  expect(await refused("b", { ...asked(1), function: "0".repeat(64) })).toMatchObject({
    code: "function_unknown",
  });
  expect(await refused("c", asked(11))).toMatchObject({ code: "input_invalid" });
  expect(await refused("d", asked(1))).toMatchObject({
    code: "allowance_required",
    allowance: { lease_id: lease, cumulative: "100000" },
  });
  const allowance = { cumulative: "100000", signature: `0x${"11".repeat(65)}` };
  expect(await refused("e", asked(1, { allowance }))).toMatchObject({ code: "allowance_invalid" });
  client.say({ t: "cancel", id: "f", job: `job_${lease.slice(4)}_${"a".repeat(26)}` });
  expect((await client.next("refused")).problem.code).toBe("job_unknown");
});

test("SOC-4 a job is canceled over the socket that sent it, or another", async () => {
  const { wallet, lease } = await funded();
  const sender = await connected(wallet, lease);
  sender.say({ t: "job", id: "unwanted", request: asked(1) });
  const { job } = await sender.next("accepted");
  const other = await connected(wallet, lease);
  other.say({ t: "cancel", id: "stop", job: job.id });
  expect(await other.next("state")).toMatchObject({ id: "stop", job: { status: "canceled" } });
  expect(await sender.next("failed")).toMatchObject({ id: "unwanted", job: { status: "canceled" } });
});

test.each([
  ["no JSON", "{", CLIENT_CLOSE.badFrame],
  ["bytes", new Uint8Array([1]), CLIENT_CLOSE.badFrame],
  ["another version", JSON.stringify({ v: 2, t: "job", id: "a", request: {} }), CLIENT_CLOSE.badFrame],
  ["a kind that nobody knows", JSON.stringify({ v: 1, t: "made_up", id: "a" }), CLIENT_CLOSE.badFrame],
  [
    "a field too many",
    JSON.stringify({ v: 1, t: "job", id: "a", request: {}, more: 1 }),
    CLIENT_CLOSE.badFrame,
  ],
  ["more than a frame may hold", "x".repeat(CLIENT_FRAME_LIMIT + 1), CLIENT_CLOSE.tooLong],
])("SOC-5 a client that sends %s is closed", async (_, text, code) => {
  const { wallet, lease } = await funded();
  const client = await connected(wallet, lease);
  client.raw(text);
  expect(await client.closed).toBe(code);
});

test("SOC-5 more jobs than may be under way are refused, more frames than may wait close the socket", async () => {
  const { wallet, lease, stub } = await funded();
  const client = await connected(wallet, lease);
  const cheap = (n: number) => ({ t: "job", id: `j${n}`, request: asked(n % 10, { max_price: "1" }) });
  for (let n = 0; n < MOST_UNDER_WAY; n += 1) client.say(cheap(n));
  for (let n = 0; n < MOST_UNDER_WAY; n += 1) await client.next("accepted");
  client.say(cheap(MOST_UNDER_WAY));
  expect((await client.next("refused")).problem).toMatchObject({
    code: "too_many_under_way",
    retryable: true,
  });
  // This runtime gives an object a socket's next frame when it is done with the last one: the test does not wait.
  await runInDurableObject(stub, (object, ctx) => {
    const [socket] = ctx.getWebSockets("client");
    if (socket === undefined || !(object instanceof LeaseObject)) throw new Error("no lease with a client");
    const frame = JSON.stringify({ v: 1, ...cheap(0) });
    for (let n = 0; n <= 2 * MOST_UNDER_WAY; n += 1) void object.webSocketMessage(socket, frame);
  });
  expect(await client.closed).toBe(CLIENT_CLOSE.flooded);
});

test("SOC-5 a lease takes so many sockets and no more", async () => {
  const { wallet, lease } = await funded();
  const clients = await Promise.all(Array.from({ length: MOST_CLIENTS }, () => connected(wallet, lease)));
  expect(await codeOf(await signed(wallet, upgradeTo(lease)))).toBe("429 too_many_sockets");
  clients[0]?.close();
  await clients[0]?.closed;
  await vi.waitUntil(async () => (await SELF.fetch(await signed(wallet, upgradeTo(lease)))).status === 101);
});

test("SOC-6 a session's jobs count against its cap, of which more is set aside as they come", async () => {
  const { wallet, lease } = await funded();
  const agent = await DataLine.dial(lease);
  const session = await openSession(wallet, { scopes: ["jobs"], cap: "250000" });
  const headers = Object.fromEntries(upgradeTo(lease).headers);
  const client = await ClientLine.dial(await session.request(`/v1/leases/${lease}/session`, { headers }));
  for (const id of ["a", "b"]) {
    client.say({ t: "job", id, request: asked(1) });
    await client.next("accepted");
  }
  client.say({ t: "job", id: "c", request: asked(1) });
  expect((await client.next("refused")).problem.code).toBe("session_cap_exceeded");
  agent.failed(await agent.run());
  await client.next("failed");
  client.say({ t: "job", id: "d", request: asked(1) });
  await client.next("accepted");
});

test("SOC-6 the socket of a session that is revoked or over is closed, a wallet's stays", async () => {
  const { wallet, lease, stub } = await funded();
  const headers = Object.fromEntries(upgradeTo(lease).headers);
  const by = await connected(wallet, lease);
  const [revoked, over] = [await openSession(wallet), await openSession(wallet)];
  const path = `/v1/leases/${lease}/session`;
  const first = await ClientLine.dial(await revoked.request(path, { headers }));
  const second = await ClientLine.dial(await over.request(path, { headers }));
  expect((await call(wallet, `/v1/sessions/${revoked.id}`, { method: "DELETE" })).status).toBe(200);
  expect(await first.closed).toBe(CLIENT_CLOSE.unauthorized);
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 3_600_000 });
  await runDurableObjectAlarm(stub);
  expect(await second.closed).toBe(CLIENT_CLOSE.unauthorized);
  await by.ping();
});

test("SOC-7 an idle socket sleeps with its lease, is answered heartbeats, and is told what it waits for", async () => {
  const { wallet, lease, stub } = await funded();
  const client = await connected(wallet, lease);
  // As long as names may be, and as many as may be under way: all of it outlives the sleep.
  const name = (n: number) => `n${n}`.padEnd(64, "x");
  const requests = Array.from({ length: 64 }, (_, n) => asked(n % 10, { max_price: "1" }));
  client.say({ t: "batch", id: name(0), requests });
  for (let n = 0; n < 64; n += 1) await client.next("accepted");
  for (let n = 1; n <= MOST_UNDER_WAY - 64; n += 1) {
    client.say({ t: "job", id: name(n), request: requests[n % 64] });
    await client.next("accepted");
  }
  await evictDurableObject(stub);
  await client.ping();
  const agent = await DataLine.dial(lease);
  agent.succeeded(await agent.run());
  expect(await client.end()).toMatchObject({ t: "result", id: name(0), index: 0 });
});

test("SOC-8 when the lease is over its sockets are closed", async () => {
  const { wallet, lease, stub } = await quotedTo();
  const client = await connected(wallet, lease);
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 3_600_000 });
  await runDurableObjectAlarm(stub);
  expect(await client.closed).toBe(CLIENT_CLOSE.gone);
});
