import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Client } from "@gpux/sdk";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Balances } from "../../scripts/stack/balances.ts";
import { checkChain, checkPapers, found } from "./testing/books.ts";
import { type Market, openMarket, publish, scene, smallProduct, until } from "./testing/market.ts";

const AGENT = fileURLToPath(new URL("../../agent/bin.ts", import.meta.url));

/** SPEC LSE-10 as a provider does it: `gpux-agent drain` beside the agent that runs. */
let market: Market;
let client: Client;
let before: Balances;

beforeAll(async () => {
  market = await openMarket();
  client = market.client();
  before = await market.ledger.balances();
});
afterAll(() => market?.stop());

it("LSE-10 a drained agent ends its job, turns the next one away, has its lease paid out, and leaves", async () => {
  const running = await client.jobs.create({
    function: await publish(client, "pathtrace"),
    inputs: scene({ width: 160, height: 120, samples: 24 }),
    max_price: 30_000n,
  });
  const waiting = await client.jobs.create({
    function: await publish(client, "matmul"),
    inputs: smallProduct(1),
    max_price: 10_000n,
    lease: running.lease_id,
  });
  for await (const event of client.jobs.events(running.id))
    if (event.type === "status" && event.data.status === "running") break;

  const { folder } = market.agentSetup;
  const drained = await promisify(execFile)(process.execPath, [
    AGENT,
    "drain",
    "--dir",
    folder,
    "--deadline",
    "2m",
  ]);
  expect(drained.stderr).toMatch(/1 job\(s\) run in 1 lease\(s\), until .*\n.*The agent has stopped/s);
  expect(await market.agent.ended).toBe(0);

  const ended = await client.jobs.wait(running.id);
  expect(ended).toMatchObject({ status: "succeeded", attempts: [{ n: 1, outcome: "succeeded" }] });
  const away = await client.jobs.get(waiting.id);
  expect(away).toMatchObject({ status: "aborted", price: 0n, error: { code: "node_draining" } });
  const lease = () => client.leases.get(running.lease_id);
  await until(
    async () => (await lease()).status === "closed" && (await market.ledger.owed()) === 0n,
    "the lease is closed and paid out with nobody at the node",
  );
  expect(await lease()).toMatchObject({ end: { reason: "node_drained", fault: "provider" } });
  const jobs = await found(client, [running.id, waiting.id]);
  await checkPapers(market, await lease(), jobs);
  await checkChain(market, before, jobs);
});
