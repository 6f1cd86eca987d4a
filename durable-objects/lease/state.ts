import { LeaseTerms, Seconds } from "@gpux/protocol/eip712";
import { AutoTopUp, fundingAmount, isFromCredit, LeaseFunding } from "@gpux/protocol/funding";
import { Address, Bytes32, HexBytes, type JobId, LeaseId } from "@gpux/protocol/ids";
import { SignedAllowance } from "@gpux/protocol/job";
import { LeaseEnd, LeaseStatus, LeaseTransaction, QuoteText, WIND_UP_S } from "@gpux/protocol/lease";
import { Frontier } from "@gpux/protocol/merkle";
import { Amount } from "@gpux/protocol/money";
import { FundingPlan } from "@gpux/protocol/order";
import { z } from "zod";
import { isSettledReceipt, type Job, ReceiptState, receiptsOf, Time } from "./job-state.ts";
import { NOT_SERVED, Service } from "./service-state.ts";

/** Time of a dedicated lease that is billed and that no voucher covers yet. */
export const Tick = z.strictObject({ from: Time, to: Time, receipt: ReceiptState });
export type Tick = z.output<typeof Tick>;

/** The newest usage that provider and meter have signed; before 0.2 the meter's could be missing yet. */
const Voucher = z.strictObject({
  cumulative: Amount,
  evidence: Bytes32,
  sequence: z.int().min(0),
  provider: HexBytes,
  meter: HexBytes.nullable(),
});

/** A usage under way: what the provider was asked to sign, or has signed and the meter not yet. */
const Block = z.strictObject({
  /** Its last receipt. */
  sequence: z.int().min(1),
  cumulative: Amount,
  evidence: Bytes32,
  provider: HexBytes.nullable(),
});

const Closing = z.strictObject({
  /** Seconds. */
  validBefore: Seconds,
  provider: HexBytes.nullable(),
  meter: HexBytes.nullable(),
});

/** Money that is on its way to the lease; what cannot land stays until it is asked for again or makes room. */
const TopUp = z.strictObject({
  funding: LeaseFunding,
  refused: z
    .strictObject({
      reason: z.enum(["insufficient_funds", "insufficient_credit", "funding_failed"]),
      detail: z.string(),
    })
    .nullable(),
});

/** When the relayer last said that the funding stands, and whether a reorganisation can still take it (funding.ts). */
const Watch = z.strictObject({ at: Time, isHard: z.boolean() });

/** How much of the voucher the relayer keeps, to land it should the payer exit, and since when (duties.ts). */
const Held = z.strictObject({ cumulative: Amount, at: Time });

/** What the lease must still get done outside, beyond what its other fields imply (duties.ts). */
const Errands = z.strictObject({
  /** The node was told to dial. */
  opened: z.boolean(),
  /** The meter's clock was started. */
  metered: z.boolean(),
  /** The node's GPUs were given back. */
  released: z.boolean(),
  /** Accounts still to be paid out after the money was freed. */
  withdraw: z.array(Address),
});

/** Whether the node keeps its GPUs for the lease (capacity.ts). */
const Capacity = z.strictObject({
  /** `held`: they are its own. `resting`: others may have them. `asking`: a job waits for the node to give them again. */
  state: z.enum(["held", "resting", "asking"]),
  /** Numbers what was asked of the node. */
  turn: z.int().min(0),
  /** The node has answered to this turn. */
  told: z.boolean(),
  /** Of `asking`: why the node could not, when it was last asked. */
  blocker: z.enum(["gpus", "node_offline", "node_draining"]).nullable(),
  /** Of `held`: since when there is nothing to do; null while there is. */
  idleAt: Time.nullable(),
  /** Of `held`: when the node takes its GPUs back. */
  yieldAt: Time.nullable().default(null),
});

export const Lease = z.strictObject({
  id: LeaseId,
  /** The on-chain id. */
  hash: Bytes32,
  place: z.strictObject({ chainId: z.int(), escrow: Address }),
  terms: LeaseTerms,
  text: QuoteText,
  status: LeaseStatus,
  createdAt: Time,
  quoteUntil: Time,
  /** Until then the order that it is part of may be funded; 0: it is part of none that is. */
  reservedUntil: Time.default(0),
  funding: LeaseFunding.nullable(),
  /** Of a lease that is funded together with others; null: alone. */
  plan: FundingPlan.nullable().default(null),
  funded: Amount,
  openedAt: Time.nullable(),
  watch: Watch.prefault({ at: 0, isHard: false }),
  /** By how much the end was moved since the quote; seconds. */
  extendedS: z.int().min(0).default(0),
  /** Of `suspended`: since when. */
  suspendedAt: Time.nullable().default(null),
  /** Raised durably before the first frame of each life of the object; part of the fencing token. */
  epoch: z.int().min(0),
  /** Of the tickets that stand for jobs whose rows are not written yet (tickets.ts); told to nobody. */
  secret: Bytes32.nullable().default(null),
  /** Highest seq sent to the agent, and highest seq of the agent's that was dealt with. */
  sent: z.int().min(0),
  seen: z.int().min(0),
  /** Its agent keeps what attempts that give way have done; so it said in its last hello. */
  keeps: z.boolean().default(false),
  /** Its agent may be sent jobs before their turn; as above. */
  prefetches: z.boolean().default(false),
  /** Since when there is no data socket; null while there is one. */
  awayAt: Time.nullable(),
  /** When the agent last said hello on a new connection, or brought a job back on it (ACK-5). */
  metAt: Time.nullable(),
  billedMs: z.int().min(0),
  spent: Amount,
  allowance: SignedAllowance.nullable(),
  /** Evidence over all receipts so far; its size is the last receipt's sequence. */
  frontier: Frontier,
  block: Block.nullable().default(null),
  /** Those that no voucher covers, and for a moment those that one covers since (store.ts). */
  ticks: z.array(Tick).default([]),
  service: Service.prefault(NOT_SERVED),
  voucher: Voucher.nullable(),
  closing: Closing.nullable(),
  topUps: z.array(TopUp).default([]),
  /** Raises that are signed and not needed yet; reached ones and those that are under way are not among them. */
  autoTopUp: AutoTopUp.nullable().default(null),
  held: Held.prefault({ cumulative: "0", at: 0 }),
  settled: Amount,
  errands: Errands,
  /** Older leases hold their GPUs as long as they last, until they have been idle for once. */
  capacity: Capacity.prefault({ state: "held", turn: 0, told: true, blocker: null, idleAt: null }),
  transactions: z.array(LeaseTransaction),
  arrivals: z.int().min(0),
  jobsEnded: z.int().min(0),
  /** The node stops then: what still runs is broken off. */
  drainAt: Time.nullable().default(null),
  /** When it ended; a week later it is forgotten. */
  overAt: Time.nullable(),
  end: LeaseEnd.nullable(),
});
export type Lease = z.output<typeof Lease>;

/** The lease and its live jobs: those that have not ended, and those whose receipt no voucher covers. */
export interface State {
  readonly lease: Lease;
  readonly jobs: ReadonlyMap<JobId, Job>;
}

/** As it is kept: settled ticks have rows of their own. */
export function withoutSettled(lease: Lease): Lease {
  const ticks = lease.ticks.filter(({ receipt }) => !isSettledReceipt(receipt));
  return ticks.length === lease.ticks.length ? lease : { ...lease, ticks };
}

export interface Unsettled {
  /** Null: a receipt of time. */
  readonly job: Job | null;
  readonly asked: ReceiptState;
}

/** The receipts that no voucher covers yet, in order. */
export function unsettledReceipts({ lease, jobs }: State): Unsettled[] {
  const unsettled: Unsettled[] = [];
  for (const { receipt } of lease.ticks)
    if (!isSettledReceipt(receipt)) unsettled.push({ job: null, asked: receipt });
  for (const job of jobs.values())
    for (const asked of receiptsOf(job)) if (!isSettledReceipt(asked)) unsettled.push({ job, asked });
  return unsettled.sort((a, b) => a.asked.receipt.sequence - b.asked.receipt.sequence);
}

/** Those of them that the provider has not signed for. */
export function unsignedReceipts(state: State): Unsettled[] {
  const { block } = state.lease;
  const signed = block !== null && block.provider !== null ? block.sequence : 0;
  return unsettledReceipts(state).filter(({ asked }) => asked.receipt.sequence > signed);
}

/** Reserved and billed by the clock, its jobs free; else billed while they run. */
export function isDedicated({ text }: Lease): boolean {
  return text.mode === "dedicated";
}

/** Open on chain as far as anybody knows, and not wound up yet. */
export function isWorking({ status }: Pick<Lease, "status">): boolean {
  return status === "active" || status === "suspended" || status === "draining" || status === "closing";
}

/** Its agreed end, which the terms may outlast (docs/adr/0016). */
export function endsAt({ terms, text, extendedS }: Lease): number {
  return (terms.expiry - (text.extendable_s ?? 0) + extendedS) * 1_000;
}

/** When it takes no more work, so that its close can land. */
export function windUpAt(lease: Lease): number {
  return endsAt(lease) - WIND_UP_S * 1_000;
}

/** What the lease has on chain, or is about to be opened with. */
export function pledged({ status, funding, funded }: Lease): bigint {
  return status === "funding" ? fundingAmount(funding) : funded;
}

/** CRD-4: its rest returns to the credit, so that the payer is owed nothing of it. */
export function isOpenedFromCredit({ funding }: Lease): boolean {
  return funding !== null && isFromCredit(funding);
}

/** The leases that take no more work of any kind. */
export function isOver(lease: Lease): boolean {
  return lease.status === "closed" || lease.status === "expired" || lease.status === "lost";
}

/** Over, and nothing that its agent could still say would change what anybody is paid. */
export function isSettled(lease: Lease): boolean {
  return lease.status === "closed" || lease.status === "expired";
}
