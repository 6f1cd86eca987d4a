import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import { addresses } from "@gpux/protocol/addresses";
import { calldataOf } from "@gpux/protocol/calldata";
import type { Address, Bytes32, HexBytes } from "@gpux/protocol/ids";
import type { Intent } from "@gpux/protocol/intent";
import type { Place } from "@gpux/protocol/place";
import { BaseError, createPublicClient, http, type PublicClient } from "viem";
import { ChainError, EXIT, UsageError } from "../outcome.ts";
import { explainRevert, revertDataOf } from "./refusal.ts";

export const LEASE_STATUS = ["none", "open", "exiting", "exiting_cosigned", "closed"] as const;
export type LeaseStatus = (typeof LEASE_STATUS)[number];

/** A lease as the escrow has it; amounts in base units, times in seconds. */
export interface LeaseOnChain {
  readonly status: LeaseStatus;
  readonly funded: bigint;
  readonly paid: bigint;
  readonly openedAt: number;
  readonly exitAt: number;
}

export interface Delays {
  readonly exit: number;
  readonly cosignedExit: number;
}

/** The escrow, through a node of the user's choice. What the node does wrong is a {@link ChainError} `rpc`. */
export interface Escrow {
  readonly place: Place;
  readonly client: PublicClient;
  /** The latest block's time: what calls are judged by. */
  now(): Promise<number>;
  lease(id: Bytes32): Promise<LeaseOnChain>;
  owed(account: Address): Promise<bigint>;
  delays(): Promise<Delays>;
  /** Null when the intent would land now; else why not. */
  simulate(intent: Intent): Promise<ChainError | null>;
}

/** What is sent for an intent. */
export interface Call {
  readonly to: Address;
  readonly data: HexBytes;
  /** Enough for it to run. */
  readonly gas: bigint;
}

/** @throws ChainError `bad_signature` when a signature in it cannot be one. */
export function callOf(place: Place, intent: Intent): Call {
  const calldata = calldataOf(intent);
  if (calldata === null)
    throw new ChainError(
      "bad_signature",
      "A signature in it is malformed or not in its canonical form",
      "64 or 65 bytes in hex, s in the lower half of the order (EIP-2).",
    );
  return { to: place.escrow, ...calldata };
}

/** The escrow that a chain is known to have, unless another is named. */
export function placeOn(chainId: number, escrow: Address | undefined): Place {
  const named = escrow ?? addresses[chainId]?.escrow;
  if (named !== undefined) return { chainId, escrow: named };
  throw new UsageError(
    `No escrow is known on chain ${chainId}`,
    `Name it with --escrow; known chains are ${Object.values(addresses)
      .map((chain) => chain.name)
      .join(" and ")}.`,
  );
}

/** `expected`: what the documents were signed for. */
export async function openEscrow(
  rpc: string,
  expected: Place | null,
  named: Address | undefined,
): Promise<Escrow> {
  const client = createPublicClient({
    transport: http(rpc, { timeout: 20_000, retryCount: 2 }),
    pollingInterval: 500,
    cacheTime: 0,
  });
  const chainId = await answer(rpc, () => client.getChainId());
  if (expected !== null && expected.chainId !== chainId)
    throw new ChainError(
      "wrong_chain",
      `${rpc} serves chain ${chainId}, and this was signed for chain ${expected.chainId}`,
      "Name a node of that chain with --rpc.",
    );
  const place = placeOn(chainId, named ?? expected?.escrow);
  if ((await answer(rpc, () => client.getCode({ address: place.escrow }))) === undefined)
    throw new ChainError(
      "wrong_chain",
      `There is no contract at ${place.escrow} on chain ${chainId}`,
      "Check --rpc and --escrow.",
    );
  const now = async () => Number((await answer(rpc, () => client.getBlock())).timestamp);
  const contract = { address: place.escrow, abi: leaseEscrowAbi } as const;
  return {
    place,
    client,
    now,
    async lease(id) {
      const read = () => client.readContract({ ...contract, functionName: "leases", args: [id] });
      const [funded, paid, openedAt, exitAt, status] = await answer(rpc, read);
      return { status: LEASE_STATUS[status] ?? "none", funded, paid, openedAt, exitAt };
    },
    owed: (account) =>
      answer(rpc, () => client.readContract({ ...contract, functionName: "owed", args: [account] })),
    async delays() {
      const read = (functionName: "EXIT_DELAY" | "COSIGNED_EXIT_DELAY") =>
        answer(rpc, () => client.readContract({ ...contract, functionName }));
      const [exit, cosignedExit] = await Promise.all([read("EXIT_DELAY"), read("COSIGNED_EXIT_DELAY")]);
      return { exit: Number(exit), cosignedExit: Number(cosignedExit) };
    },
    async simulate(intent) {
      // No caller is named: the escrow never looks who calls, and nobody's ETH must stand in the way.
      const { to, data, gas } = callOf(place, intent);
      try {
        await client.call({ to, data, gas });
        return null;
      } catch (error) {
        const reverted = revertDataOf(error);
        if (reverted === null) throw rpcTrouble(rpc, error);
        return explainRevert(reverted, intent, await now());
      }
    },
  };
}

async function answer<T>(rpc: string, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    throw rpcTrouble(rpc, error);
  }
}

/** A node that fails says nothing about the lease. */
export function rpcTrouble(rpc: string, error: unknown): unknown {
  if (!(error instanceof BaseError)) return error;
  return new ChainError(
    "rpc",
    `${rpc} fails: ${error.shortMessage.split("\n", 1)[0]} ${error.details}`.trim(),
    "Try again, or another node with --rpc; any of the chain will do.",
    EXIT.failure,
  );
}

/** When the rest of a lease is free; null when it never will be (closed) or was not there. */
export function reclaimableAt(lease: LeaseOnChain, expiry: number, delays: Delays): number | null {
  const byExpiry = expiry + delays.exit;
  switch (lease.status) {
    case "none":
    case "closed":
      return null;
    case "open":
      return byExpiry;
    case "exiting":
      return Math.min(byExpiry, lease.exitAt + delays.exit);
    case "exiting_cosigned":
      return Math.min(byExpiry, lease.exitAt + delays.cosignedExit);
  }
}
