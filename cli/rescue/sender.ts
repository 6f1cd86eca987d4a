import type { Address, HexBytes } from "@gpux/protocol/ids";
import {
  BaseError,
  createWalletClient,
  defineChain,
  formatEther,
  http,
  parseAbi,
  size,
  WaitForTransactionReceiptTimeoutError,
} from "viem";
import type { PrivateKeyAccount } from "viem/accounts";
import { chainConfig } from "viem/op-stack";
import { ChainError, EXIT } from "../outcome.ts";
import { type Call, type Escrow, rpcTrouble } from "./escrow.ts";

export interface Landed {
  readonly hash: HexBytes;
  readonly block: number;
  readonly succeeded: boolean;
  readonly gasUsed: bigint;
}

const GAS_PRICE_ORACLE = "0x420000000000000000000000000000000000000F";
const oracleAbi = parseAbi(["function getL1FeeUpperBound(uint256) view returns (uint256)"]);
/** What a transaction has around its calldata, unsigned, at most. */
const TRANSACTION_BYTES = 120;
const INCLUSION_MS = 120_000;

/** Sends one call and waits until it is in a block. `sent` hears the hash before the wait. */
export async function sendCall(
  escrow: Escrow,
  rpc: string,
  account: PrivateKeyAccount,
  call: Call,
  sent: (hash: HexBytes) => void,
): Promise<Landed> {
  const { client, place } = escrow;
  const chain = defineChain({
    ...chainConfig,
    id: place.chainId,
    name: `chain ${place.chainId}`,
    nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
    rpcUrls: { default: { http: [rpc] } },
    contracts: chainConfig.contracts,
  });
  const wallet = createWalletClient({ account, chain, transport: http(rpc, { timeout: 20_000 }) });
  try {
    const { maxFeePerGas, maxPriorityFeePerGas } = await client.estimateFeesPerGas();
    await checkBalance(escrow, account, call, maxFeePerGas);
    const { to, data, gas } = call;
    const hash = await wallet.sendTransaction({ to, data, gas, maxFeePerGas, maxPriorityFeePerGas });
    sent(hash);
    const receipt = await client
      .waitForTransactionReceipt({ hash, timeout: INCLUSION_MS })
      .catch((error: unknown) => {
        if (!(error instanceof WaitForTransactionReceiptTimeoutError)) throw error;
        throw new ChainError(
          "unconfirmed",
          `${hash} is in no block yet`,
          "It may still land; the same command again finds out, and does nothing twice.",
          EXIT.timeout,
        );
      });
    return {
      hash,
      block: Number(receipt.blockNumber),
      succeeded: receipt.status === "success",
      gasUsed: receipt.gasUsed,
    };
  } catch (error) {
    throw error instanceof BaseError ? rpcTrouble(rpc, error) : error;
  }
}

async function checkBalance(
  { client, place }: Escrow,
  { address }: { address: Address },
  { data, gas }: Call,
  maxFeePerGas: bigint,
): Promise<void> {
  const [balance, l1Fee] = await Promise.all([
    client.getBalance({ address }),
    client
      .readContract({
        address: GAS_PRICE_ORACLE,
        abi: oracleAbi,
        functionName: "getL1FeeUpperBound",
        args: [BigInt(size(data) + TRANSACTION_BYTES)],
      })
      // A chain that is no OP chain has no such fee.
      .catch(() => 0n),
  ]);
  const needed = gas * maxFeePerGas + l1Fee;
  if (balance >= needed) return;
  throw new ChainError(
    "no_gas",
    `${address} holds ${formatEther(balance)} ETH on chain ${place.chainId} and may need up to ${formatEther(needed)}`,
    "Send it that much, pay with another key (--gas-wallet, GPUX_GAS_PRIVATE_KEY), or give the call to anybody who has ETH: --print.",
    EXIT.payment,
  );
}
