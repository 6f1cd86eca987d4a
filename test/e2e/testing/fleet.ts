import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AgentConfigText } from "@gpux/agent/config";
import type { Devnet } from "@gpux/contracts/devnet";
import { devnetAccount } from "@gpux/contracts/roles";
import { Address } from "@gpux/protocol/ids";
import { type Client, createClient } from "@gpux/sdk";
import { nodesOf } from "../../../scripts/seed/scenario.ts";
import type { AgentProcess } from "../../../scripts/stack/agent-process.ts";
import { type Ledger, openLedger } from "../../../scripts/stack/balances.ts";
import { type EdgeProcess, startEdgeProcess } from "../../../scripts/stack/edge-process.ts";
import { agentSetupOf, edgeOptionsOf, startChain, startOnlineAgent } from "../../../scripts/stack/stack.ts";
import { freePort } from "./market.ts";

/** One provider of a fleet: its agent in a process of its own, and what the chain says of its owner. */
export interface FleetNode {
  readonly address: Address;
  readonly agent: AgentProcess;
  readonly ledger: Ledger;
}

/** A market of several providers with simulated machines, each agent a real one. */
export interface Fleet {
  readonly devnet: Devnet;
  readonly edge: EdgeProcess;
  readonly nodes: FleetNode[];
  client(): Client;
  /** One more, with this in its config.json. */
  join(config?: Partial<AgentConfigText>): Promise<FleetNode>;
  stop(): Promise<void>;
}

/** The machine and the prices of the seed example: 4 GPUs, 32 cores, 128 GB for 1.488 USDC an hour. */
const MACHINE = { gpus: 4, cpu: 32, memory_gb: 128 };
const PRICES = { gpu_hour: "0.30", core_hour: "0.005", gb_hour: "0.001" };

export async function openFleet(count: number): Promise<Fleet> {
  const folder = await mkdtemp(join(tmpdir(), "gpux-fleet-"));
  const devnet = await startChain(await freePort());
  const edge = await startEdgeProcess(edgeOptionsOf(devnet, { folder, port: await freePort() }));
  const owners = nodesOf(8);
  const nodes: FleetNode[] = [];
  const consumer = devnetAccount("consumer");

  async function addNode(config: Partial<AgentConfigText> = {}): Promise<FleetNode> {
    const n = nodes.length;
    const owner = owners[n];
    if (owner === undefined) throw new Error("a fleet has at most eight nodes");
    const setup = {
      ...agentSetupOf(devnet, { folder: join(folder, `node-${n}`), edge: edge.url }),
      payout: Address.parse(owner.payout.address),
      key: owner.key,
      config: { simulated: MACHINE, prices: PRICES, ...config },
    };
    const address = Address.parse(owner.agent.address);
    const agent = await startOnlineAgent(setup, address);
    const parties = {
      consumer: consumer.address,
      provider: Address.parse(owner.payout.address),
      feeRecipient: devnetAccount("feeRecipient").address,
      agent: address,
    };
    const node = { address, agent, ledger: openLedger(devnet, parties) };
    nodes.push(node);
    return node;
  }

  for (let n = 0; n < count; n += 1) await addNode();
  return {
    devnet,
    edge,
    nodes,
    client: () => createClient({ url: edge.url, account: consumer.account, maxRetries: 0 }),
    join: addNode,
    async stop() {
      await Promise.all(nodes.map(({ agent }) => agent.stop()));
      await edge.stop();
      await devnet.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
