import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import type { Bytes32, HexBytes } from "@gpux/protocol/ids";
import { type Intent, type IntentResult, intentLeases } from "@gpux/protocol/intent";
import { parseEventLogs } from "viem";
import type { Block, Receipt } from "./chain.ts";
import { type Escrow, leaseState } from "./escrow-state.ts";

const abi = leaseEscrowAbi;
type Logs = ReturnType<typeof asLog>[];

/**
 * What a successful transaction's events say of one of the intents that it carried; null: nothing. Intents that could
 * not be told apart by them do not share a transaction (`claimsOf`).
 */
export async function resultOfEvents(
  escrow: Escrow,
  intent: Intent,
  receipt: Receipt,
  block: Block,
): Promise<IntentResult | null> {
  const logs = receipt.logs.filter((log) => log.address.toLowerCase() === escrow.address).map(asLog);
  switch (intent.kind) {
    case "fund": {
      const leases = await fundedIn(escrow, intent, logs, block);
      return leases.every(({ raised }) => raised)
        ? { kind: "fund", leases: leases.map(({ view }) => view) }
        : null;
    }
    case "allocate": {
      const leases = await fundedIn(escrow, intent, logs, block);
      // Targets that were reached before raise nothing, but one at least does.
      if (!leases.some(({ raised }) => raised)) return null;
      const perLease = new Map(leases.map(({ view, amount }) => [view.leaseId, amount]));
      const amount = [...perLease.values()].reduce((sum, each) => sum + each, 0n);
      return { kind: "allocate", leases: leases.map(({ view }) => view), amount: amount.toString() };
    }
    case "deposit": {
      const { from: payer, spender, meter } = intent;
      const args = { payer, spender, meter };
      const put = parseEventLogs({ abi, logs, eventName: "CreditDeposited", args })[0]?.args;
      return put === undefined
        ? null
        : { kind: "deposit", payer, spender, meter, amount: put.amount.toString() };
    }
    case "release": {
      const { payer, spender, meter } = intent;
      const args = { payer, spender, meter };
      if (intent.meterSignature !== undefined) {
        const amount = returnedIn(logs, args);
        return amount === null ? null : { kind: "release", ...args, releaseAt: null, amount };
      }
      const asked = parseEventLogs({ abi, logs, eventName: "ReleaseRequested", args })[0]?.args;
      return asked === undefined
        ? null
        : { kind: "release", ...args, releaseAt: Number(asked.releaseAt), amount: null };
    }
    case "reclaim_credit": {
      const { payer, spender, meter } = intent;
      const amount = returnedIn(logs, { payer, spender, meter });
      return amount === null ? null : { kind: "reclaim_credit", payer, spender, meter, amount };
    }
    case "revoke_meter": {
      const args = { meter: intent.meter };
      const revoked = parseEventLogs({ abi, logs, eventName: "MeterRevoked", args })[0];
      return revoked === undefined ? null : { kind: "revoke_meter", ...args, revokedAt: block.timestamp };
    }
    case "withdraw": {
      const args = { account: intent.account };
      const paid = parseEventLogs({ abi, logs, eventName: "Withdrawn", args })[0]?.args;
      return paid === undefined ? null : { kind: "withdraw", ...args, amount: paid.amount.toString() };
    }
    case "settle":
    case "close":
    case "exit":
    case "reclaim":
      return leaseEvents(intent, escrow.hasher.leaseTerms(intent.terms), logs);
  }
}

/** Each lease of the intent with what the transaction added to it. */
async function fundedIn(
  escrow: Escrow,
  intent: Extract<Intent, { kind: "fund" | "allocate" }>,
  logs: Logs,
  block: Block,
) {
  return await Promise.all(
    intentLeases(escrow.hasher, intent).map(async (leaseId) => {
      const args = { leaseId };
      // A lease that stands twice in one intent is raised twice; the last word is the sum.
      const raises = parseEventLogs({ abi, logs, eventName: "LeaseFunded", args });
      const opened = parseEventLogs({ abi, logs, eventName: "LeaseOpened", args })[0];
      const known = raises.length > 0 && opened !== undefined ? null : await leaseState(escrow, leaseId);
      const funded = raises.at(-1)?.args.funded ?? known?.funded ?? 0n;
      return {
        raised: raises.length > 0,
        amount: raises.reduce((sum, log) => sum + log.args.amount, 0n),
        view: { leaseId, funded: funded.toString(), openedAt: known?.openedAt ?? block.timestamp },
      };
    }),
  );
}

function returnedIn(
  logs: Logs,
  args: { readonly payer: HexBytes; readonly spender: HexBytes; readonly meter: HexBytes },
): string | null {
  const returned = parseEventLogs({ abi, logs, eventName: "CreditReleased", args })[0]?.args;
  return returned === undefined ? null : returned.amount.toString();
}

function leaseEvents(
  intent: Extract<Intent, { kind: "settle" | "close" | "exit" | "reclaim" }>,
  leaseId: Bytes32,
  logs: Logs,
): IntentResult | null {
  const args = { leaseId };
  if (intent.kind === "exit") {
    const exit = parseEventLogs({ abi, logs, eventName: "ExitRequested", args })[0]?.args;
    return exit === undefined ? null : { kind: "exit", leaseId, exitAt: Number(exit.exitAt) };
  }
  const closed = parseEventLogs({ abi, logs, eventName: "LeaseClosed", args })[0]?.args;
  if (intent.kind === "reclaim") {
    if (closed === undefined) return null;
    return { kind: "reclaim", leaseId, paid: closed.paid.toString(), refunded: closed.refunded.toString() };
  }
  // A settlement and a close of one lease may share a transaction; what was signed tells them apart.
  const settled = parseEventLogs({ abi, logs, eventName: "UsageSettled", args }).find(
    (log) => log.args.cumulative === intent.cumulative,
  )?.args;
  if (settled === undefined) return null;
  const fee = settled.fee.toString();
  if (intent.kind === "settle") return { kind: "settle", leaseId, paid: settled.paid.toString(), fee };
  if (closed === undefined) return null;
  return {
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
