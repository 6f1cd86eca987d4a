import { addresses } from "@gpux/protocol/addresses";
import type { Address, HexBytes } from "@gpux/protocol/ids";
import { encodeFunctionData, parseAbi, size } from "viem";
import { UsageError } from "../outcome.ts";
import type { Call } from "./escrow.ts";

/** OptimismPortal's door for transactions that the chain has to include (specs.optimism.io, deposits). */
export const portalAbi = parseAbi([
  "function depositTransaction(address _to, uint256 _value, uint64 _gasLimit, bool _isCreation, bytes _data) payable",
]);

/** The L1 transaction by which a call gets onto an OP chain without its sequencer. */
export interface PortalCall {
  /** Null where the portal was named by hand. */
  readonly l1ChainId: number | null;
  readonly to: Address;
  readonly data: HexBytes;
  readonly gasLimit: bigint;
}

/** The portal takes no gas limit below its own `minimumGasLimit`: 21,000 and 40 for each byte. */
const leastGas = (data: HexBytes): bigint => 21_000n + 40n * BigInt(size(data));

/**
 * The L2 sender becomes the caller on L1 (a contract's address is aliased), which means nothing to the escrow: it never
 * looks who calls.
 */
export function portalCall(call: Call, chainId: number, named: Address | undefined): PortalCall {
  const known = addresses[chainId]?.l1;
  const to = named ?? known?.portal;
  if (to === undefined)
    throw new UsageError(
      `No OptimismPortal is known for chain ${chainId}`,
      "Name it with --portal; the chain's documentation or the superchain registry has it.",
    );
  let gasLimit = leastGas(call.data);
  if (call.gas > gasLimit) gasLimit = call.gas;
  const data = encodeFunctionData({
    abi: portalAbi,
    functionName: "depositTransaction",
    args: [call.to, 0n, gasLimit, false, call.data],
  });
  return { l1ChainId: named === undefined ? (known?.chainId ?? null) : null, to, data, gasLimit };
}
