import { Bytes32 } from "@gpux/protocol/ids";
import {
  type Intent,
  type IntentResult,
  intentLeases,
  intentNonce,
  releaseDigest,
} from "@gpux/protocol/intent";
import type { TypedDataHasher } from "@gpux/protocol/typed-data-encoder";
import type { Block, Receipt } from "./chain.ts";
import {
  authorizationUsed,
  creditState,
  type Escrow,
  leaseState,
  meterRevokedAt,
  owed,
  releaseUsed,
  STATUS,
} from "./escrow-state.ts";
import { resultOfEvents } from "./events.ts";
import { NodeFault } from "./json-rpc.ts";
import type { Fulfilment } from "./machine.ts";

export type { Escrow } from "./escrow-state.ts";

/** What came of an intent, from the two places where the truth is: the escrow's state, and its events. */
async function resultOfState(escrow: Escrow, intent: Intent): Promise<IntentResult | null> {
  const { hasher } = escrow;
  switch (intent.kind) {
    case "fund": {
      const leases = await leasesOf(escrow, intent);
      if (leases.some((each) => each.status === STATUS.none)) return null;
      if (!(await authorizationUsed(escrow, intent.from, intentNonce(hasher, intent)))) return null;
      return { kind: "fund", leases: leases.map(fundedLease) };
    }
    case "deposit": {
      if (!(await authorizationUsed(escrow, intent.from, intentNonce(hasher, intent)))) return null;
      const { from: payer, spender, meter, amount } = intent;
      return { kind: "deposit", payer, spender, meter, amount: amount.toString() };
    }
    case "allocate": {
      const leases = await leasesOf(escrow, intent);
      const reached = leases.every((lease, n) => lease.funded >= (intent.fundedTo[n] ?? 0n));
      return reached ? { kind: "allocate", leases: leases.map(fundedLease), amount: null } : null;
    }
    case "release": {
      const { payer, spender, meter, meterSignature } = intent;
      if (!(await releaseUsed(escrow, releaseDigest(hasher, intent)))) return null;
      const { releaseAt } = await creditState(escrow, intent);
      // Co-signed it means that all is back; what still waits, the meter's signature can hasten.
      if (meterSignature !== undefined && releaseAt > 0) return null;
      return { kind: "release", payer, spender, meter, releaseAt: releaseAt || null, amount: null };
    }
    case "reclaim_credit": {
      const { payer, spender, meter } = intent;
      const { releaseAt } = await creditState(escrow, intent);
      // One that a reorganisation landed anew is due later than the intent says, and is no less to be waited for.
      return releaseAt > 0 ? null : { kind: "reclaim_credit", payer, spender, meter, amount: null };
    }
    case "revoke_meter": {
      const revokedAt = await meterRevokedAt(escrow, intent.meter);
      return revokedAt > 0n
        ? { kind: "revoke_meter", meter: intent.meter, revokedAt: Number(revokedAt) }
        : null;
    }
    case "withdraw": {
      const rest = await owed(escrow, intent.account);
      return rest === 0n ? { kind: "withdraw", account: intent.account, amount: "0" } : null;
    }
    case "settle":
    case "close":
    case "exit":
    case "reclaim":
      return resultOfLease(intent, await leaseState(escrow, hasher.leaseTerms(intent.terms)));
  }
}

type LeaseState = Awaited<ReturnType<typeof leaseState>>;

async function leasesOf(escrow: Escrow, intent: Intent): Promise<LeaseState[]> {
  return await Promise.all(intentLeases(escrow.hasher, intent).map((id) => leaseState(escrow, id)));
}

const fundedLease = ({ id, funded, openedAt }: LeaseState) => ({
  leaseId: id,
  funded: funded.toString(),
  openedAt,
});

function resultOfLease(
  intent: Extract<Intent, { kind: "settle" | "close" | "exit" | "reclaim" }>,
  lease: LeaseState,
): IntentResult | null {
  const leaseId = lease.id;
  const paid = lease.paid.toString();
  const refunded = (lease.funded - lease.paid).toString();
  const closed = lease.status === STATUS.closed;
  switch (intent.kind) {
    case "settle":
      return lease.paid >= intent.cumulative && lease.status !== STATUS.none
        ? { kind: "settle", leaseId, paid, fee: null }
        : null;
    case "close":
      return closed ? { kind: "close", leaseId, paid, refunded, fee: null } : null;
    case "reclaim":
      return closed ? { kind: "reclaim", leaseId, paid, refunded } : null;
    case "exit": {
      const cosigned = intent.meterSignature !== undefined;
      const asked = lease.status === STATUS.exitingCosigned || (!cosigned && lease.status === STATUS.exiting);
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

/** Token base units that an intent moves now; null for what moves none by itself. */
export async function valueMoved(escrow: Escrow, intent: Intent): Promise<bigint | null> {
  switch (intent.kind) {
    case "fund":
      return intent.amounts.reduce((sum, amount) => sum + amount, 0n);
    case "deposit":
      return intent.amount;
    case "allocate": {
      const leases = await leasesOf(escrow, intent);
      return intent.fundedTo.reduce((sum, target, n) => {
        const funded = leases[n]?.funded ?? 0n;
        return target > funded ? sum + target - funded : sum;
      }, 0n);
    }
    case "settle": {
      const { paid } = await leaseState(escrow, escrow.hasher.leaseTerms(intent.terms));
      return intent.cumulative > paid ? intent.cumulative - paid : 0n;
    }
    case "close":
    case "reclaim": {
      const { funded, paid } = await leaseState(escrow, escrow.hasher.leaseTerms(intent.terms));
      return funded - paid;
    }
    case "release":
    case "reclaim_credit":
      return (await creditState(escrow, intent)).amount;
    case "withdraw":
      return await owed(escrow, intent.account);
    case "exit":
    case "revoke_meter":
      return null;
  }
}

/** Whether a lease's last voucher has to land before somebody takes the rest back. */
export async function isExiting(escrow: Escrow, lease: Bytes32): Promise<boolean> {
  const { status } = await leaseState(escrow, lease);
  return status === STATUS.exiting || status === STATUS.exitingCosigned;
}

/** What an entry says of itself by its events: two with one in common could not be told apart in a receipt. */
export function claimsOf(hasher: TypedDataHasher, intent: Intent): string[] {
  switch (intent.kind) {
    // Both make LeaseFunded.
    case "fund":
    case "allocate":
      return intentLeases(hasher, intent).map((lease) => `funded:${lease}`);
    case "settle":
    case "close":
    case "exit":
    case "reclaim":
      return intentLeases(hasher, intent).map((lease) => `${intent.kind}:${lease}`);
    case "deposit":
      return [`deposit:${intent.from}:${intent.spender}:${intent.meter}`];
    // Both make CreditReleased.
    case "release":
    case "reclaim_credit":
      return [`released:${intent.payer}:${intent.spender}:${intent.meter}`];
    case "revoke_meter":
      return [`revoke_meter:${intent.meter}`];
    case "withdraw":
      return [`withdraw:${intent.account}`];
  }
}
