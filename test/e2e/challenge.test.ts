import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type RunningAgent, startAgent } from "@gpux/agent/agent";
import { AgentConfig } from "@gpux/agent/config";
import type { ExecutionResult, Executor, FunctionJob } from "@gpux/agent/executors/executor";
import { createWebGpuExecutor } from "@gpux/agent/executors/webgpu/executor";
import { devnetAccount } from "@gpux/contracts/roles";
import { Address } from "@gpux/protocol/ids";
import type { NodeView } from "@gpux/protocol/lease";
import type { Client } from "@gpux/sdk";
import { afterAll, beforeAll, expect, it } from "vitest";
import { nodesOf } from "../../scripts/seed/scenario.ts";
import { type Market, openMarket, until } from "./testing/market.ts";

/** SPEC CHL-1 to CHL-4 on the real stack: real agents on a real device, which for two of them is not what they say. */
let market: Market;
let client: Client;
let folder: string;
const agents: RunningAgent[] = [];
const honest = devnetAccount("agent").address;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "gpux-challenge-"));
  market = await openMarket({ challengeAfterS: 1 });
  client = market.client();
}, 300_000);
afterAll(async () => {
  await Promise.all(agents.map((agent) => agent.kill()));
  await market?.stop();
  await rm(folder, { recursive: true, force: true });
});

/** A node in this process whose device is the real one with `lies`. */
async function nodeWith(n: number, lies: (real: Executor<FunctionJob>) => Partial<Executor<FunctionJob>>) {
  const owner = nodesOf(8)[n];
  if (owner === undefined) throw new Error("there are eight owners");
  const real = createWebGpuExecutor({ cacheDir: join(folder, "driver"), adapter: "software" });
  const { edge, rpc, chainId, escrow } = market.agentSetup;
  const agent = await startAgent({
    config: AgentConfig.parse({
      ...{ edge, rpc, escrow, chain_id: chainId, payout: owner.payout.address, region: "local" },
      prices: { gpu_hour: "0.10" },
    }),
    key: owner.key,
    stateDir: join(folder, `node-${n}`),
    log: () => {},
    executor: { ...real, ...lies(real) },
  });
  agents.push(agent);
  return agent.address;
}

async function judged(node: string): Promise<NodeView> {
  const seen = () => client.nodes.get(Address.parse(node)).catch(() => null);
  await until(async () => (await seen())?.challenge != null, `${node} is judged`);
  return client.nodes.get(Address.parse(node));
}

it("CHL-3 CHL-4 an honest node is verified: its owner reads it, the market shows it, and a price says it", async () => {
  const node = await judged(honest);
  expect(node).toMatchObject({ status: "online", verified: true, challenge: { result: "verified" } });
  expect(node.challenge?.gops).toBeGreaterThan(0);
  expect(await readFile(market.agent.logFile, "utf8")).toContain("the edge has verified this GPU");
  const { data } = await client.offers.search({ verified: "true" });
  expect(data).toMatchObject([{ id: honest.toLowerCase(), verified: true }]);
  const price = await client.quotes.price({});
  expect(price).toMatchObject({ verified: true, node: honest.toLowerCase() });
});

it("CHL-3 a CPU that is sold as an RTX 4090 stays unverified, though it is the cheapest", async () => {
  const node = await nodeWith(0, (real) => ({
    describe: async () => ({
      ...(await real.describe()),
      adapter: "NVIDIA GeForce RTX 4090",
      software: false,
    }),
  }));
  const view = await judged(node);
  expect(view).toMatchObject({ status: "online", verified: false, challenge: { result: "slow" } });
  expect(view.gpus).toMatchObject([{ model: "RTX_4090" }]);
  const asked = client.quotes.create({ demand: { verified: true, gpu_model: "RTX_4090" } });
  await expect(asked).rejects.toMatchObject({
    code: "no_capacity",
    problem: { wait: { possible: false, blockers: { verified: 1 } } },
  });
  const any = await client.quotes.create({});
  expect(any).toMatchObject({ verified: false, text: { node } });
  // Where it was asked for, the agent holds by a text that promises it.
  const sure = await client.quotes.create({ demand: { verified: true } });
  expect(sure).toMatchObject({ verified: true, text: { node: honest.toLowerCase(), verified: true } });
});

it("CHL-2 a node that leaves a part of the work out is quarantined, and nobody is sold to it", async () => {
  const half = (result: ExecutionResult): ExecutionResult => {
    if (!result.ok) return result;
    for (const { bytes } of result.outputs) bytes.fill(0, bytes.length / 8);
    return result;
  };
  const node = await nodeWith(1, (real) => ({ run: async (...job) => half(await real.run(...job)) }));
  expect(await judged(node)).toMatchObject({
    status: "quarantined",
    verified: false,
    challenge: { result: "wrong", gops: 0 },
  });
  const { data } = await client.offers.search({});
  expect(data.map(({ id }) => id)).not.toContain(node);
});
