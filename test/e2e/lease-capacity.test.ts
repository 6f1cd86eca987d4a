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

/** LSE-12: all that the lease tells until it is over, vouchers apart. */
async function follow(lease: string): Promise<string[]> {
  const told: string[] = [];
  for await (const { type, data } of client.leases.events(lease))
    if (type === "status" || type === "capacity")
      told.push(`${type} ${type === "status" ? data.status : data.warm}`);
    else if (type !== "voucher") told.push(type);
  return told;
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
  const followed = follow(first);
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
  const told = await followed;
  expect(told.slice(0, 3)).toEqual(["status funding", "funded", "status active"]);
  expect(told).toContain("node_back");
  // With nothing to keep it warm it may also have rested before its first job.
  const capacity = told.filter((each) => each.startsWith("capacity"));
  expect(capacity.length).toBeGreaterThanOrEqual(3);
  expect(capacity).toEqual(capacity.map((_, turn) => `capacity ${turn % 2 === 1}`));
  const statuses = told.filter((each) => each.startsWith("status"));
  expect(statuses.slice(-2)).toEqual(["status closing", "status closed"]);
  expect(told.at(-1)).toBe("status closed");
  const jobs = await found(client, [one.id, two.id, three.id]);
  for (const id of [first, second])
    await checkPapers(
      market,
      await client.leases.get(id),
      jobs.filter((each) => each.lease_id === id),
    );
  await checkChain(market, before, jobs);
});
