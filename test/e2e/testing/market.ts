import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { AgentConfigText } from "@gpux/agent/config";
import type { Devnet } from "@gpux/contracts/devnet";
import { devnetAccount } from "@gpux/contracts/roles";
import { packManifest } from "@gpux/protocol/manifest";
import { type Client, type ClientOptions, createClient } from "@gpux/sdk";
import { packFunction } from "../../../examples/functions/pack.ts";
import type { AgentProcess, AgentSetup } from "../../../scripts/stack/agent-process.ts";
import { type Ledger, openLedger } from "../../../scripts/stack/balances.ts";
import type { EdgeOptions } from "../../../scripts/stack/edge.ts";
import { type EdgeProcess, startEdgeProcess } from "../../../scripts/stack/edge-process.ts";
import { agentSetupOf, edgeOptionsOf, startChain, startOnlineAgent } from "../../../scripts/stack/stack.ts";

/** A whole market for one test: its own chain, edge process, agent process and folder. */
export interface Market {
  readonly devnet: Devnet;
  readonly folder: string;
  readonly agentSetup: AgentSetup;
  readonly ledger: Ledger;
  edge: EdgeProcess;
  agent: AgentProcess;
  client(options?: Partial<ClientOptions>): Client;
  /** The edge's process dies by kill -9 and comes back on the same storage. */
  crashEdge(): Promise<void>;
  /** The agent's process dies by kill -9 and comes back on the same state. */
  crashAgent(): Promise<void>;
  /** Resolves when everything that the lease owes was paid out. */
  close(client: Client, lease: string): Promise<void>;
  stop(): Promise<void>;
}

export async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const address = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  if (address === null || typeof address === "string") throw new Error("a TCP socket has a port");
  return address.port;
}

/** What the edge listens on, how the agent reaches the chain (given its URL), where the agent runs and for how much. */
export interface Place {
  readonly host?: string;
  readonly rpc?: (chain: string) => Promise<string>;
  readonly within?: readonly string[];
  /** USDC as text. */
  readonly gpuHour?: string;
  /** USDC as text, in the yieldable tier. */
  readonly yieldableGpuHour?: string;
  readonly challengeAfterS?: number;
  /** Beside these, as in the agent's config.json. */
  readonly config?: Partial<AgentConfigText>;
}

export async function openMarket(place: Place = {}): Promise<Market> {
  const folder = await mkdtemp(join(tmpdir(), "gpux-e2e-"));
  const devnet = await startChain(await freePort());
  const edgeOptions: EdgeOptions = {
    ...edgeOptionsOf(devnet, { folder, port: await freePort() }),
    ...(place.host === undefined ? {} : { host: place.host }),
    ...(place.challengeAfterS === undefined ? {} : { challengeAfterS: place.challengeAfterS }),
  };
  let edge = await startEdgeProcess(edgeOptions);
  const agentSetup: AgentSetup = {
    ...agentSetupOf(devnet, { folder, edge: edge.url }),
    ...(place.rpc === undefined ? {} : { rpc: await place.rpc(devnet.url) }),
    ...(place.within === undefined ? {} : { within: place.within }),
    ...(place.config === undefined ? {} : { config: place.config }),
    ...(place.gpuHour === undefined ? {} : { gpuHour: place.gpuHour }),
    ...(place.yieldableGpuHour === undefined ? {} : { yieldableGpuHour: place.yieldableGpuHour }),
  };
  const node = devnetAccount("agent").address;
  let agent = await startOnlineAgent(agentSetup, node);
  const parties = {
    consumer: devnetAccount("consumer").address,
    provider: devnetAccount("provider").address,
    feeRecipient: devnetAccount("feeRecipient").address,
    agent: node,
  };
  const ledger = openLedger(devnet, parties);
  return {
    devnet,
    folder,
    agentSetup,
    ledger,
    get edge() {
      return edge;
    },
    get agent() {
      return agent;
    },
    client: (options = {}) =>
      createClient({
        url: edge.url,
        account: devnetAccount("consumer").account,
        autoOpen: { maxAmount: 1_000_000n },
        ...options,
      }),
    async crashEdge() {
      await edge.kill();
      edge = await startEdgeProcess(edgeOptions);
    },
    async crashAgent() {
      await agent.kill();
      agent = await startOnlineAgent(agentSetup, node);
    },
    async close(client, lease) {
      await client.leases.close(lease);
      await until(async () => {
        const view = await client.leases.get(lease);
        return view.status === "closed" && (await ledger.owed()) === 0n;
      }, "the lease is closed and paid out");
    },
    async stop() {
      await agent.stop();
      await edge.stop();
      await devnet.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

const PATIENCE_MS = 120_000;

/** Asks until it is so. The time-out is not a measurement: it only ends a test that would never end. */
export async function until(isSo: () => Promise<boolean>, what: string): Promise<void> {
  const end = Date.now() + PATIENCE_MS;
  while (!(await isSo())) {
    if (Date.now() > end) throw new Error(`it never came to pass that ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export async function publish(client: Client, name: string): Promise<string> {
  const folder = new URL(`../../../examples/functions/${name}`, import.meta.url).pathname;
  return client.objects.put(packManifest(await packFunction(folder)));
}

const base64 = (numbers: readonly number[]) =>
  Buffer.from(new Float32Array(numbers).buffer).toString("base64");

/** A product that a GPU does in a moment: what a job costs beside it is the market's own time. */
export function smallProduct(scale: number) {
  return {
    n: { number: 2 },
    k: { number: 2 },
    m: { number: 2 },
    a: { base64: base64([1, 2, 3, 4]) },
    b: { base64: base64([scale, 0, 0, scale]) },
  };
}

/** The sample scene, cut down or up: `samples` sets how long it takes. */
export function scene(size: { width: number; height: number; samples: number }) {
  const room = JSON.parse(
    readFileSync(new URL("../../../examples/functions/pathtrace/room.json", import.meta.url), "utf8"),
  );
  return { scene: { json: { ...room, ...size } } };
}

export function sumOf(costs: readonly { readonly price: bigint }[]): bigint {
  return costs.reduce((total, { price }) => total + price, 0n);
}
