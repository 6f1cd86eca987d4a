import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Devnet, startDevnet } from "@gpux/contracts/devnet";
import { devnetAccount } from "@gpux/contracts/roles";
import { type AgentProcess, type AgentSetup, startAgentProcess } from "./agent-process.ts";
import type { EdgeOptions } from "./edge.ts";

const FEE_BPS = 500;
const ONLINE_MS = 60_000;

/**
 * The parts of a whole GPUX on one machine: local Optimism chain, the Workers in workerd, agents. `npm start` and the
 * end-to-end tests put them together.
 */

/** The chain with every contract, and a consumer who holds test USDC. */
export async function startChain(port: number): Promise<Devnet> {
  const devnet = await startDevnet({ host: "127.0.0.1", port });
  await devnet.mint(devnetAccount("consumer").address, 100_000_000n);
  return devnet;
}

export function edgeOptionsOf(devnet: Devnet, place: { folder: string; port: number }): EdgeOptions {
  return {
    port: place.port,
    storage: join(place.folder, "edge"),
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
}

export function agentSetupOf(devnet: Devnet, place: { folder: string; edge: string }): AgentSetup {
  return {
    folder: join(place.folder, "agent"),
    edge: place.edge,
    rpc: devnet.url,
    chainId: devnet.chainId,
    escrow: devnet.escrow,
    payout: devnetAccount("provider").address,
    key: devnetAccount("agent").privateKey,
    gpuHour: "0.60",
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
