import { evictDurableObject, runDurableObjectAlarm, SELF } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { type Account, addressOf, CHAIN_ID, call, newAccount } from "@gpux/durable-objects/testing/client";
import { ECHO } from "@gpux/durable-objects/testing/echo";
import { store } from "@gpux/durable-objects/testing/functions";
import { offerOf, ScriptedAgent } from "@gpux/durable-objects/testing/scripted-agent";
import { openSession, sessionRequest, type TestSession } from "@gpux/durable-objects/testing/session";
import { digest, escrowDomain } from "@gpux/protocol/eip712";
import type { SignOptions } from "@gpux/protocol/http-signature/erc8128";
import { signSessionRequest } from "@gpux/protocol/http-signature/session";
import { createSeal } from "@gpux/protocol/http-signature/session-token";
import { Quote } from "@gpux/protocol/lease";
import type { SessionGrant } from "@gpux/protocol/session";
import { beforeAll, describe, expect, test } from "vitest";

const MODEL = "SESSIONS_TEST";
/** SHA-256 of no bytes. */
const NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const wallet = newAccount();
let agent: ScriptedAgent;
let quote: Quote;
let other: Quote;
let echo = "";

/** A lease whose funding the chain has not seen yet: it takes jobs, which wait. */
async function lease(by: Account): Promise<Quote> {
  const asking = call(by, "/v1/quotes", { json: { demand: { gpu_model: MODEL } } });
  await agent.confirm();
  const quoted = Quote.parse(await (await asking).json());
  const funding = {
    amount: quoted.amount.toString(),
    salt: `0x${"5a".repeat(32)}`,
    valid_before: Math.floor(Date.now() / 1000) + 600,
    signature: `0x${"11".repeat(65)}`,
  };
  const opened = await call(by, "/v1/leases", { json: { lease: quoted.lease_id, funding } });
  expect(opened.status).toBe(201);
  return quoted;
}

beforeAll(async () => {
  agent = await ScriptedAgent.listed(offerOf(MODEL, { gpus: 2 }));
  quote = await lease(wallet);
  other = await lease(wallet);
  echo = await store(wallet, ECHO);
});

async function job(on: Quote, maxPrice = "1000") {
  const domain = escrowDomain({ chainId: CHAIN_ID, escrow: on.settlement.escrow });
  const cumulative = 500_000n;
  const hash = digest(domain, "Allowance", { leaseId: on.lease_hash, cumulative });
  const allowance = { cumulative: cumulative.toString(), signature: await wallet.sign({ hash }) };
  return { function: echo, inputs: { value: { number: 1 } }, max_price: maxPrice, allowance };
}

async function answer(response: Response | Promise<Response>) {
  const { status } = await response;
  const body: Record<string, unknown> = await (await response).json();
  return { status, body };
}
const codeOf = async (response: Response | Promise<Response>) => (await answer(response)).body.code;
const jobsOf = (on: Quote) => `/v1/leases/${on.lease_id}/jobs`;
const submit = async (by: TestSession, on: Quote, maxPrice?: string) =>
  answer(by.call(jobsOf(on), { json: await job(on, maxPrice) }));
const revoke = (id: string, by: Account = wallet) =>
  answer(call(by, `/v1/sessions/${id}`, { method: "DELETE" }));
const mine = async (id: string) => {
  const { body } = await answer(call(wallet, "/v1/sessions"));
  const sessions: { id: string }[] = Array.isArray(body.data) ? body.data : [];
  return sessions.find((each) => each.id === id);
};

describe.each(["Ed25519", "P-256", "HMAC"] as const)("SES-1 a session with a key for %s", (kind) => {
  test("acts for the wallet that opened it, on the warm and on the routed path", async () => {
    const session = await openSession(wallet, {}, kind);
    expect("secret" in session.view).toBe(kind === "HMAC");
    const first = await submit(session, quote);
    expect([first.status, first.body]).toMatchObject([202, { lease_id: quote.lease_id }]);
    expect((await answer(session.call(`/v1/jobs/${first.body.id}`))).body.id).toBe(first.body.id);
    const routed = await answer(
      session.call("/v1/jobs", { json: { ...(await job(quote)), lease: quote.lease_id } }),
    );
    expect([routed.status, routed.body]).toMatchObject([202, { lease_id: quote.lease_id }]);
    expect((await answer(session.call("/v1/leases"))).body.data).toHaveLength(2);
  });
});

test("SES-2 a session does what its scopes say and nothing else", async () => {
  const reader = await openSession(wallet, { scopes: ["read"] });
  expect(await answer(submitAs(reader))).toMatchObject({
    status: 403,
    body: { code: "scope_missing", detail: "the scope jobs" },
  });
  const worker = await openSession(wallet, { scopes: ["jobs"] });
  for (const [path, sent] of [
    ["/v1/leases", {}],
    [`/v1/leases/${quote.lease_id}`, {}],
    ["/v1/quotes", { json: { demand: { gpu_model: MODEL } } }],
    [`/v1/leases/${quote.lease_id}/close`, { method: "POST" }],
    ["/v1/sessions", {}],
  ] as const)
    expect(await codeOf(worker.call(path, sent)), path).toBe("scope_missing");
});

async function submitAs(by: TestSession): Promise<Response> {
  return by.call(jobsOf(quote), { json: await job(quote) });
}

test("SES-2 a session opens no session and revokes no other", async () => {
  const all = await openSession(wallet, { scopes: ["read", "jobs", "quotes", "leases"] });
  const made = all.call("/v1/sessions", { json: sessionRequest(all.view.key) });
  expect(await codeOf(made)).toBe("scope_missing");
  const second = await openSession(wallet);
  expect(await codeOf(all.call(`/v1/sessions/${second.id}`, { method: "DELETE" }))).toBe("scope_missing");
  expect((await submit(second, quote)).status).toBe(202);
});

test("SES-3 a session is its wallet's: another's leases stay closed to it, and another cannot revoke it", async () => {
  const stranger = newAccount();
  const session = await openSession(stranger);
  expect(await submit(session, quote)).toMatchObject({ status: 403, body: { code: "forbidden" } });
  const ours = await openSession(wallet);
  expect(await revoke(ours.id, stranger)).toMatchObject({ status: 404, body: { code: "session_unknown" } });
  expect((await submit(ours, quote)).status).toBe(202);
});

test.each([
  ["another host", { audience: "elsewhere.test" }],
  ["another chain", { chain_id: 1 }],
  ["no scope", { scopes: [] }],
  ["a scope twice", { scopes: ["read", "read"] }],
  ["a scope that there is not", { scopes: ["everything"] }],
  ["more than a week", { expires_at: new Date(Date.now() + 8 * 86_400_000).toISOString() }],
  ["the past", { expires_at: new Date(Date.now() - 1_000).toISOString() }],
  ["a cap that is a float", { cap: "1.5" }],
  ["a point off its curve", { key: { kty: "EC", crv: "P-256", x: "A".repeat(43), y: "A".repeat(43) } }],
  ["a private key in it", { key: { kty: "OKP", crv: "Ed25519", x: "A".repeat(43), d: "A".repeat(43) } }],
  ["an HMAC secret of the client's own", { key: { kty: "oct", k: "A".repeat(43) } }],
  ["HMAC with a scope for money", { key: { kty: "oct" }, scopes: ["leases"] }],
])("SES-4 no session is opened for %s", async (_, change) => {
  const asker = newAccount();
  const request = sessionRequest({ kty: "OKP", crv: "Ed25519", x: "A".repeat(43) }, change);
  expect(await answer(call(asker, "/v1/sessions", { json: request }))).toMatchObject({
    status: 422,
    body: { code: "invalid_request" },
  });
  expect((await answer(call(asker, "/v1/sessions"))).body.data).toEqual([]);
});

test("SES-4 a wallet has so many sessions and no more", async () => {
  const busy = newAccount();
  for (let n = 0; n < 64; n += 1) await openSession(busy, {}, "HMAC");
  expect(await codeOf(call(busy, "/v1/sessions", { json: sessionRequest({ kty: "oct" }) }))).toBe(
    "too_many_sessions",
  );
});

describe("SES-5 the cap", () => {
  test("holds over all leases together: what one has not used, another may", async () => {
    const session = await openSession(wallet, { cap: "10000" });
    expect((await submit(session, quote, "4000")).status).toBe(202);
    expect((await submit(session, other, "4000")).status).toBe(202);
    expect(await submit(session, quote, "4000")).toMatchObject({
      status: 402,
      body: { code: "session_cap_exceeded" },
    });
    // 2,000 are left, wherever they were set aside.
    expect((await submit(session, other, "1000")).status).toBe(202);
    expect((await submit(session, quote, "1000")).status).toBe(202);
    expect((await submit(session, quote, "1")).body.code).toBe("session_cap_exceeded");
    expect(await mine(session.id)).toMatchObject({ cap: "10000", reserved: "10000" });
  });

  test("is not got around by many requests at once, nor by an eviction", async () => {
    const session = await openSession(wallet, { cap: "5000" });
    const tries = await Promise.all(
      Array.from({ length: 16 }, (_, n) => submit(session, n % 2 === 0 ? quote : other, "1000")),
    );
    expect(tries.filter(({ status }) => status === 202).length).toBeLessThanOrEqual(5);
    await evictDurableObject(env.ACCOUNT.getByName(addressOf(wallet)));
    let more = 0;
    for (let n = 0; n < 8; n += 1) if ((await submit(session, quote, "1000")).status === 202) more += 1;
    expect(tries.filter(({ status }) => status === 202).length + more).toBe(5);
    expect(await mine(session.id)).toMatchObject({ reserved: "5000" });
  });

  test("holds for an array of jobs by their sum: all are taken or none", async () => {
    const session = await openSession(wallet, { cap: "3000" });
    const both = async (...prices: string[]) =>
      answer(
        session.call(jobsOf(quote), { json: await Promise.all(prices.map((price) => job(quote, price))) }),
      );
    expect(await both("2000", "1001")).toMatchObject({ status: 402, body: { code: "session_cap_exceeded" } });
    expect((await both("2000", "900")).status).toBe(202);
    expect((await submit(session, quote, "101")).body.code).toBe("session_cap_exceeded");
    expect((await submit(session, quote, "100")).status).toBe(202);
  });

  test("comes back when a job costs less than it might have", async () => {
    const session = await openSession(wallet, { cap: "1000" });
    const { body } = await submit(session, quote, "1000");
    expect((await submit(session, other, "1000")).body.code).toBe("session_cap_exceeded");
    expect((await answer(session.call(`/v1/jobs/${body.id}/cancel`, { method: "POST" }))).status).toBe(200);
    expect((await submit(session, other, "1000")).status).toBe(202);
    expect((await submit(session, quote, "1000")).body.code).toBe("session_cap_exceeded");
  });

  test("is no matter of reading", async () => {
    const session = await openSession(wallet, { cap: "0" });
    expect((await answer(session.call(`/v1/leases/${quote.lease_id}`))).status).toBe(200);
    expect((await submit(session, quote, "1")).body.code).toBe("session_cap_exceeded");
  });
});

describe("SES-6 a revoked session", () => {
  test("is refused at every lease and at the account at once, also after an eviction of the account", async () => {
    const session = await openSession(wallet);
    const { body: submitted } = await submit(session, quote);
    expect(await submit(session, other)).toMatchObject({ status: 202 });
    expect((await revoke(session.id)).body).toMatchObject({
      untold_leases: 0,
      revoked_at: expect.any(String),
    });
    for (const on of [quote, other])
      expect(await submit(session, on)).toMatchObject({ status: 401, body: { code: "session_revoked" } });
    await evictDurableObject(env.ACCOUNT.getByName(addressOf(wallet)));
    for (const [path, sent] of [
      ["/v1/leases", {}],
      [`/v1/jobs/${submitted.id}`, {}],
      [`/v1/jobs/${submitted.id}/events`, {}],
      ["/v1/jobs", { json: await job(quote) }],
      [jobsOf(quote), { json: await job(quote) }],
      ["/v1/sessions", {}],
      [`/v1/objects/${NOTHING}`, { method: "PUT", body: "", headers: { "content-length": "0" } }],
    ] as const)
      expect(await codeOf(session.call(path, sent)), path).toBe("session_revoked");
  });

  test("is not let in by a lease that has never heard of it", async () => {
    const session = await openSession(wallet);
    await revoke(session.id);
    expect((await submit(session, quote)).body.code).toBe("session_revoked");
  });

  test("revokes itself, and once is as often as you like", async () => {
    const session = await openSession(wallet);
    expect((await submit(session, quote)).status).toBe(202);
    expect((await answer(session.call(`/v1/sessions/${session.id}`, { method: "DELETE" }))).status).toBe(200);
    expect((await submit(session, quote)).body.code).toBe("session_revoked");
    expect((await revoke(session.id)).status).toBe(200);
    // The alarm that stands by finds nobody left to tell.
    await runDurableObjectAlarm(env.ACCOUNT.getByName(addressOf(wallet)));
    expect(await mine(session.id)).toMatchObject({ untold_leases: 0 });
  });
});

test("SES-7 a nonce is good once, and two sessions of a wallet may use the same", async () => {
  const a = await openSession(wallet);
  const b = await openSession(wallet);
  const once: SignOptions = { nonce: "the-same-nonce" };
  const send = async (by: TestSession) =>
    SELF.fetch(await by.request(jobsOf(quote), { json: await job(quote) }, once));
  const first = await answer(send(a));
  expect(first.status).toBe(202);
  // On the warm path a replay is the same job.
  expect(await answer(send(a))).toMatchObject({ status: 200, body: { id: first.body.id } });
  const second = await answer(send(b));
  expect(second.status).toBe(202);
  expect(second.body.id).not.toBe(first.body.id);

  const routed = { json: await job(quote) };
  const fixed = await a.request("/v1/jobs", routed, { nonce: "routed-nonce-1" });
  expect((await SELF.fetch(fixed.clone())).status).toBe(202);
  expect(await codeOf(SELF.fetch(fixed))).toBe("signature_replayed");
});

describe("SES-8 a request of a session that is not quite its own", () => {
  const paths = () => jobsOf(quote);
  async function refused(request: Promise<Request>, code: string) {
    const before = await mineJobs();
    expect(await codeOf(SELF.fetch(await request))).toBe(code);
    expect(await mineJobs()).toBe(before);
  }
  const mineJobs = async () => {
    const view = await answer(call(wallet, `/v1/leases/${quote.lease_id}`));
    return JSON.stringify(view.body);
  };
  const grantOf = (session: TestSession, change: object): SessionGrant => ({
    v: 1,
    id: session.view.id,
    address: addressOf(wallet),
    key: session.view.key,
    scopes: ["read", "jobs"],
    cap: 1_000_000n,
    expires: Math.floor(Date.now() / 1_000) + 3_600,
    audience: "edge.test",
    chain: CHAIN_ID,
    ...change,
  });
  const here = createSeal(`test:${"5e".repeat(32)}`);

  test("signed by another session's key", async () => {
    const a = await openSession(wallet);
    const b = await openSession(wallet);
    await refused(signed({ ...a, sign: b.sign }), "signature_invalid");
    await refused(signed({ ...a, token: b.token }), "session_invalid");
  });

  test("with a token of an edge that has other secrets", async () => {
    const session = await openSession(wallet);
    const token = await createSeal(`test:${"00".repeat(32)}`).seal(grantOf(session, {}));
    await refused(signed({ ...session, token }), "session_invalid");
  });

  test.each([
    ["another audience", { audience: "elsewhere.test" }, "session_invalid"],
    ["another chain", { chain: 1 }, "session_invalid"],
    ["an end that has passed", { expires: Math.floor(Date.now() / 1_000) }, "session_expired"],
    ["no scope for it", { scopes: ["read"] }, "scope_missing"],
  ])("whose grant has %s", async (_, change, code) => {
    const session = await openSession(wallet);
    const token = await here.seal(grantOf(session, change));
    await refused(signed({ ...session, token }), code);
  });

  test("whose session its account does not know, though this edge sealed it", async () => {
    const session = await openSession(wallet);
    const id = "ses_00000000000000000000000000";
    const token = await here.seal(grantOf(session, { id }));
    await refused(signed({ ...session, id, token }), "session_revoked");
  });

  test.each([
    [-600_000, "signature_expired"],
    [600_000, "signature_not_yet_valid"],
  ])("made by a clock that is off by ten minutes (%i ms)", async (off, code) => {
    const session = await openSession(wallet);
    await refused(signed(session, { now: Date.now() + off }), code);
  });

  test("on the way in as an agent", async () => {
    const session = await openSession(wallet, { scopes: ["read", "jobs", "quotes", "leases"] });
    const connect = await session.request("/v1/agent/connect", { headers: { upgrade: "websocket" } });
    expect(await codeOf(SELF.fetch(connect))).toBe("scope_missing");
  });

  async function signed(by: TestSession, options: SignOptions = {}): Promise<Request> {
    const bare = new Request(`https://edge.test${paths()}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(await job(quote)),
    });
    return signSessionRequest(bare, by, options);
  }
});
