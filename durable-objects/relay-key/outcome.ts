import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import { usdcAbi } from "@gpux/protocol/abi/usdc";
import { type Address, Bytes32, type HexBytes } from "@gpux/protocol/ids";
import { type Intent, type IntentResult, intentLeases, intentNonce } from "@gpux/protocol/intent";
import type { TypedDataHasher } from "@gpux/protocol/typed-data-encoder";
import { decodeFunctionResult, encodeEventTopics, encodeFunctionData, parseEventLogs } from "viem";
import type { Block, Chain, Receipt } from "./chain.ts";
import { NodeFault } from "./json-rpc.ts";
import type { Fulfilment } from "./machine.ts";
import { CLOSED } from "./refusal.ts";

/** What came of an intent, from the two places where the truth is: the escrow's state, and its events. */
export interface Escrow {
  readonly chain: Chain;
  readonly hasher: TypedDataHasher;
  readonly address: Address;
}

const NONE = 0;
const EXITING = 2;
const EXITING_COSIGNED = 3;

async function answer(escrow: Escrow, to: HexBytes, data: HexBytes): Promise<HexBytes> {
  const result = await escrow.chain.call({ to, data });
  if (!result.ok) throw new NodeFault(`a view of ${to} reverted: ${result.message}`);
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

async function leaseState(escrow: Escrow, id: Bytes32) {
  const call = { abi: leaseEscrowAbi, functionName: "leases" } as const;
  const data = await answer(escrow, escrow.address, encodeFunctionData({ ...call, args: [id] }));
  const [funded, paid, openedAt, exitAt, status] = decoded(() => decodeFunctionResult({ ...call, data }));
  return { id, funded, paid, openedAt, exitAt, status };
}

/**
 * The token says of a nonce only that it is spent: by the funding, or because its payer cancelled the authorization.
 * The event tells which; one older than nodes look back counts as not found, and the intent as refused.
 */
async function authorizationUsed(escrow: Escrow, from: Address, nonce: Bytes32): Promise<boolean> {
  const call = { abi: leaseEscrowAbi, functionName: "token" } as const;
  const data = await answer(escrow, escrow.address, encodeFunctionData(call));
  const token = decoded(() => decodeFunctionResult({ ...call, data }));
  const args = { authorizer: from, nonce };
  const topics = encodeEventTopics({ abi: usdcAbi, eventName: "AuthorizationUsed", args });
  return await escrow.chain.emitted(
    token,
    topics.flatMap((topic) => (typeof topic === "string" ? [topic] : [])),
  );
}

async function owed(escrow: Escrow, account: Address): Promise<bigint> {
  const call = { abi: leaseEscrowAbi, functionName: "owed" } as const;
  const data = await answer(escrow, escrow.address, encodeFunctionData({ ...call, args: [account] }));
  return decoded(() => decodeFunctionResult({ ...call, data }));
}

async function resultOfState(escrow: Escrow, intent: Intent): Promise<IntentResult | null> {
  if (intent.kind === "withdraw") {
    const rest = await owed(escrow, intent.account);
    return rest === 0n ? { kind: "withdraw", account: intent.account, amount: "0" } : null;
  }
  const leases = await Promise.all(intentLeases(escrow.hasher, intent).map((id) => leaseState(escrow, id)));
  const [lease] = leases;
  if (lease === undefined) return null;
  const leaseId = lease.id;
  const paid = lease.paid.toString();
  const refunded = (lease.funded - lease.paid).toString();
  switch (intent.kind) {
    case "fund": {
      if (leases.some((each) => each.status === NONE)) return null;
      if (!(await authorizationUsed(escrow, intent.from, intentNonce(escrow.hasher, intent)))) return null;
      const funded = leases.map((each) => ({
        leaseId: each.id,
        funded: each.funded.toString(),
        openedAt: each.openedAt,
      }));
      return { kind: "fund", leases: funded };
    }
    case "settle":
      return lease.paid >= intent.cumulative && lease.status !== NONE
        ? { kind: "settle", leaseId, paid, fee: null }
        : null;
    case "close":
      return lease.status === CLOSED ? { kind: "close", leaseId, paid, refunded, fee: null } : null;
    case "reclaim":
      return lease.status === CLOSED ? { kind: "reclaim", leaseId, paid, refunded } : null;
    case "exit": {
      const cosigned = intent.meterSignature !== undefined;
      const asked = lease.status === EXITING_COSIGNED || (!cosigned && lease.status === EXITING);
      return asked ? { kind: "exit", leaseId, exitAt: lease.exitAt } : null;
    }
  }
}

/**
 * Asks several questions of the newest block alone.
 * @throws NodeFault also when that block is gone afterwards: the answers may be of two chains.
 */
export async function ofOneBlock<T>(
  escrow: Escrow,
  ask: (then: Escrow, block: Block) => Promise<T>,
): Promise<T> {
  const { chain } = escrow;
  const block = await chain.head();
  const answer = await ask({ ...escrow, chain: { ...chain, ...chain.at(block) } }, block);
  if ((await chain.block(block.number))?.hash !== block.hash)
    throw new NodeFault("the chain changed while it was asked");
  return answer;
}

/**
 * Whether the state after `block`, of which `then` speaks, is what the intent wants, whoever brought it about; null when
 * not. That nothing is owed does not say that all was paid while what it `restsOn` has yet to land, or was taken back:
 * `premature`.
 */
export async function fulfilmentByState(
  then: Escrow,
  block: Block,
  intent: Intent,
  restsOn: readonly Intent[],
): Promise<Fulfilment | "premature" | null> {
  const result = await resultOfState(then, intent);
  if (result === null) return null;
  const grounds = await Promise.all(restsOn.map((each) => resultOfState(then, each)));
  if (grounds.includes(null)) return "premature";
  return {
    blockNumber: block.number,
    blockHash: Bytes32.parse(block.hash),
    blockTimestamp: block.timestamp,
    result,
  };
}

/** Token base units that an intent moves now; null for what moves none by itself. */
export async function valueMoved(escrow: Escrow, intent: Intent): Promise<bigint | null> {
  switch (intent.kind) {
    case "fund":
      return intent.amounts.reduce((sum, amount) => sum + amount, 0n);
    case "withdraw":
      return await owed(escrow, intent.account);
    case "settle": {
      const { paid } = await leaseState(escrow, escrow.hasher.leaseTerms(intent.terms));
      return intent.cumulative > paid ? intent.cumulative - paid : 0n;
    }
    case "close":
    case "reclaim": {
      const { funded, paid } = await leaseState(escrow, escrow.hasher.leaseTerms(intent.terms));
      return funded - paid;
    }
    case "exit":
      return null;
  }
}

/** Whether a lease's last voucher has to land before somebody takes the rest back. */
export async function isExiting(escrow: Escrow, lease: Bytes32): Promise<boolean> {
  const { status } = await leaseState(escrow, lease);
  return status === EXITING || status === EXITING_COSIGNED;
}

/** What an entry says of itself by its events: two with one in common could not be told apart in a receipt. */
export function claimsOf(hasher: TypedDataHasher, intent: Intent): string[] {
  if (intent.kind === "withdraw") return [`withdraw:${intent.account}`];
  return intentLeases(hasher, intent).map((lease) => `${intent.kind}:${lease}`);
}

async function resultOfEvents(
  escrow: Escrow,
  intent: Intent,
  receipt: Receipt,
  block: Block,
): Promise<IntentResult | null> {
  const own = receipt.logs.filter((log) => log.address.toLowerCase() === escrow.address);
  const logs = own.map(asLog);
  const abi = leaseEscrowAbi;
  if (intent.kind === "withdraw") {
    const args = { account: intent.account };
    const paid = parseEventLogs({ abi, logs, eventName: "Withdrawn", args })[0]?.args;
    return paid === undefined
      ? null
      : { kind: "withdraw", account: intent.account, amount: paid.amount.toString() };
  }
  const ids = intentLeases(escrow.hasher, intent);
  if (intent.kind === "fund") {
    const leases = [];
    for (const leaseId of ids) {
      const args = { leaseId };
      const funded = parseEventLogs({ abi, logs, eventName: "LeaseFunded", args })[0]?.args;
      const opened = parseEventLogs({ abi, logs, eventName: "LeaseOpened", args })[0];
      if (funded === undefined) return null;
      const openedAt = opened === undefined ? (await leaseState(escrow, leaseId)).openedAt : block.timestamp;
      leases.push({ leaseId, funded: funded.funded.toString(), openedAt });
    }
    return { kind: "fund", leases };
  }
  const [leaseId] = ids;
  if (leaseId === undefined) return null;
  const args = { leaseId };
  if (intent.kind === "exit") {
    const exit = parseEventLogs({ abi, logs, eventName: "ExitRequested", args })[0]?.args;
    return exit === undefined ? null : { kind: "exit", leaseId, exitAt: Number(exit.exitAt) };
  }
  const closed = parseEventLogs({ abi, logs, eventName: "LeaseClosed", args })[0]?.args;
  if (intent.kind === "reclaim") {
    return closed === undefined
      ? null
      : {
          kind: "reclaim",
          leaseId,
          paid: closed.paid.toString(),
          refunded: closed.refunded.toString(),
        };
  }
  // A settlement and a close of one lease may share a transaction; what was signed tells them apart.
  const settled = parseEventLogs({ abi, logs, eventName: "UsageSettled", args }).find(
    (log) => log.args.cumulative === intent.cumulative,
  )?.args;
  if (settled === undefined) return null;
  const fee = settled.fee.toString();
  if (intent.kind === "settle") return { kind: "settle", leaseId, paid: settled.paid.toString(), fee };
  return closed === undefined
    ? null
    : {
        kind: "close",
        leaseId,
        paid: closed.paid.toString(),
        refunded: closed.refunded.toString(),
        fee,
      };
}

/** What viem wants around topics and data; none of the rest is read here. */
function asLog(log: Receipt["logs"][number]) {
  const [signature, ...indexed] = log.topics;
  const topics: [] | [HexBytes, ...HexBytes[]] = signature === undefined ? [] : [signature, ...indexed];
  return {
    address: log.address,
    data: log.data,
    topics,
    blockHash: null,
    blockNumber: null,
    blockTimestamp: undefined,
    logIndex: null,
    transactionHash: null,
    transactionIndex: null,
    removed: false,
  };
}

/** What a successful transaction of ours did for an intent in `block`; null when it has none of the intent's events. */
export async function fulfilmentByReceipt(
  escrow: Escrow,
  intent: Intent,
  receipt: Receipt,
  block: Block,
): Promise<Fulfilment | null> {
  const result = await resultOfEvents(escrow, intent, receipt, block);
  if (result === null) return null;
  return {
    blockNumber: block.number,
    blockHash: Bytes32.parse(block.hash),
    blockTimestamp: block.timestamp,
    result,
  };
}
