import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import { usdcAbi } from "@gpux/protocol/abi/usdc";
import type { Address } from "@gpux/protocol/ids";
import { createPublicClient, http } from "viem";

/** Where the money can be: the parties of a lease, and the escrow between them. USDC base units. */
export type Balances = Record<"consumer" | "provider" | "fee_recipient" | "escrow", bigint>;

export interface Ledger {
  balances(): Promise<Balances>;
  /** What the escrow still owes the parties; zero when everything was paid out. */
  owed(): Promise<bigint>;
  /** Wei of each party; only the relayer's may ever change. */
  ether(): Promise<Record<string, bigint>>;
}

/** Reads the chain itself, not what the marketplace says of it. */
export function openLedger(
  chain: { readonly url: string; readonly usdc: Address; readonly escrow: Address },
  parties: {
    readonly consumer: Address;
    readonly provider: Address;
    readonly feeRecipient: Address;
    readonly agent: Address;
  },
): Ledger {
  const client = createPublicClient({ transport: http(chain.url), cacheTime: 0 });
  const usdcOf = (account: Address) =>
    client.readContract({ address: chain.usdc, abi: usdcAbi, functionName: "balanceOf", args: [account] });
  const owedTo = (account: Address) =>
    client.readContract({
      address: chain.escrow,
      abi: leaseEscrowAbi,
      functionName: "owed",
      args: [account],
    });
  const { consumer, provider, feeRecipient } = parties;
  return {
    async balances() {
      const [a, b, c, d] = await Promise.all([consumer, provider, feeRecipient, chain.escrow].map(usdcOf));
      return { consumer: a ?? 0n, provider: b ?? 0n, fee_recipient: c ?? 0n, escrow: d ?? 0n };
    },
    async owed() {
      const owed = await Promise.all([consumer, provider, feeRecipient].map(owedTo));
      return owed.reduce((sum, amount) => sum + amount, 0n);
    },
    async ether() {
      const entries = Object.entries(parties).map(
        async ([name, address]) => [name, await client.getBalance({ address })] as const,
      );
      return Object.fromEntries(await Promise.all(entries));
    },
  };
}
