import type { Client } from "@gpux/sdk";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Balances } from "../../scripts/stack/balances.ts";
import { checkChain, checkPapers, found } from "./testing/books.ts";
import { type Market, openMarket, publish, smallProduct, until } from "./testing/market.ts";

/** SPEC LSE-9 with a real agent: one GPU, two leases that are both open. */
let market: Market;
let client: Client;
let before: Balances;

beforeAll(async () => {
  market = await openMarket();
  client = market.client();
  before = await market.ledger.balances();
});
afterAll(() => market?.stop());

async function open(keepWarmS: number): Promise<string> {
  const quote = await client.quotes.create({ keepWarmS, amount: 500_000n });
  const lease = await client.leases.open(quote, { keepWarmS });
  return lease.id;
}

async function freeGpus(): Promise<number> {
  for await (const node of client.nodes.list()) return node.gpus_free;
  return 0;
}

it("LSE-9 two leases take turns on one GPU: who has no work leaves it to the other, and waits for it again", async () => {
  const matmul = await publish(client, "matmul");
  const job = (lease: string, scale: number) => ({
    function: matmul,
    inputs: smallProduct(scale),
    max_price: 10_000n,
    lease,
  });
  const first = await open(0);
  const one = await client.jobs.wait((await client.jobs.create(job(first, 1))).id);
  expect(one.status).toBe("succeeded");
  await until(async () => (await freeGpus()) === 1, "the first lease has left its GPU to others");
  expect(await client.leases.get(first)).toMatchObject({ status: "active", warm: false });

  const second = await open(3_600);
  const waiting = await client.jobs.create(job(first, 2));
  await until(
    async () => (await client.jobs.get(waiting.id)).wait?.blockers.gpus === 1,
    "the first lease's next job waits for the GPU that the second has",
  );
  const two = await client.jobs.wait((await client.jobs.create(job(second, 3))).id);
  expect(two.status).toBe("succeeded");
  await client.leases.close(second);

  const three = await client.jobs.wait(waiting.id);
  expect(three).toMatchObject({ status: "succeeded", attempts: [{ n: 1, outcome: "succeeded" }] });
  await until(async () => (await freeGpus()) === 1, "the first lease has no work again");
  await market.close(client, first);
  const jobs = await found(client, [one.id, two.id, three.id]);
  for (const id of [first, second])
    await checkPapers(
      market,
      await client.leases.get(id),
      jobs.filter((each) => each.lease_id === id),
    );
  await checkChain(market, before, jobs);
});
