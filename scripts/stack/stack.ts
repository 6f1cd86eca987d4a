import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { type Devnet, startDevnet } from "@gpux/contracts/devnet";
import { devnetAccount } from "@gpux/contracts/roles";
import { type AgentProcess, type AgentSetup, startAgentProcess } from "./agent-process.ts";
import { type Edge, type EdgeOptions, startEdge } from "./edge.ts";

/** A whole GPUX on this machine: local Optimism chain, the Workers in workerd, and agents. */
export interface StackOptions {
  /** Everything is written below it; emptied first, because the chain it belongs to was in memory. */
  readonly folder: string;
  readonly port: number;
  readonly chainPort: number;
}

export interface Stack {
  readonly devnet: Devnet;
  readonly edgeOptions: EdgeOptions;
  readonly edge: Edge;
  /** What a further agent needs; give it another folder and key. */
  readonly agentSetup: AgentSetup;
  stop(): Promise<void>;
}

const FEE_BPS = 500;
const ONLINE_MS = 60_000;

/** The chain with every contract, and the accounts that the demo uses. */
export async function startChain(port: number): Promise<Devnet> {
  const devnet = await startDevnet({ host: "127.0.0.1", port });
  await devnet.mint(devnetAccount("consumer").address, 100_000_000n);
  return devnet;
}

export async function startMarket(options: StackOptions, devnet: Devnet): Promise<Stack> {
  await rm(options.folder, { recursive: true, force: true });
  const edgeOptions: EdgeOptions = {
    port: options.port,
    storage: join(options.folder, "edge"),
    chainId: devnet.chainId,
    rpcUrl: devnet.url,
    escrow: devnet.escrow,
    token: devnet.usdc,
    tokenName: "USD Coin",
    tokenVersion: "2",
    feeRecipient: devnetAccount("feeRecipient").address,
    feeBps: FEE_BPS,
    meterKey: devnetAccount("meter").privateKey,
    relayerKey: devnetAccount("relayer").privateKey,
  };
  const edge = await startEdge(edgeOptions);
  return {
    devnet,
    edgeOptions,
    edge,
    agentSetup: {
      folder: join(options.folder, "agent"),
      edge: edge.url,
      rpc: devnet.url,
      chainId: devnet.chainId,
      escrow: devnet.escrow,
      payout: devnetAccount("provider").address,
      key: devnetAccount("agent").privateKey,
      gpuHour: "0.60",
    },
    stop: () => edge.stop(),
  };
}

/** The agent is up when the market shows it, not when its process runs. @throws with the end of its log. */
export async function startOnlineAgent(setup: AgentSetup, address: string): Promise<AgentProcess> {
  const agent = await startAgentProcess(setup);
  let exit: number | null | undefined;
  void agent.ended.then((code) => {
    exit = code;
  });
  const until = Date.now() + ONLINE_MS;
  while (exit === undefined && Date.now() < until) {
    const node = await fetch(`${setup.edge}/v1/nodes/${address}`, { headers: { connection: "close" } }).catch(
      () => null,
    );
    if (node?.ok === true && /"status":\s*"online"/.test(await node.text())) return agent;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const log = await readFile(agent.logFile, "utf8").catch(() => "");
  await agent.kill();
  throw new Error(
    `the agent did not come online; its log ends with:\n${log.split("\n").slice(-15).join("\n")}`,
  );
}
