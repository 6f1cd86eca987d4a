import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import { usdcAbi } from "@gpux/protocol/abi/usdc";
import type { Address, Bytes32, HexBytes } from "@gpux/protocol/ids";
import type { TypedDataHasher } from "@gpux/protocol/typed-data-encoder";
import { decodeFunctionResult, encodeEventTopics, encodeFunctionData } from "viem";
import type { Chain } from "./chain.ts";
import { NodeFault } from "./json-rpc.ts";

/** What the escrow's views say at the latest block. All throw NodeFault where the node does not answer sensibly. */
export interface Escrow {
  readonly chain: Chain;
  readonly hasher: TypedDataHasher;
  readonly address: Address;
}

/** `LeaseEscrow.Status`. */
export const STATUS = { none: 0, open: 1, exiting: 2, exitingCosigned: 3, closed: 4 } as const;

/** A payer's money for one spender and one meter. */
export interface CreditName {
  readonly payer: Address;
  readonly spender: Address;
  readonly meter: Address;
}

async function answer(escrow: Escrow, data: HexBytes): Promise<HexBytes> {
  const result = await escrow.chain.call({ to: escrow.address, data });
  if (!result.ok) throw new NodeFault(`a view of ${escrow.address} reverted: ${result.message}`);
  return result.data;
}

/** viem throws on answers that are no encoding of the type: that is the node's fault, not ours. */
function decoded<T>(decode: () => T): T {
  try {
    return decode();
  } catch {
    throw new NodeFault("an answer does not decode");
  }
}

export async function leaseState(escrow: Escrow, id: Bytes32) {
  const call = { abi: leaseEscrowAbi, functionName: "leases" } as const;
  const data = await answer(escrow, encodeFunctionData({ ...call, args: [id] }));
  const [funded, paid, openedAt, exitAt, status] = decoded(() => decodeFunctionResult({ ...call, data }));
  return { id, funded, paid, openedAt, exitAt, status };
}

/** `releaseAt` 0: no release is pending. */
export async function creditState(escrow: Escrow, { payer, spender, meter }: CreditName) {
  const call = { abi: leaseEscrowAbi, functionName: "credits" } as const;
  const data = await answer(escrow, encodeFunctionData({ ...call, args: [payer, spender, meter] }));
  const [amount, releaseAt] = decoded(() => decodeFunctionResult({ ...call, data }));
  return { amount, releaseAt };
}

export async function releaseUsed(escrow: Escrow, digest: Bytes32): Promise<boolean> {
  const call = { abi: leaseEscrowAbi, functionName: "releaseUsed" } as const;
  const data = await answer(escrow, encodeFunctionData({ ...call, args: [digest] }));
  return decoded(() => decodeFunctionResult({ ...call, data }));
}

/** Seconds; 0: the meter has not resigned. */
export async function meterRevokedAt(escrow: Escrow, meter: Address): Promise<bigint> {
  const call = { abi: leaseEscrowAbi, functionName: "meterRevokedAt" } as const;
  const data = await answer(escrow, encodeFunctionData({ ...call, args: [meter] }));
  return decoded(() => decodeFunctionResult({ ...call, data }));
}

export async function owed(escrow: Escrow, account: Address): Promise<bigint> {
  const call = { abi: leaseEscrowAbi, functionName: "owed" } as const;
  const data = await answer(escrow, encodeFunctionData({ ...call, args: [account] }));
  return decoded(() => decodeFunctionResult({ ...call, data }));
}

/**
 * The token says of a nonce only that it is spent: by the funding, or because its payer cancelled the authorization.
 * The event tells which; one older than nodes look back counts as not found, and the intent as refused.
 */
export async function authorizationUsed(escrow: Escrow, from: Address, nonce: Bytes32): Promise<boolean> {
  const call = { abi: leaseEscrowAbi, functionName: "token" } as const;
  const data = await answer(escrow, encodeFunctionData(call));
  const token = decoded(() => decodeFunctionResult({ ...call, data }));
  const args = { authorizer: from, nonce };
  const topics = encodeEventTopics({ abi: usdcAbi, eventName: "AuthorizationUsed", args });
  return await escrow.chain.emitted(
    token,
    topics.flatMap((topic) => (typeof topic === "string" ? [topic] : [])),
  );
}
