import type { HexBytes as Hex } from "@gpux/protocol/ids";
import { encodeFunctionData, parseAbi } from "viem";
import { z } from "zod";
import { Count, connect, HexData, type JsonRpc, NodeFault, Quantity } from "./json-rpc.ts";

/** The few questions the relayer has for a chain. @throws NodeFault from each when no node answers sensibly. */
export interface Chain {
  /** The latest block, or the one of that height; null when there is none yet. */
  head(): Promise<Block>;
  block(height: number): Promise<Block | null>;
  /** How many of the account's transactions are on chain: the next nonce that can land. */
  transactionCount(address: Hex): Promise<number>;
  balance(address: Hex): Promise<bigint>;
  /** Of the latest block. `gas` bounds it as the transaction's own limit would. */
  call(call: Call): Promise<CallOutcome>;
  receipt(hash: Hex): Promise<Receipt | null>;
  /** Whether `contract` emitted an event with these topics in the last {@link LOG_BLOCKS} blocks. */
  emitted(contract: Hex, topics: readonly Hex[]): Promise<boolean>;
  send(raw: Hex): Promise<SendOutcome>;
  /** What L1 data and the operator take on top of gas, by the chain's own oracle; zero off Optimism. */
  surcharge(unsigned: Hex, gas: bigint): Promise<bigint>;
  /** What the node thinks a block builder wants; may be anything, the caller bounds it. */
  suggestedTip(): Promise<bigint>;
}

export interface Call {
  readonly to: Hex;
  readonly data: Hex;
  readonly gas?: bigint;
}
export type CallOutcome =
  | { readonly ok: true; readonly data: Hex }
  | { readonly ok: false; readonly data: Hex; readonly message: string };

/**
 * `taken`: the nonce is used on chain, perhaps by this very transaction. `known`: the node has it already, or another
 * one of the same nonce that it will not give up for it.
 */
export type SendOutcome = "accepted" | "known" | "taken";

const Hash = z.templateLiteral(["0x", z.string().regex(/^[0-9a-fA-F]{64}$/)]);
const Block = z.looseObject({ number: Count, hash: Hash, timestamp: Count, baseFeePerGas: Quantity });
export type Block = z.output<typeof Block>;

const Log = z.looseObject({ address: HexData, topics: z.array(Hash).max(4), data: HexData });
type Log = z.output<typeof Log>;
const isTopicOf = (log: Log) => (topic: Hex, index: number) => log.topics[index]?.toLowerCase() === topic;
const Receipt = z.looseObject({
  transactionHash: Hash,
  status: z.enum(["0x0", "0x1"]),
  blockNumber: Count,
  blockHash: Hash,
  gasUsed: Quantity,
  effectiveGasPrice: Quantity,
  l1Fee: Quantity.optional(),
  logs: z.array(Log).max(1_000),
});
export type Receipt = z.output<typeof Receipt>;

/** The range that public nodes grant; more than five hours on Optimism. */
const LOG_BLOCKS = 9_000;

/** The OP Stack's predeploy GasPriceOracle. */
const ORACLE: Hex = "0x420000000000000000000000000000000000000f";
const oracleAbi = parseAbi([
  "function getL1Fee(bytes data) view returns (uint256)",
  "function getOperatorFee(uint256 gasUsed) view returns (uint256)",
]);

/** Nodes agree on no codes here, only roughly on words; anything unclear is a fault and tried again. */
function sendOutcome(message: string): SendOutcome | null {
  if (/already known|already imported|known transaction|already exists|underpriced/i.test(message))
    return "known";
  if (/nonce too low|nonce.*(?:too low|already used|lower)|already been used|OldNonce/i.test(message))
    return "taken";
  return null;
}

/** A call that the chain ran and refused, told apart from a node that did not run it. */
function isRevert(refusal: { code: number; message: string; data: Hex | null }): boolean {
  return refusal.code === 3 || refusal.data !== null || /revert|out of gas/i.test(refusal.message);
}

export function openChain(urls: readonly string[], chainId: number): Chain {
  const rpc = connect(urls, chainId);
  const must = async <T>(method: string, params: readonly unknown[], schema: z.ZodType<T>): Promise<T> => {
    const answer = await rpc(method, params, schema);
    if (!answer.ok) throw new NodeFault(`${method}: ${answer.message}`);
    return answer.value;
  };
  const call = (request: Call) => callOf(rpc, request);
  const oracle = async (data: Hex) => {
    const answer = await call({ to: ORACLE, data });
    // No oracle (not an OP chain), or one from before the operator fee.
    if (!answer.ok || answer.data === "0x") return 0n;
    const fee = Quantity.safeParse(answer.data);
    if (!fee.success) throw new NodeFault("the gas price oracle answered no number");
    return fee.data;
  };
  return {
    head: () => must("eth_getBlockByNumber", ["latest", false], Block),
    block: (height) => must("eth_getBlockByNumber", [`0x${height.toString(16)}`, false], Block.nullable()),
    transactionCount: (address) => must("eth_getTransactionCount", [address, "latest"], Count),
    balance: (address) => must("eth_getBalance", [address, "latest"], Quantity),
    call,
    async receipt(hash) {
      const receipt = await must("eth_getTransactionReceipt", [hash], Receipt.nullable());
      if (receipt !== null && receipt.transactionHash.toLowerCase() !== hash) {
        throw new NodeFault("the receipt is of another transaction");
      }
      return receipt;
    },
    async emitted(contract, topics) {
      const { number } = await must("eth_getBlockByNumber", ["latest", false], Block);
      const fromBlock = `0x${Math.max(0, number - LOG_BLOCKS).toString(16)}`;
      const filter = { address: contract, topics, fromBlock, toBlock: "latest" };
      const logs = await must("eth_getLogs", [filter], z.array(Log).max(100));
      return logs.some(
        (log) => log.address.toLowerCase() === contract.toLowerCase() && topics.every(isTopicOf(log)),
      );
    },
    async send(raw) {
      const answer = await rpc("eth_sendRawTransaction", [raw], Hash);
      if (answer.ok) return "accepted";
      const outcome = sendOutcome(answer.message);
      if (outcome === null) throw new NodeFault(`eth_sendRawTransaction: ${answer.message}`);
      return outcome;
    },
    async surcharge(unsigned, gas) {
      const fees = [
        encodeFunctionData({ abi: oracleAbi, functionName: "getL1Fee", args: [unsigned] }),
        encodeFunctionData({ abi: oracleAbi, functionName: "getOperatorFee", args: [gas] }),
      ];
      return (await Promise.all(fees.map(oracle))).reduce((sum, fee) => sum + fee);
    },
    suggestedTip: () => must("eth_maxPriorityFeePerGas", [], Quantity),
  };
}

async function callOf(rpc: JsonRpc, request: Call): Promise<CallOutcome> {
  const { to, data, gas } = request;
  const fields = {
    to,
    data,
    ...(gas === undefined ? {} : { gas: `0x${gas.toString(16)}` }),
  };
  const answer = await rpc("eth_call", [fields, "latest"], HexData);
  if (answer.ok) return { ok: true, data: answer.value };
  if (!isRevert(answer)) throw new NodeFault(`eth_call: ${answer.message}`);
  return { ok: false, data: answer.data ?? "0x", message: answer.message };
}
