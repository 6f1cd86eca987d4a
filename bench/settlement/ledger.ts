import { type Devnet, startDevnet } from "@gpux/contracts/devnet";
import { devnetChain } from "@gpux/contracts/devnet-client";
import { devnetAccount } from "@gpux/contracts/roles";
import { usdcAbi } from "@gpux/protocol/abi/usdc";
import { Address } from "@gpux/protocol/ids";
import { createPublicClient, createWalletClient, type Hex, http, size } from "viem";

/** More than any transaction here needs. Estimates would be another run of each. */
const GAS_LIMIT = 15_000_000n;

/** What a transaction is for: the parts of a lease's life, and `permit`, which is counted apart. */
export type Purpose = "permit" | "fund" | "top-up" | "close" | "payout" | "job";

/** A transaction that went well, as its receipt has it. Wei and gas fit a number here by far. */
export interface Sent {
  readonly purpose: Purpose;
  readonly to: Address;
  readonly hash: Hex;
  readonly data: Hex;
  readonly gas: number;
  readonly calldataBytes: number;
  readonly l1FeeWei: number;
}

/** One chain, and one relayer that pays for everything on it. */
export interface Ledger {
  readonly chain: Devnet;
  /** Of the last block, in seconds. */
  now(): Promise<number>;
  /** Throws when the transaction reverts: nothing in this bench may. */
  send(purpose: Purpose, to: Address, data: Hex): Promise<Sent>;
  deploy(data: Hex): Promise<Address>;
  /** USDC in base units. */
  balanceOf(account: Address): Promise<bigint>;
  /** Runs it, and then sets the chain back, so that each run starts from the same books. */
  apart<T>(work: () => Promise<T>): Promise<T>;
}

export async function openLedger(): Promise<Ledger> {
  const chain = await startDevnet({ host: "127.0.0.1" });
  const viemChain = devnetChain(chain.url, chain.chainId);
  const transport = http(chain.url);
  const node = createPublicClient({ chain: viemChain, transport, cacheTime: 0, pollingInterval: 20 });
  const relayer = createWalletClient({
    chain: viemChain,
    transport,
    account: devnetAccount("relayer").account,
  });
  const fees = { gas: GAS_LIMIT, maxFeePerGas: 1_000_000_000n, maxPriorityFeePerGas: 1n } as const;

  const transact = async (request: { to?: Address; data: Hex }) => {
    const nonce = await node.getTransactionCount({ address: relayer.account.address });
    const hash = await relayer.sendTransaction({ ...request, ...fees, nonce, type: "eip1559" });
    const receipt = await node.getTransactionReceipt({ hash });
    if (receipt.status !== "success") throw new Error(`transaction ${hash} reverted`);
    return receipt;
  };

  return {
    chain,
    now: async () => Number((await node.getBlock()).timestamp),
    send: async (purpose, to, data) => {
      const { transactionHash: hash, gasUsed, l1Fee } = await transact({ to, data });
      if (l1Fee === null) throw new Error(`the receipt of ${hash} has no L1 fee`);
      return {
        purpose,
        to,
        hash,
        data,
        gas: Number(gasUsed),
        calldataBytes: size(data),
        l1FeeWei: Number(l1Fee),
      };
    },
    deploy: async (data) => Address.parse((await transact({ data })).contractAddress),
    balanceOf: (account) =>
      node.readContract({ address: chain.usdc, abi: usdcAbi, functionName: "balanceOf", args: [account] }),
    apart: async (work) => {
      const before = await chain.snapshot();
      try {
        return await work();
      } finally {
        await chain.revert(before);
      }
    },
  };
}
