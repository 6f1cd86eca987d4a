import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Devnet, startDevnet } from "@gpux/contracts/devnet";
import { devnetAccount } from "@gpux/contracts/roles";
import { createTestClient, http } from "viem";
import { type AgentProcess, type AgentSetup, startAgentProcess } from "./agent-process.ts";
import type { EdgeOptions } from "./edge.ts";

const FEE_BPS = 500;
/** Optimism's block time. */
const BLOCK_MS = 2_000;
const ONLINE_MS = 60_000;

/**
 * The parts of a whole GPUX on one machine: local Optimism chain, the Workers in workerd, agents. `npm start` and the
 * end-to-end tests put them together.
 */

/**
 * The chain with every contract, and a consumer who holds test USDC. Transactions are mined at once, and empty blocks
 * come as on Optimism: what a call may do is judged at the latest block's time, so without them nothing that needs
 * time to have passed (the close of a lease that was used for longer than its `upfront`) could ever be sent.
 */
export async function startChain(port: number): Promise<Devnet> {
  const devnet = await startDevnet({ host: "127.0.0.1", port });
  await devnet.mint(devnetAccount("consumer").address, 100_000_000n);
  const node = createTestClient({ mode: "hardhat", transport: http(devnet.url) });
  // Not viem's setIntervalMining: it counts in seconds, EDR in milliseconds.
  await node.request({ method: "evm_setIntervalMining", params: [BLOCK_MS] });
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
