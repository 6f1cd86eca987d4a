import type { Client } from "@gpux/sdk";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Balances } from "../../scripts/stack/balances.ts";
import { checkChain, checkPapers, found } from "./testing/books.ts";
import { leavingClient } from "./testing/leaving-client.ts";
import { type Market, openMarket, publish, smallProduct, until } from "./testing/market.ts";

const DEPOSIT = 500_000n;
const TOP_UP = 100_000n;

/** SPEC ACK-1 to ACK-3: who leaves before an answer, at whatever step, asks again and finds that it happened once. */
describe("a client that disconnects at each step", { timeout: 300_000 }, () => {
  const { fetch, left } = leavingClient();
  let market: Market;
  let client: Client;
  let before: Balances;
  let function_: string;
  let lease: string;
  const jobs: string[] = [];

  beforeAll(async () => {
    market = await openMarket();
    client = market.client({ fetch, maxRetries: 30 });
    before = await market.ledger.balances();
  }, 300_000);
  afterAll(() => market?.stop());

  const freeGpus = async () => {
    for await (const node of client.nodes.list()) return node.gpus_free;
    return null;
  };

  it("uploads: the object is there whole", async () => {
    function_ = await publish(client, "matmul");
  });

  it("QTE-1 quotes: what was held for nobody comes free by itself, and then holds for who asks again", async () => {
    const quote = await client.quotes.create({ amount: DEPOSIT });
    expect(await freeGpus(), "one hold, of the quote that arrived").toBe(0);
    lease = quote.lease_id;
    await client.leases.open(quote);
  });

  it("LSE-2 LSE-8 funds and tops up: once", async () => {
    await client.leases.topUp(lease, TOP_UP);
    await until(async () => {
      const { status, funded } = await client.leases.get(lease);
      return status === "active" && funded === DEPOSIT + TOP_UP;
    }, "the lease has what was signed for it, and no more");
    const { transactions } = await client.leases.get(lease);
    expect(transactions.map(({ kind }) => kind)).toEqual(["fund", "fund"]);
  });

  it("ACK-3 sends jobs, waits, reads events and outputs: each job is one, and runs once", async () => {
    const work = (scale: number) => ({
      function: function_,
      inputs: smallProduct(scale),
      max_price: 20_000n,
    });
    const one = await client.jobs.run({ ...work(2), lease });
    const { id } = await client.jobs.create({ ...work(3), lease });
    const types: string[] = [];
    for await (const { type } of client.jobs.events(id)) types.push(type);
    expect(types.filter((type) => type === "status").length).toBeGreaterThanOrEqual(2);
    const two = await client.jobs.wait(id);
    const batch = await client.jobs.batch(lease, [work(4), work(5)], { wait: 60 });
    jobs.push(one.id, two.id, ...batch.map((each) => each.id));
    const ended = await found(client, jobs);
    for (const each of ended)
      expect(each).toMatchObject({ status: "succeeded", attempts: [{ n: 1, outcome: "succeeded" }] });
    const [first] = ended;
    if (first === undefined) throw new Error("four jobs were sent");
    expect([...new Float32Array((await client.jobs.output(first, 0)).buffer)]).toEqual([2, 4, 6, 8]);
    expect(await client.leases.get(lease)).toMatchObject({ jobs_ended: jobs.length, jobs_open: 0 });
  });

  it("JOB-7 cancels and does again: what has ended stays ended, and one retry is one job", async () => {
    const [first = ""] = jobs;
    await expect(client.jobs.cancel(first)).rejects.toMatchObject({ code: "job_ended" });
    const again = await client.jobs.wait((await client.jobs.retry(first)).id);
    expect(again).toMatchObject({ status: "succeeded" });
    jobs.push(again.id);
    expect(await client.leases.get(lease)).toMatchObject({ jobs_ended: jobs.length, jobs_open: 0 });
  });

  it("MON-5 closes: everybody has theirs, to the base unit, and the GPU is free", async () => {
    await market.close(client, lease);
    const ended = await found(client, jobs);
    await checkPapers(market, await client.leases.get(lease), ended);
    await checkChain(market, before, ended);
    await until(async () => (await freeGpus()) === 1, "the GPU is free again");
    // Each of these was left three times before one of them was answered.
    const steps = new Set(left.map((each) => each.replaceAll(/(lse|job)_[a-z0-9_]+|[0-9a-f]{64}/g, "{}")));
    for (const step of [
      "PUT /v1/objects/{}",
      "POST /v1/quotes",
      "POST /v1/leases",
      "POST /v1/leases/{}/topup",
      "POST /v1/leases/{}/jobs",
      "GET /v1/jobs/{}",
      "GET /v1/jobs/{}/events",
      "GET /v1/jobs/{}/outputs/0",
      "POST /v1/jobs/{}/cancel",
      "POST /v1/jobs/{}/retry",
      "POST /v1/leases/{}/close",
    ])
      expect(steps).toContain(step);
    expect(left.length % 3, "no request was answered before it was left three times").toBe(0);
  });
});
