import { describe, expect, it } from "vitest";
import { type Client, createClient } from "./client.ts";
import { GpuxError } from "./error.ts";
import { newExportableSessionKey, readSessionKey } from "./session-key.ts";
import { consumer } from "./testing/market.ts";
import { createScriptedEdge } from "./testing/scripted-edge.ts";
import { createTestClock } from "./testing/test-clock.ts";

const URL_OF_EDGE = "https://edge.test";
const job = { function: "ab".repeat(32), inputs: { n: { number: 8 } }, max_price: 50_000n };
const HOUR_MS = 3_600_000;

function setUp() {
  const { timing } = createTestClock();
  const edge = createScriptedEdge({ now: timing.now });
  /** Messages that the account was asked to sign: each is a prompt in a browser's wallet. */
  let prompts = 0;
  const account = {
    ...consumer,
    signMessage: (message: Parameters<typeof consumer.signMessage>[0]) => {
      prompts += 1;
      return consumer.signMessage(message);
    },
  };
  const options = {
    url: URL_OF_EDGE,
    account,
    autoOpen: { maxAmount: 1_000_000n },
    fetch: edge.fetch,
    timing,
  };
  return { options, client: createClient(options), edge, timing, prompts: () => prompts };
}

const by = (edge: ReturnType<typeof createScriptedEdge>) =>
  edge.seen.map(({ route, headers }) => `${headers.has("gpux-session") ? "session" : "account"} ${route}`);

async function refusal(work: Promise<unknown>): Promise<GpuxError> {
  const error = await work.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (!(error instanceof GpuxError)) throw new Error(`no refusal but ${String(error)}`);
  return error;
}

describe("client.session", () => {
  it("asks the account once, and no more for what the session may do", async () => {
    const { client, edge, prompts } = setUp();
    await client.jobs.create(job, { wait: 5 });
    const before = prompts();
    const session = await client.session({ cap: 500_000n });
    expect(prompts()).toBe(before + 1);
    expect(edge.sessions.opened[0]).toMatchObject({
      id: session.id,
      scopes: ["read", "jobs"],
      cap: 500_000n,
    });
    const from = edge.seen.length;
    await client.jobs.create(job, { wait: 5 });
    for await (const _ of client.leases.list());
    expect(prompts()).toBe(before + 1);
    expect(
      by(edge)
        .slice(from)
        .every((line) => line.startsWith("session ")),
    ).toBe(true);
    expect(edge.seen.slice(from).map(({ signer }) => signer)).toEqual(
      edge.seen.slice(from).map(() => consumer.address.toLowerCase()),
    );
  });

  it("lets the account sign what the session has no scope for", async () => {
    const { client, edge } = setUp();
    await client.session({ cap: 1n });
    await client.jobs.create(job, { wait: 5 });
    expect(by(edge)).toEqual([
      "account GET /.well-known/gpux",
      "account POST /v1/sessions",
      "session POST /v1/jobs",
      "session POST /v1/leases",
      "account POST /v1/leases",
      "session POST /v1/jobs",
    ]);
  });

  it("is renewed by the account before its end, with a new key", async () => {
    const { client, edge, timing } = setUp();
    const first = await client.session({ cap: 500_000n, expiresIn: 7_200 });
    const reads = async () => {
      for await (const _ of client.leases.list());
    };
    await timing.sleep(HOUR_MS, undefined);
    await reads();
    expect(edge.sessions.opened).toHaveLength(1);
    await timing.sleep(HOUR_MS * 0.95, undefined);
    await Promise.all([reads(), reads(), reads()]);
    expect(edge.sessions.opened).toHaveLength(2);
    const [renewed] = edge.sessions.opened;
    expect(renewed).toMatchObject({ scopes: ["read", "jobs"], cap: 500_000n });
    expect(renewed?.key).not.toEqual(first.key.publicJwk);
    expect(by(edge).at(-1)).toBe("session GET /v1/leases");
  });

  it("serves to its end when it cannot be renewed, and then the account signs", async () => {
    const { client, edge, timing } = setUp();
    await client.session({ cap: 1n, expiresIn: 7_200 });
    for (let n = 0; n < 9; n += 1) edge.script("POST /v1/sessions", () => new Error("the network is down"));
    await timing.sleep(HOUR_MS * 1.9, undefined);
    await client.sessions.list();
    expect(by(edge).at(-1)).toBe("session GET /v1/sessions");
    await timing.sleep(HOUR_MS, undefined);
    await client.sessions.list();
    expect(by(edge).at(-1)).toBe("account GET /v1/sessions");
  });

  it("tells of a revocation once, with what to do, and then the account signs", async () => {
    const { client, edge } = setUp();
    const session = await client.session({ cap: 1n });
    edge.sessions.revoked.add(session.id);
    const error = await refusal(client.sessions.list());
    expect(error).toMatchObject({ code: "session_revoked", status: 401 });
    expect(error.hint).toContain("Open a new one");
    expect(await client.sessions.list()).toHaveLength(1);
  });

  it("is closed by the account, also from another machine", async () => {
    const { client, edge, options } = setUp();
    const session = await client.session({ cap: 1n });
    await session.close();
    expect([...edge.sessions.revoked]).toEqual([session.id]);
    await client.sessions.list();
    expect(by(edge).at(-1)).toBe("account GET /v1/sessions");
    const again = await client.session({ cap: 1n });
    const elsewhere: Client = createClient(options);
    expect(await elsewhere.sessions.close(again.id)).toMatchObject({ revoked_at: expect.any(String) });
    expect((await refusal(client.sessions.list())).code).toBe("session_revoked");
  });

  it("refuses before it asks anybody what no edge would take", async () => {
    const { client, edge, prompts } = setUp();
    expect((await refusal(client.session({ cap: -1n }))).code).toBe("request_invalid");
    expect((await refusal(client.session({ cap: 1n, scopes: [] }))).code).toBe("request_invalid");
    expect([prompts(), edge.sessions.opened.length]).toEqual([0, 0]);
  });
});

describe("a session's key", () => {
  it("goes on elsewhere when it was made to be kept", async () => {
    const { client, edge, options } = setUp();
    const key = await newExportableSessionKey();
    const { id, token, expiresAt } = await client.session({ cap: 1n, key });
    const kept = { id, token, expiresAt, key: await readSessionKey(key.privateJwk) };
    const silent = {
      ...options.account,
      signMessage: () => Promise.reject(new Error("nobody is there to sign")),
    };
    const later = createClient({ ...options, account: silent, session: kept });
    expect(await later.sessions.list()).toHaveLength(1);
    expect(by(edge).at(-1)).toBe("session GET /v1/sessions");
  });

  it("cannot be read out otherwise", async () => {
    const { client } = setUp();
    const session = await client.session({ cap: 1n });
    expect(JSON.stringify(session.key)).not.toContain('"d"');
    await expect(readSessionKey(JSON.stringify({ kty: "oct", k: "AAAA" }))).rejects.toThrow();
  });
});
