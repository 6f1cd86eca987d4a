import type { HexBytes as Hex } from "@gpux/protocol/ids";
import { encodeFunctionData, parseAbi } from "viem";
import { z } from "zod";
import { type Ask, Count, connect, HexData, type JsonRpc, NodeFault, Quantity } from "./json-rpc.ts";

/** The few questions the relayer has for a chain. @throws NodeFault from each when no node answers sensibly. */
export interface Chain {
  head(): Promise<Block>;
  /** The block of that height, or the newest of that standing; null when there is none yet. */
  block(height: number | "safe" | "finalized"): Promise<Block | null>;
  /** How many of the account's transactions are on chain: the next nonce that can land. The least of two nodes. */
  transactionCount(address: Hex): Promise<number>;
  balance(address: Hex): Promise<bigint>;
  hasCode(address: Hex): Promise<boolean>;
  /** Of the latest block. `gas` bounds it as the transaction's own limit would. */
  call(call: Call): Promise<CallOutcome>;
  /** @throws NodeFault also when two nodes contradict each other: one of them lies. */
  receipt(hash: Hex): Promise<Receipt | null>;
  /** Whether `contract` emitted an event with these topics in the last {@link LOG_BLOCKS} blocks. */
  emitted(contract: Hex, topics: readonly Hex[]): Promise<boolean>;
  /** The second topics (first indexed arguments) of `contract`'s events `signature` from block to block. */
  indexed(contract: Hex, signature: Hex, from: number, to: number): Promise<readonly Hex[]>;
  /** The same questions about the state after that block, where `call` and `emitted` mean the latest. */
  at(block: Block): Pick<Chain, "call" | "emitted">;
  send(raw: Hex): Promise<SendOutcome>;
  /** What L1 data and the operator take on top of gas, by the chain's own oracle; zero off Optimism. */
  surcharge(unsigned: Hex, gas: bigint): Promise<bigint>;
  /** What the node thinks a block builder wants; may be anything, the caller bounds it. */
  suggestedTip(): Promise<bigint>;
  endpoints: JsonRpc["endpoints"];
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
 * `known`: the node has it already. `taken`: the nonce is used on chain, perhaps by this very transaction.
 * `underpriced`: too little for the node's pool, or too little to push out another of the same nonce. `poor`: the node
 * thinks that the key cannot pay for it. `early`: it lacks a nonce below, and queues nothing.
 */
export type SendOutcome = "accepted" | "known" | "taken" | "underpriced" | "poor" | "early";

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
export const LOG_BLOCKS = 9_000;

/** The OP Stack's predeploy GasPriceOracle. */
const ORACLE: Hex = "0x420000000000000000000000000000000000000f";
const oracleAbi = parseAbi([
  "function getL1Fee(bytes data) view returns (uint256)",
  "function getOperatorFee(uint256 gasUsed) view returns (uint256)",
]);

/** Nodes agree on no codes here, only roughly on words; anything unclear is a fault and tried again. */
function sendOutcome(message: string): SendOutcome | null {
  if (/already known|already imported|known transaction|already exists|already in the mempool/i.test(message))
    return "known";
  if (/underpriced|fee too low|less than block base fee|max fee per gas less/i.test(message))
    return "underpriced";
  if (/nonce too high|nonce.*too far/i.test(message)) return "early";
  if (/nonce too low|nonce.*(?:too low|already used|lower)|already been used|OldNonce/i.test(message))
    return "taken";
  if (/insufficient funds|doesn't have enough funds|not enough funds/i.test(message)) return "poor";
  return null;
}

/** A call that the chain ran and refused, told apart from a node that did not run it. */
function isRevert(refusal: { code: number; message: string; data: Hex | null }): boolean {
  return refusal.code === 3 || refusal.data !== null || /revert|out of gas/i.test(refusal.message);
}

const hex = (number: number) => `0x${number.toString(16)}`;

/** What must not differ between two nodes that both know a transaction. */
const substance = (receipt: Receipt) =>
  JSON.stringify([
    receipt.status,
    receipt.blockHash.toLowerCase(),
    receipt.gasUsed.toString(),
    receipt.effectiveGasPrice.toString(),
    (receipt.l1Fee ?? 0n).toString(),
    receipt.logs.map(({ address, topics, data }) => [address, topics, data]),
  ]).toLowerCase();

export function openChain(urls: readonly string[], chainId: number, timeoutMs: number): Chain {
  const rpc = connect(urls, chainId, timeoutMs);
  const must = async <T>(method: string, params: readonly unknown[], schema: z.ZodType<T>): Promise<T> => {
    const answer = await rpc.ask(method, params, schema);
    if (!answer.ok) throw new NodeFault(`${method}: ${answer.message}`);
    return answer.value;
  };
  const call = (request: Call) => callOf(rpc.ask, request, "latest");
  const emitted = async (contract: Hex, topics: readonly Hex[], newest: number) => {
    const [fromBlock, toBlock] = [hex(Math.max(0, newest - LOG_BLOCKS)), hex(newest)];
    const filter = { address: contract, topics, fromBlock, toBlock };
    const logs = await must("eth_getLogs", [filter], z.array(Log).max(100));
    return logs.some(
      (log) => log.address.toLowerCase() === contract.toLowerCase() && topics.every(isTopicOf(log)),
    );
  };
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
    async block(height) {
      if (typeof height === "number")
        return must("eth_getBlockByNumber", [hex(height), false], Block.nullable());
      // What is final for one node and not for another is not: the lower one counts. Some nodes know no such names.
      const found = await rpc.askSeveral("eth_getBlockByNumber", [height, false], Block.nullable());
      return found.reduce(
        (low, each) => (low === null || each === null || each.number < low.number ? each : low),
        found[0] ?? null,
      );
    },
    async transactionCount(address) {
      const counts = await rpc.askSeveral("eth_getTransactionCount", [address, "latest"], Count);
      if (counts.length === 0) throw new NodeFault("eth_getTransactionCount: no node answers");
      return Math.min(...counts);
    },
    balance: (address) => must("eth_getBalance", [address, "latest"], Quantity),
    hasCode: async (address) => (await must("eth_getCode", [address, "latest"], HexData)) !== "0x",
    call,
    async receipt(hash) {
      const found = await rpc.askSeveral("eth_getTransactionReceipt", [hash], Receipt.nullable());
      const [receipt, second] = found;
      if (receipt === undefined) throw new NodeFault("eth_getTransactionReceipt: no node answers");
      // A node that lags has not seen it yet: it is not there until both have.
      if (receipt === null || second === null) return null;
      if (receipt.transactionHash.toLowerCase() !== hash) {
        throw new NodeFault("the receipt is of another transaction");
      }
      if (second !== undefined && substance(second) !== substance(receipt)) {
        throw new NodeFault("two nodes contradict each other on a receipt");
      }
      return receipt;
    },
    async emitted(contract, topics) {
      const { number } = await must("eth_getBlockByNumber", ["latest", false], Block);
      return await emitted(contract, topics, number);
    },
    at: ({ number }) => ({
      call: (request) => callOf(rpc.ask, request, hex(number)),
      emitted: (contract, topics) => emitted(contract, topics, number),
    }),
    async indexed(contract, signature, from, to) {
      const [fromBlock, toBlock] = [hex(from), hex(to)];
      const filter = { address: contract, topics: [signature], fromBlock, toBlock };
      const logs = await must("eth_getLogs", [filter], z.array(Log).max(5_000));
      const own = logs.filter((log) => isTopicOf(log)(signature, 0));
      return own.flatMap((log) => (log.topics[1] === undefined ? [] : [log.topics[1]]));
    },
    async send(raw) {
      const answer = await rpc.ask("eth_sendRawTransaction", [raw], Hash);
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
    endpoints: rpc.endpoints,
  };
}

async function callOf(ask: Ask, request: Call, block: string): Promise<CallOutcome> {
  const { to, data, gas } = request;
  const fields = {
    to,
    data,
    ...(gas === undefined ? {} : { gas: `0x${gas.toString(16)}` }),
  };
  const answer = await ask("eth_call", [fields, block], HexData);
  if (answer.ok) return { ok: true, data: answer.value };
  if (!isRevert(answer)) throw new NodeFault(`eth_call: ${answer.message}`);
  return { ok: false, data: answer.data ?? "0x", message: answer.message };
}
