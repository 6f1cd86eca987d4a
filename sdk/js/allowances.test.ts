import { LeaseView } from "@gpux/protocol/lease";
import { describe, expect, it } from "vitest";
import type { Account } from "./account.ts";
import { type ClientOptions, createClient } from "./client.ts";
import { consumer, quoteAt } from "./testing/market.ts";
import { createScriptedEdge, refuse, type Seen } from "./testing/scripted-edge.ts";
import { createScriptedDial } from "./testing/scripted-socket.ts";
import { createTestClock } from "./testing/test-clock.ts";

const URL_OF_EDGE = "https://edge.test";
/** When a test clock starts. */
const QUOTED_AT = "2026-11-22T12:00:00Z";
const request = { function: "ab".repeat(32), inputs: { n: { number: 8 } }, max_price: 500n };

/** The consumer's wallet, with what it was asked to allow in its order; it refuses while `refuses` is true. */
function createWallet() {
  const asked: bigint[] = [];
  const wallet = { asked, refuses: false, account: consumer as Account };
  const signTypedData: Account["signTypedData"] = async (typedData) => {
    const { primaryType, message } = typedData as { primaryType: string; message: { cumulative: bigint } };
    if (primaryType === "Allowance") {
      asked.push(message.cumulative);
      if (wallet.refuses) throw new Error("the user said no");
    }
    return consumer.signTypedData(typedData);
  };
  wallet.account = { ...consumer, signTypedData };
  return wallet;
}

/** A client with a lease of 900,000 base units; each job of at most 500 uses 400 of them. */
async function setUp(options: Partial<ClientOptions> = {}) {
  const { timing } = createTestClock();
  const edge = createScriptedEdge({ now: timing.now });
  edge.price = 400n;
  const wallet = createWallet();
  const { dial, next } = createScriptedDial();
  const shared = { url: URL_OF_EDGE, account: wallet.account, fetch: edge.fetch, timing, dial };
  const client = createClient({ ...shared, ...options });
  const quote = await client.quotes.create();
  await client.leases.open(quote);
  return {
    client,
    edge,
    wallet,
    shared,
    next,
    id: quote.lease_id,
    path: `POST /v1/leases/${quote.lease_id}/jobs`,
  };
}

const times = (count: number) => Array.from({ length: count }, (_, n) => n);
const brought = ({ body }: Seen) => BigInt(/"cumulative":"(\d+)"/.exec(body)?.[1] ?? "0");

describe("ALW-1 a block of spending is allowed at once", () => {
  it("asks the wallet three times for a hundred jobs in sequence", async () => {
    const { client, edge, wallet } = await setUp();
    for (const _ of times(100)) await client.jobs.create(request, { wait: 5 });
    expect(edge.jobs.size).toBe(100);
    // 32 jobs ahead; then as much as had been spent: 41 jobs' 16,400, 83 jobs' 33,200.
    expect(wallet.asked).toEqual([500n + 16_000n, 16_900n + 16_400n, 33_700n + 33_200n]);
    expect(edge.seen.filter((each) => each.route.endsWith("/jobs")).every((each) => brought(each) > 0n)).toBe(
      true,
    );
  });

  it("asks it once for twenty jobs at once, under which all are taken", async () => {
    const { client, edge, wallet } = await setUp();
    await Promise.all(times(20).map(() => client.jobs.create(request)));
    expect(edge.jobs.size).toBe(20);
    expect(wallet.asked).toEqual([16_500n]);
  });

  it("asks it three times for eighty at once, each time for those that the last did not cover", async () => {
    const { client, edge, wallet } = await setUp();
    await Promise.all(times(80).map(() => client.jobs.create(request)));
    expect(edge.jobs.size).toBe(80);
    expect(wallet.asked).toEqual([16_500n, 33_000n, 49_500n]);
  });

  it("goes as far as was asked for, by the client or by one call, and with 0n for each job by itself", async () => {
    const { client, wallet } = await setUp({ allowAhead: 2_000n });
    await client.jobs.create(request, { wait: 5 });
    await client.jobs.create({ ...request, max_price: 5_000n }, { wait: 5, allowAhead: 7n });
    expect(wallet.asked).toEqual([2_500n, 5_407n]);

    const alone = await setUp({ allowAhead: 0n });
    await Promise.all(times(20).map(() => alone.client.jobs.create(request)));
    expect(alone.wallet.asked).toEqual(times(20).map((n) => BigInt(n + 1) * 500n));
    expect(alone.edge.jobs.size).toBe(20);
  });

  it("takes less than nothing ahead for nothing", async () => {
    const { client, wallet } = await setUp({ allowAhead: -100n });
    await client.jobs.create(request, { wait: 5 });
    expect(wallet.asked).toEqual([500n]);
  });

  it("never goes above what the lease was funded with, nor above the caller's limit", async () => {
    const dear = { ...request, max_price: 100_000n };
    const { client, edge, wallet } = await setUp();
    await client.jobs.create(dear, { wait: 5 });
    expect(wallet.asked).toEqual([edge.lease?.amount]);
    const limited = await setUp({ spendLimit: 150_000n });
    await limited.client.jobs.create(dear, { wait: 5 });
    expect(limited.wallet.asked).toEqual([150_000n]);
    await expect(limited.client.jobs.create({ ...request, max_price: 149_601n })).rejects.toMatchObject({
      code: "spend_limit",
    });
    expect(limited.wallet.asked).toHaveLength(1);
  });
});

describe("ALW-2 what was signed is remembered, for each lease by itself", () => {
  it("serves jobs, batches, retries and the session socket alike", async () => {
    const { client, edge, wallet, next, id, path } = await setUp();
    const first = await client.jobs.create(request, { wait: 5 });
    await client.jobs.batch(id, [request, request], { wait: 5 });
    const retry = `POST /v1/jobs/${first.id}/retry`;
    const needed = { lease_id: id, lease_hash: edge.quote.lease_hash, cumulative: "1700" };
    edge.script(retry, () => refuse("allowance_required", { allowance: needed }));
    await client.jobs.retry(first.id);
    const opening = client.leases.session(id);
    const socket = await next();
    socket.ready(id);
    const session = await opening;
    const running = session.run(request);
    const frame = await socket.next();
    expect(frame).toMatchObject({ t: "job", request: { allowance: { cumulative: "16500" } } });
    await session.close();
    await expect(running).rejects.toMatchObject({ code: "aborted" });
    const asked = edge.seen.filter(({ route }) => route === path || route === retry);
    expect(asked.map(brought)).toEqual([16_500n, 16_500n, 0n, 16_500n]);
    expect(wallet.asked).toEqual([16_500n]);
  });

  it("is given up for more when the edge needs more, by one signature for all that were refused", async () => {
    const { client, edge, wallet, id, path } = await setUp();
    await client.jobs.create(request, { wait: 5 });
    const needed = { lease_id: id, lease_hash: edge.quote.lease_hash, cumulative: "50000" };
    // Somebody else with this key has used the lease.
    edge.script(path, ...times(10).map(() => () => refuse("allowance_required", { allowance: needed })));
    await Promise.all(times(10).map(() => client.jobs.create(request)));
    expect(edge.jobs.size).toBe(11);
    expect(wallet.asked).toHaveLength(2);
    expect(wallet.asked[1]).toBeGreaterThanOrEqual(54_500n);
  });

  it("is no reason to sign again for an edge that will not have it", async () => {
    const { client, edge, wallet, id, path } = await setUp();
    const needed = { lease_id: id, lease_hash: edge.quote.lease_hash, cumulative: "500" };
    edge.script(path, ...times(9).map(() => () => refuse("allowance_required", { allowance: needed })));
    await expect(client.jobs.create(request)).rejects.toMatchObject({ code: "allowance_required" });
    expect(wallet.asked).toEqual([16_500n]);
  });

  it("is asked for anew after the wallet has refused, once for all that waited", async () => {
    const { client, edge, wallet } = await setUp();
    wallet.refuses = true;
    const refused = await Promise.allSettled(times(20).map(() => client.jobs.create(request)));
    expect(refused.map(({ status }) => status)).toEqual(times(20).map(() => "rejected"));
    expect(wallet.asked).toHaveLength(1);
    wallet.refuses = false;
    await client.jobs.create(request);
    // Nothing of the twenty is booked any more.
    expect(wallet.asked).toEqual([16_500n, 16_500n]);
    expect(edge.jobs.size).toBe(1);
  });

  it("is taken from the edge's word on a lease that another process allowed, until that proves wrong", async () => {
    const { client, edge, shared, id, path } = await setUp();
    await client.jobs.create(request, { wait: 5 });
    const wallet = createWallet();
    const later = createClient({ ...shared, account: wallet.account });
    await later.jobs.batch(id, [request], { wait: 5 });
    await later.jobs.create(request, { wait: 5 });
    expect(edge.seen.filter(({ route }) => route === path).map(brought)).toEqual([16_500n, 0n, 0n]);
    expect(wallet.asked).toEqual([]);

    const lied = createClient({ ...shared, account: wallet.account });
    const view = LeaseView.encode(await lied.leases.get(id));
    edge.script(`GET /v1/leases/${id}`, () => Response.json({ ...view, allowance: "800000" }));
    const taken = await lied.jobs.batch(
      id,
      times(60).map(() => request),
    );
    expect(taken).toHaveLength(60);
    expect(wallet.asked).toEqual([31_200n + 16_000n]);
  });

  it("is no other lease's", async () => {
    const { client, edge, wallet, id } = await setUp();
    const create = (lease: string) => client.jobs.create({ ...request, lease }, { wait: 5 });
    await create(id);
    const before = { quote: edge.quote, lease: edge.lease };
    edge.quote = quoteAt(Date.parse(QUOTED_AT), { text: { salt: `0x${"5b".repeat(32)}` } });
    const other = await client.leases.open(edge.quote);
    await create(other.id);
    await create(other.id);
    Object.assign(edge, before);
    await create(id);
    expect(wallet.asked).toEqual([16_500n, 16_500n]);
    expect(edge.jobs.size).toBe(4);
  });
});
