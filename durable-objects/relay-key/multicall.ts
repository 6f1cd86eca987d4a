import type { HexBytes } from "@gpux/protocol/ids";
import { decodeFunctionResult, encodeFunctionData, multicall3Abi } from "viem";
import { ENTRY_GAS } from "./batch.ts";

/**
 * Several calls of ours in one transaction, each succeeding or failing by itself. Any contract may call the escrow for
 * anybody: `msg.sender` carries no authority there.
 */
export interface EntryCall {
  readonly data: HexBytes;
  readonly gas: bigint;
}

/** Twenty entries' loop, memory and the transaction itself. */
const BASE_GAS = 60_000n;

export function batchCall(escrow: HexBytes, entries: readonly EntryCall[]): EntryCall {
  const calls = entries.map(({ data }) => ({ target: escrow, allowFailure: true, callData: data }));
  return {
    data: encodeFunctionData({ abi: multicall3Abi, functionName: "aggregate3", args: [calls] }),
    gas: entries.reduce((sum, { gas }) => sum + gas + ENTRY_GAS, BASE_GAS),
  };
}

/** Which entries went well; null when the answer is not that of a Multicall3 (none is deployed there, or a lie). */
export function batchOutcome(answer: HexBytes, entries: number): readonly boolean[] | null {
  try {
    const results = decodeFunctionResult({ abi: multicall3Abi, functionName: "aggregate3", data: answer });
    return results.length === entries ? results.map(({ success }) => success) : null;
  } catch {
    return null;
  }
}
