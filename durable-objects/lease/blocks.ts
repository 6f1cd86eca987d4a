import { MAX_ATTESTED_RECEIPTS } from "@gpux/protocol/attestation";
import { proofsAfter } from "@gpux/protocol/merkle";
import { hasherOf } from "./billing.ts";
import { type Draft, put, send } from "./draft.ts";
import { isSettledJob, isSettledReceipt, type Job, type ReceiptState, receiptsOf } from "./job-state.ts";
import {
  isSettled,
  type Lease,
  type State,
  type Unsettled,
  unsettledReceipts,
  unsignedReceipts,
} from "./state.ts";

/**
 * Receipts are settled in blocks (SPEC MTR-4, MTR-5): provider and meter each sign one usage, whose evidence commits to
 * every receipt so far. A block is asked for when enough is at stake, when the oldest receipt waits long enough, when
 * somebody waits for one of them, or when the lease winds up; one block is under way at a time.
 */

/** So many receipts, or base units, are not left unsigned, and no receipt longer than this. */
export const BLOCK_RECEIPTS = 64;
export const BLOCK_VALUE = 100_000n;
export const BLOCK_MS = 2_000;

/** Of JSON in one frame, which holds 65,536 with its head and the usage. */
const FRAME_BUDGET = 56_000;
/** The longest that a receipt is in JSON: its fields at their longest, and each output's hash. */
const RECEIPT_LENGTH = 1_000;
const OUTPUT_LENGTH = 70;

/** When the unsigned receipts must be put to the provider; infinity while there are none, or a block is under way. */
export function blockAt(state: State): number {
  const { lease, jobs } = state;
  if (lease.block !== null) return Number.POSITIVE_INFINITY;
  // At every step, so without the order that the others bring them into.
  let count = 0;
  let oldest = Number.POSITIVE_INFINITY;
  let from = lease.spent;
  // A tick is made when so much is at stake or so much time has gone by: it does not wait again.
  if (lease.ticks.some(({ receipt }) => !isSettledReceipt(receipt))) return 0;
  for (const job of jobs.values()) {
    if (isSettledJob(job)) continue;
    for (const each of receiptsOf(job)) {
      if (isSettledReceipt(each)) continue;
      count += 1;
      oldest = Math.min(oldest, job.endedAt ?? job.queuedAt);
      if (each.before.spent < from) from = each.before.spent;
    }
  }
  if (count === 0) return Number.POSITIVE_INFINITY;
  // A lease that gives way can rest only when nothing is left to sign.
  const isLeaving = lease.status !== "active" || lease.capacity.yieldAt !== null;
  const isUrgent = isLeaving || count >= BLOCK_RECEIPTS || lease.spent - from >= BLOCK_VALUE;
  return isUrgent ? 0 : oldest + BLOCK_MS;
}

/** Begins a block when one is due. */
export function settleDue(draft: Draft): void {
  if (draft.now >= blockAt(draft)) settleNow(draft);
}

/** Begins a block with what is unsigned, unless one is under way. While the agent is away nobody can be asked. */
export function settleNow(draft: Draft): void {
  const { lease } = draft;
  if (lease.block !== null || lease.awayAt !== null || isSettled(lease)) return;
  let budget = FRAME_BUDGET;
  const block = unsignedReceipts(draft)
    .slice(0, MAX_ATTESTED_RECEIPTS)
    .filter(({ asked }) => {
      budget -= RECEIPT_LENGTH + OUTPUT_LENGTH * asked.receipt.outputHashes.length;
      return budget >= 0;
    });
  const last = block.at(-1)?.asked;
  if (last === undefined) return;
  const { sequence, cumulative } = last.receipt;
  draft.lease = { ...lease, block: { sequence, cumulative, evidence: last.evidence, provider: null } };
  askBlock(draft);
}

/** Puts the block under way to the provider, also again after its hello. */
export function askBlock(draft: Draft): void {
  const { block } = draft.lease;
  if (block === null || block.provider !== null) return;
  send(draft, {
    t: "settle",
    usage: { cumulative: block.cumulative, evidence: block.evidence },
    receipts: blockReceipts(draft).map(({ asked }) => asked.receipt),
  });
}

/** The receipts that the block under way covers and no voucher yet. */
export function blockReceipts(state: State): Unsettled[] {
  const upTo = state.lease.block?.sequence ?? 0;
  return unsettledReceipts(state).filter(({ asked }) => asked.receipt.sequence <= upTo);
}

function withTick(lease: Lease, before: ReceiptState, after: ReceiptState): Lease {
  const ticks = lease.ticks.map((tick) => (tick.receipt === before ? { ...tick, receipt: after } : tick));
  return { ...lease, ticks };
}

/** The job with another receipt in the place of `before`, or with none. */
export function withReceipts(job: Job, before: ReceiptState, after: ReceiptState | null): Job {
  if (job.receipt === before) return { ...job, receipt: after };
  const kept = job.kept.flatMap((each) => (each !== before ? [each] : after === null ? [] : [after]));
  return { ...job, kept };
}

/** MTR-5: with the meter's signature the block is a voucher, and each of its receipts has its proof. */
export function completeBlock(draft: Draft, meter: `0x${string}`): void {
  const { block, place } = draft.lease;
  if (block === null || block.provider === null) return;
  const { sequence, cumulative, evidence, provider } = block;
  const covered = blockReceipts(draft);
  const leaves = covered.map(({ asked }) => asked.digest ?? hasherOf(place).receipt(asked.receipt));
  const [first] = covered;
  const paths = first === undefined ? [] : proofsAfter(first.asked.before.frontier, leaves);
  for (const [i, { job, asked }] of covered.entries()) {
    const path = paths[i] ?? [];
    const receipt = { ...asked, settled: { cumulative, evidence, size: sequence, path, provider, meter } };
    if (job !== null) put(draft, withReceipts(draft.jobs.get(job.id) ?? job, asked, receipt));
    else draft.lease = withTick(draft.lease, asked, receipt);
  }
  const voucher = { cumulative, evidence, sequence, provider, meter };
  draft.lease = { ...draft.lease, block: null, voucher };
}
