import type { Client } from "@gpux/sdk";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Balances } from "../../scripts/stack/balances.ts";
import { checkChain, checkPapers, found } from "./testing/books.ts";
import { type Market, openMarket, publish, smallProduct, until } from "./testing/market.ts";

/** SPEC MTR-12 on the real stack: an agent that asks for starts, the meter and the escrow. */
const START = 50_000n;

let market: Market;
let client: Client;
let before: Balances;
let matmul: string;

beforeAll(async () => {
  market = await openMarket({ config: { start_price: "0.05" } });
  client = market.client();
  before = await market.ledger.balances();
  matmul = await publish(client, "matmul");
}, 300_000);
afterAll(() => market?.stop());

it("MTR-12 a serverless lease pays its start with its first job, and the chain pays it out", async () => {
  const { data } = await client.offers.search({});
  expect(data).toMatchObject([{ start_price: START, start_usd: "0.05" }]);
  const quote = await client.quotes.create({ keepWarmS: 0 });
  expect(quote.text.start_price).toBe("50000");
  const { id: lease } = await client.leases.open(quote, { keepWarmS: 0 });
  const run = (scale: number, max_price: bigint) =>
    client.jobs.run({ function: matmul, inputs: smallProduct(scale), max_price, lease });
  const short = await run(2, START - 1n);
  expect(short.price, "it does not reach the start, so no time is paid for").toBe(0n);
  const first = await run(3, 100_000n);
  expect(first).toMatchObject({ status: "succeeded" });
  expect(first.price).toBeGreaterThan(START);
  // It rests between the two: that is no start.
  await until(async () => !(await client.leases.get(lease)).warm, "the lease rests");
  const second = await run(4, 100_000n);
  expect(second.price).toBeLessThan(START);
  await market.close(client, lease);
  const jobs = await found(client, [short.id, first.id, second.id]);
  await checkPapers(market, await client.leases.get(lease), jobs);
  await checkChain(market, before, jobs);
});

it("MTR-12 a dedicated lease pays its start with its first tick, and no more than its money", async () => {
  before = await market.ledger.balances();
  const quote = await client.quotes.create({ mode: "dedicated", amount: START + 1_000n });
  const { id: lease } = await client.leases.open(quote, { mode: "dedicated" });
  await until(
    async () => (await client.leases.get(lease)).status === "closed" && (await market.ledger.owed()) === 0n,
    "its money is used up and paid out",
  );
  const closed = await client.leases.get(lease);
  expect(closed.end).toMatchObject({ reason: "funds_spent" });
  expect(closed.spent).toBeGreaterThan(START);
  expect(closed.spent).toBeLessThanOrEqual(START + 1_000n);
  const ticks = [];
  for await (const tick of client.leases.ticks(lease)) ticks.push(tick);
  await checkPapers(market, closed, [], ticks);
  await checkChain(market, before, ticks);
});
