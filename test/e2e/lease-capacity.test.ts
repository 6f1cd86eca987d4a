import type { TickView } from "@gpux/protocol/lease";
import type { Client } from "@gpux/sdk";
import { afterAll, beforeAll, expect, it } from "vitest";
import { checkChain, checkPapers, found } from "./testing/books.ts";
import { type Market, openMarket, publish, smallProduct, sumOf, until } from "./testing/market.ts";

/** SPEC LSE-9 and MTR-9 to MTR-11 with a real agent, which has one GPU. */
let market: Market;
let client: Client;

beforeAll(async () => {
  market = await openMarket();
  client = market.client();
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
  const before = await market.ledger.balances();
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

/** All that is billed of a lease that is over. */
async function ticksOf(lease: string): Promise<TickView[]> {
  const ticks: TickView[] = [];
  for await (const tick of client.leases.ticks(lease)) ticks.push(tick);
  return ticks;
}

const asked = { mode: "dedicated", extendableS: 3_600 } as const;

/** A dedicated lease; at the node's 0.60 USDC an hour a base unit pays for six milliseconds. */
async function reserve(amount: bigint): Promise<string> {
  const quote = await client.quotes.create({ ...asked, amount });
  return (await client.leases.open(quote, asked)).id;
}

it("MTR-9 a dedicated lease is paid by the clock, its jobs are free, and the chain pays what its ticks say", async () => {
  const before = await market.ledger.balances();
  const matmul = await publish(client, "matmul");
  const lease = await reserve(100_000n);
  const work = { function: matmul, inputs: smallProduct(5), max_price: 0n, lease };
  const job = await client.jobs.wait((await client.jobs.create(work)).id);
  expect(job).toMatchObject({ status: "succeeded", price: 0n });
  const { ends_at } = await client.leases.get(lease);
  const extended = await client.leases.extend(lease, 600, { amount: 5_000n });
  expect(Date.parse(extended.ends_at ?? "") - Date.parse(ends_at ?? "")).toBe(600_000);
  await market.close(client, lease);

  const closed = await client.leases.get(lease);
  const ticks = await ticksOf(lease);
  expect(closed.end).toMatchObject({ reason: "closed_by_consumer" });
  // What ran was served, and the agent's clock was the lesser all the while.
  expect(closed.billed_ms).toBeGreaterThanOrEqual(job.billed_ms);
  expect(closed.spent).toBe(sumOf(ticks));
  const jobs = await found(client, [job.id]);
  const receipts = await checkPapers(market, closed, jobs, ticks);
  expect(receipts.map(({ price }) => price > 0n)).toEqual([false, true]);
  await checkChain(market, before, ticks);
});

it("MTR-11 a dedicated lease ends by itself when its money is used up, and everybody has theirs", async () => {
  const before = await market.ledger.balances();
  // Six seconds.
  const lease = await reserve(1_000n);
  const told: string[] = [];
  for await (const { type, data } of client.leases.events(lease))
    told.push(type === "status" ? `${type} ${data.status}` : type);
  expect(told.filter((each) => !["voucher", "node_back", "node_away"].includes(each))).toEqual([
    "status funding",
    "funded",
    "status active",
    "low_balance",
    "status draining",
    "tick",
    "status closing",
    "status closed",
  ]);
  await until(async () => (await market.ledger.owed()) === 0n, "everybody is paid out");
  const closed = await client.leases.get(lease);
  const ticks = await ticksOf(lease);
  expect(closed.end).toMatchObject({ reason: "funds_spent", fault: "tenant" });
  expect(closed.spent).toBeLessThanOrEqual(1_000n);
  await checkPapers(market, closed, [], ticks);
  await checkChain(market, before, ticks);
});
