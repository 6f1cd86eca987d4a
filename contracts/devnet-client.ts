import { usdcAbi } from "@gpux/protocol/abi/usdc";
import { Address } from "@gpux/protocol/ids";
import {
  createTestClient,
  defineChain,
  encodeFunctionData,
  type Hex,
  http,
  publicActions,
  walletActions,
} from "viem";
import { chainConfig } from "viem/op-stack";
import { z } from "zod";
import { devnetAccount } from "./roles.ts";

/** What can be done to a local chain of devnet.ts from any process, over its RPC. */

export const MULTICALL3 = "0xca11bde05977b3631167028862be2a173976ca11";

/** What `node contracts/devnet.ts --json` prints once it is ready. */
export const DevnetFacts = z.strictObject({
  url: z.url(),
  chainId: z.int(),
  usdc: Address,
  escrow: Address,
  multicall3: Address,
  deployer: Address,
});
export type DevnetFacts = z.infer<typeof DevnetFacts>;

/** A point to fall back to. EDR forgets it, and all later ones, when it is used. */
export interface Snapshot {
  readonly id: Hex;
  readonly blockNumber: bigint;
}

/** A running chain, whoever started it. */
export interface AttachedDevnet extends DevnetFacts {
  /** Test USDC, in base units. */
  mint(to: Address, amount: bigint): Promise<void>;
  /** Wei from the deployer. Money parties need none: only who submits transactions does. */
  fundEth(to: Address, wei: bigint): Promise<void>;
  /** Mines empty blocks, one if not told; with automine off, pending transactions go into the first. */
  mine(blocks?: number): Promise<void>;
  /** Moves the chain's clock ahead of the wall clock for good, and mines a block there. */
  increaseTime(seconds: number): Promise<void>;
  snapshot(): Promise<Snapshot>;
  /** Back to the snapshot, as if nothing after it had been. */
  revert(to: Snapshot): Promise<void>;
  /** Every block after the snapshot is replaced by an empty one, and one more is added: what a reorg shows. */
  reorg(from: Snapshot): Promise<void>;
}

/** viem's chain, with the OP Stack's receipt fields (`l1Fee` and its like). */
export function devnetChain(url: string, chainId: number) {
  return defineChain({
    ...chainConfig,
    id: chainId,
    name: "GPUX devnet",
    nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
    rpcUrls: { default: { http: [url] } },
    contracts: { ...chainConfig.contracts, multicall3: { address: MULTICALL3 } },
  });
}

export function createClient(url: string, chainId: number) {
  return createTestClient({
    mode: "hardhat",
    chain: devnetChain(url, chainId),
    // viem remembers block numbers for a while, which a reorg makes wrong.
    cacheTime: 0,
    pollingInterval: 50,
    transport: http(url),
  })
    .extend(publicActions)
    .extend(walletActions);
}
export type Client = ReturnType<typeof createClient>;

/** The node itself signs and counts nonces for the deployer, so that callers may overlap. */
export async function send(client: Client, request: { to?: Address; data?: Hex; value?: bigint }) {
  const hash = await client.sendTransaction({
    ...request,
    account: devnetAccount("deployer").address,
    to: request.to ?? null,
  });
  const receipt = await client.waitForTransactionReceipt({ hash });
  if (receipt.status !== "success") throw new Error(`the devnet's own transaction ${hash} failed`);
  return receipt;
}

/** Of a chain that runs already. */
export function attachDevnet(facts: DevnetFacts): AttachedDevnet {
  const { url, chainId, usdc } = facts;
  const client = createClient(url, chainId);
  // EDR aborts the process on hardhat_mine of 8 or more blocks, so they come one by one.
  const mine = async (blocks = 1) => {
    for (let i = 0; i < blocks; i++) await client.mine({ blocks: 1 });
  };
  const revert = (to: Snapshot) => client.revert({ id: to.id });
  return {
    ...facts,
    mint: async (to, amount) => {
      const data = encodeFunctionData({ abi: usdcAbi, functionName: "mint", args: [to, amount] });
      await send(client, { to: usdc, data });
    },
    fundEth: async (to, wei) => {
      await send(client, { to, value: wei });
    },
    mine,
    increaseTime: async (seconds) => {
      await client.increaseTime({ seconds });
      await mine();
    },
    snapshot: async () => ({ blockNumber: await client.getBlockNumber(), id: await client.snapshot() }),
    revert,
    reorg: async (from) => {
      const height = await client.getBlockNumber();
      await revert(from);
      // Another timestamp gives the new blocks other hashes, even where the old ones were empty too.
      await client.increaseTime({ seconds: 1 });
      await mine(Number(height - from.blockNumber) + 1);
    },
  };
}
