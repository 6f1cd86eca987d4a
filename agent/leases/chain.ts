import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import type { Address, Bytes32 } from "@gpux/protocol/ids";
import { createPublicClient, http } from "viem";

export const LEASE_STATUS = ["none", "open", "exiting", "exiting_cosigned", "closed"] as const;

export interface ChainLease {
  readonly status: (typeof LEASE_STATUS)[number];
  readonly funded: bigint;
}

/** `safe`: as of the newest block whose data is on L1, so that no fault of the sequencer takes it back. */
export type ChainView = "latest" | "safe";

/** The owner's own view of the escrow. Rejects when the RPC fails or serves another chain. */
export interface Chain {
  lease(leaseId: Bytes32, view: ChainView): Promise<ChainLease>;
}

export function createChain(place: { rpc: string; chainId: number; escrow: Address }): Chain {
  const client = createPublicClient({ transport: http(place.rpc, { timeout: 10_000, retryCount: 0 }) });
  let rightChain = false;
  return {
    async lease(leaseId, blockTag) {
      if (!rightChain) {
        const chainId = await client.getChainId();
        if (chainId !== place.chainId)
          throw new Error(`the RPC serves chain ${chainId}, the config says ${place.chainId}`);
        rightChain = true;
      }
      const [funded, , , , status] = await client.readContract({
        address: place.escrow,
        abi: leaseEscrowAbi,
        functionName: "leases",
        args: [leaseId],
        blockTag,
      });
      const name = LEASE_STATUS[status];
      if (name === undefined) throw new Error(`the escrow answers with the unknown status ${status}`);
      return { status: name, funded };
    },
  };
}
