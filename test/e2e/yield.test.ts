import { execFile } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { devnetAccount } from "@gpux/contracts/roles";
import { Address } from "@gpux/protocol/ids";
import type { JobEvent } from "@gpux/protocol/job";
import type { Client } from "@gpux/sdk";
import { afterAll, beforeAll, expect, it } from "vitest";
import { z } from "zod";
import { nodesOf } from "../../scripts/seed/scenario.ts";
import type { AgentProcess } from "../../scripts/stack/agent-process.ts";
import type { Balances } from "../../scripts/stack/balances.ts";
import { agentSetupOf, startOnlineAgent } from "../../scripts/stack/stack.ts";
import { checkChain, checkPapers, found } from "./testing/books.ts";
import { type Market, openMarket, publish, scene, smallProduct, until } from "./testing/market.ts";

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

/** Another machine of the same provider. */
async function secondNode(): Promise<{ address: string; agent: AgentProcess }> {
  const [owner] = nodesOf(1);
  if (owner === undefined) throw new Error("there is one");
  const { devnet, edge, folder } = market;
  const setup = agentSetupOf(devnet, { folder: join(folder, "second"), edge: edge.url });
  const address = Address.parse(owner.agent.address);
  const prices = { gpuHour: "0.60", yieldableGpuHour: "0.20" };
  return { address, agent: await startOnlineAgent({ ...setup, ...prices, key: owner.key }, address) };
}

it("CKP-1, JOB-11 what its owner interrupts goes on from its checkpoint on another node, to the same picture, and both are paid", async () => {
  const start = await market.ledger.balances();
  const pathtrace = await publish(client, "pathtrace");
  const second = await secondNode();
  const open = async (node: string) => {
    const demand = { ...yieldable, node };
    return client.leases.open(await client.quotes.create({ demand, amount: 500_000n }), { demand });
  };
  const lease = await open(devnetAccount("agent").address.toLowerCase());
  const other = await open(second.address);
  const render = (samples: number, checkpoint: boolean, on = lease.id) =>
    client.jobs.create(
      {
        function: pathtrace,
        inputs: scene({ width: 128, height: 96, samples }),
        max_price: 20_000n,
        timeouts: { execution_s: 300 },
        lease: on,
        demand: yieldable,
        checkpoint,
      },
      { allowAhead: 100_000n },
    );
  // Of the notice, twenty seconds are for the job: it is to last, also where the machine has more time for it by then.
  const probe = await client.jobs.wait((await render(16, false)).id);
  const longer = await client.jobs.wait((await render(80, false, other.id)).id);
  // By the difference: what a job takes before its first sample is no measure of samples.
  const each = Math.max(1, (longer.billed_ms - probe.billed_ms) / 64);
  const samples = Math.min(4_096, Math.max(80, Math.ceil(45_000 / each)));
  const whole = await client.jobs.wait((await render(samples, false)).id);
  expect(whole.status).toBe("succeeded");

  const { id } = await render(samples, true);
  const told: JobEvent[] = [];
  const reading = (async () => {
    for await (const event of client.jobs.events(id)) told.push(event);
  })();
  await until(async () => (await client.jobs.get(id)).status === "running", "the job runs");
  await owner();
  const resumed = await client.jobs.wait(id);
  expect(resumed).toMatchObject({
    status: "succeeded",
    lease_id: other.id,
    checkpoint: { sha256: expect.any(String) },
    attempts: [
      { n: 1, lease_id: lease.id, outcome: "yielded", billed_ms: expect.any(Number) },
      { n: 2, node: second.address, outcome: "succeeded" },
    ],
  });
  // One reader, one stream, from both leases.
  await reading;
  const kinds = told.filter(({ type }) => type !== "progress" && type !== "log");
  expect(kinds.map(({ type, data }) => (type === "status" ? data.status : type))).toEqual([
    ...["queued", "starting", "running", "attempt", "queued", "move"],
    ...["queued", "starting", "running", "succeeded"],
  ]);
  expect(kinds.every(({ id: n }, at) => n > (kinds[at - 1]?.id ?? 0))).toBe(true);
  expect(resumed.outputs.map(({ sha256 }) => sha256)).toEqual(whole.outputs.map(({ sha256 }) => sha256));
  const [kept, last] = resumed.attempts;
  expect(kept?.paid).toBeGreaterThan(0n);
  expect(resumed.price).toBe((kept?.paid ?? 0n) + (last?.paid ?? 0n));
  // It has not done again what was kept: it went on from where it was when it gave way.
  const done = (events: readonly JobEvent[]) =>
    events.flatMap(({ type, data }) => (type === "progress" ? [z.number().parse(data.fraction)] : []));
  const moved = told.findIndex(({ type }) => type === "move");
  const [before, after] = [done(told.slice(0, moved)).at(-1), done(told.slice(moved))[0]];
  expect(before).toBeGreaterThan(0);
  expect(after).toBeGreaterThanOrEqual(before ?? 1);

  await owner("--end");
  await market.close(client, lease.id);
  await market.close(client, other.id);
  const jobs = await found(client, [probe.id, longer.id, whole.id, id]);
  for (const each of [lease, other]) await checkPapers(market, await client.leases.get(each.id), jobs);
  await checkChain(market, start, jobs);
  await second.agent.stop();
}, 400_000);
