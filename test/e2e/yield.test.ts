import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Client } from "@gpux/sdk";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Balances } from "../../scripts/stack/balances.ts";
import { checkChain, checkPapers, found } from "./testing/books.ts";
import { type Market, openMarket, publish, smallProduct, until } from "./testing/market.ts";

const AGENT = fileURLToPath(new URL("../../agent/bin.ts", import.meta.url));
const yieldable = { tier: "yieldable" } as const;

/** SPEC LSE-11 as an owner does it: `gpux-agent yield` while a yieldable lease has the machine's only GPU. */
let market: Market;
let client: Client;
let before: Balances;

beforeAll(async () => {
  market = await openMarket({ gpuHour: "0.60", yieldableGpuHour: "0.20" });
  client = market.client();
  before = await market.ledger.balances();
});
afterAll(() => market?.stop());

const owner = (...args: string[]) =>
  promisify(execFile)(process.execPath, [AGENT, "yield", "--dir", market.agentSetup.folder, ...args]);

it("LSE-11 a yieldable lease leaves the GPU to its owner, and goes on when he is done", async () => {
  const matmul = await publish(client, "matmul");
  const quote = await client.quotes.create({ demand: yieldable, amount: 500_000n });
  const lease = await client.leases.open(quote, { demand: yieldable });
  expect(lease.terms.ratePerHour).toBe(200_000n);
  const job = (scale: number) =>
    client.jobs.create({
      function: matmul,
      inputs: smallProduct(scale),
      max_price: 10_000n,
      lease: lease.id,
      demand: yieldable,
    });
  const one = await client.jobs.wait((await job(1)).id);
  expect(one.status).toBe("succeeded");

  await owner();
  await until(async () => !(await client.leases.get(lease.id)).warm, "the lease has given way");
  const waiting = await job(2);
  await until(
    async () => (await client.jobs.get(waiting.id)).wait?.blockers.gpus === 1,
    "its next job waits for the GPU",
  );
  await owner("--end");
  const two = await client.jobs.wait(waiting.id);
  expect(two.status).toBe("succeeded");

  const again = await client.jobs.retry(two.id);
  expect(again).toMatchObject({ retry_of: two.id, lease_id: lease.id });
  expect((await client.jobs.retry(two.id)).id).toBe(again.id);
  const three = await client.jobs.wait(again.id);
  expect(three).toMatchObject({
    status: "succeeded",
    attempts: [{ n: 1, outcome: "succeeded", paid: three.price }],
  });
  expect(three.outputs.map(({ sha256 }) => sha256)).toEqual(two.outputs.map(({ sha256 }) => sha256));

  await market.close(client, lease.id);
  const jobs = await found(client, [one.id, two.id, three.id]);
  await checkPapers(market, await client.leases.get(lease.id), jobs);
  await checkChain(market, before, jobs);
});
