import type { JobFailureCode } from "@gpux/protocol/errors";
import { type LeaseEnd, WIND_UP_S } from "@gpux/protocol/lease";
import { executionMs } from "./billing.ts";
import { blockAt } from "./blocks.ts";
import { expectAgent, isHeld, restAt, wantsAgent } from "./capacity.ts";
import type { Draft } from "./draft.ts";
import { askClose, drain, end, GRACE_MS, lapse, SILENT_MS } from "./ending.ts";
import { SUSPENDED_MS, watchAt } from "./funding.ts";
import { isLeaving, isQueued, isTerminal, tokenInHand } from "./job-state.ts";
import { deadline, sendCancel } from "./jobs.ts";
import { mayMove } from "./moves.ts";
import { expire, giveUp, giveWay, lose, requeue } from "./outcome.ts";
import { isCounted, keepTime, serviceAt } from "./service.ts";
import {
  isDedicated,
  isOver,
  isWorking,
  type Lease,
  type State,
  unsignedReceipts,
  windUpAt,
} from "./state.ts";
import { withdraw } from "./turns.ts";

/** A lease whose node left is lost after this; its attempts much earlier. */
export const LOST_MS = 15 * 60_000;

/** After its node's end a job waits so long to be told of another lease. */
const PLACE_MS = 10_000;

/** How long a close's signatures hold. */
const CLOSE_VALID_S = 3_600;

/** After the terms' expiry and the contract's EXIT_DELAY anyone may reclaim the rest for the payer. */
export const RECLAIM_MS = 86_400_000;

/** Jobs, receipts and journal of a lease that is over are kept this long. */
export const RETENTION_MS = 7 * 86_400_000;

/**
 * LSE-7: a voucher is given to the relayer, which lands it should the payer exit on chain, as soon as so much has been
 * used since the last one was given, or after so long. An exit takes an hour at the least.
 */
export const HOLD_VALUE = 1_000_000n;
export const HOLD_EVERY_MS = 60_000;

const never = Number.POSITIVE_INFINITY;

/** Everything that time alone brings about. Runs after every event: harmless when nothing is due. */
export function advance(draft: Draft): void {
  const { now } = draft;
  for (const job of [...draft.jobs.values()]) if (!isTerminal(job)) expire(draft, job);

  const { lease } = draft;
  if (lease.status === "quoted" && now >= lease.quoteUntil) return lapse(draft);
  if (lease.awayAt !== null && now >= lease.awayAt + GRACE_MS)
    for (const job of draft.jobs.values())
      if (job.status === "running" || job.status === "starting") lose(draft, job, { code: "node_lost" });

  const { yieldAt } = lease.capacity;
  if (yieldAt !== null && now >= yieldAt)
    for (const job of draft.jobs.values())
      if (job.status === "running" || job.status === "starting") giveWay(draft, job);
  if (lease.drainAt !== null) breakOff(draft, lease.drainAt);

  const awayTooLong = lease.awayAt !== null && wantsAgent(lease) && now >= lease.awayAt + LOST_MS;
  const isUnfunded = lease.suspendedAt !== null && now >= lease.suspendedAt + SUSPENDED_MS;
  if (isWorking(lease) && (awayTooLong || isUnfunded || now >= lease.terms.expiry * 1_000))
    return lost(draft, isUnfunded ? "funding_failed" : lease.awayAt === null ? "lease_ended" : "node_lost");
  if (lease.status === "active" && now >= windUpAt(lease))
    drain(draft, { reason: "terms_expired", fault: "tenant" });
  if (draft.lease.status === "active" && lease.drainAt !== null) {
    // What a dedicated lease reserved is taken back: nothing is left of it to rest.
    const reason = isDedicated(lease) && yieldAt !== null ? "yielded" : "node_drained";
    drain(draft, { reason, fault: "provider" });
  }
  if (draft.lease.status === "draining") leaveOut(draft);
  withdraw(draft);
  keepTime(draft);
  windUp(draft);
}

/** LSE-5: what waits and could not end in time is not begun, or the close would not land before the terms run out. */
function leaveOut(draft: Draft): void {
  const until = windUpAt(draft.lease) + (WIND_UP_S * 1_000) / 2;
  for (const job of draft.jobs.values())
    if (isQueued(job) && draft.now + executionMs(draft.lease, job) > until)
      giveUp(draft, job, { code: "lease_ended" });
}

/**
 * LSE-10: a node that is about to stop begins nothing; what runs may end until `at`. None of it is charged. What can go
 * on elsewhere waits for a lease to be found (JOB-11), but not for long after the node has gone.
 */
function breakOff(draft: Draft, at: number): void {
  for (const job of draft.jobs.values()) {
    if (isTerminal(job) || (job.status === "running" && draft.now < at)) continue;
    if (job.status !== "queued") sendCancel(draft, job, "the node is about to stop");
    const mayWait =
      draft.now < at + PLACE_MS && mayMove(draft.lease, { ...job, status: "queued", prefetched: null });
    if (!mayWait) giveUp(draft, job, { code: "node_draining" });
    else if (job.status !== "queued") requeue(draft, job, "node_draining");
  }
}

const ENDS = {
  node_lost: { reason: "node_lost", fault: "provider" },
  lease_ended: { reason: "terms_expired", fault: "tenant" },
  funding_failed: { reason: "funding_failed", fault: "chain" },
} as const satisfies Partial<Record<JobFailureCode, LeaseEnd>>;

/** LSE-6: the node is gone for good or the terms ran out. The last voucher still pays; the rest is reclaimed. */
function lost(draft: Draft, code: keyof typeof ENDS): void {
  for (const job of draft.jobs.values()) {
    if (isTerminal(job)) continue;
    sendCancel(draft, job, "the lease has ended");
    giveUp(draft, job, { code });
  }
  if (draft.lease.end === null) draft.lease = { ...draft.lease, end: ENDS[code] };
  end(draft, "lost");
}

/** LSE-5: when the last job has ended and its receipt is signed, the final usage is put to the provider. */
function windUp(draft: Draft): void {
  const { lease, now } = draft;
  // A closing one that asks for nothing has got a job back since (ACK-5).
  if (lease.status === "draining" || (lease.status === "closing" && lease.closing === null)) {
    for (const job of draft.jobs.values()) if (!isTerminal(job)) return;
    if (!isCounted(lease) || unsignedReceipts(draft).length > 0) return;
    draft.lease = { ...lease, status: "closing" };
    if (!isHeld(lease)) expectAgent(draft);
    askAgain(draft);
  } else if (lease.status === "closing" && lease.closing !== null && now >= lease.closing.validBefore * 1_000)
    askAgain(draft);
}

function askAgain(draft: Draft): void {
  const validBefore = Math.floor(draft.now / 1_000) + CLOSE_VALID_S;
  draft.lease = { ...draft.lease, closing: { validBefore, provider: null, meter: null } };
  askClose(draft);
}

/**
 * Until when an agent that came for the close alone, and is to sign it, counts as there; who rests does not dial again by
 * itself. Infinity: it has signed, or the lease has its GPUs.
 */
export function heardUntil({ status, closing, capacity, metAt }: Lease): number {
  const isAwaited = status === "closing" && closing?.provider === null && capacity.state !== "held";
  return isAwaited ? (metAt ?? 0) + SILENT_MS : never;
}

/** When the close that is under way was asked for, to the second before it. */
export function closeAskedAt({ validBefore }: NonNullable<Lease["closing"]>): number {
  return (validBefore - CLOSE_VALID_S) * 1_000;
}

/** From when on the relayer must have the newest voucher; infinity when it has it, or the lease lands it itself. */
export function holdAt(lease: Lease): number {
  const { voucher, held, openedAt } = lease;
  if (!isWorking(lease) || voucher === null || voucher.meter === null) return never;
  const rise = voucher.cumulative - held.cumulative;
  if (rise <= 0n) return never;
  return rise >= HOLD_VALUE ? 0 : Math.max(held.at, openedAt ?? 0) + HOLD_EVERY_MS;
}

/** When time next brings something about, a duty included; infinity when only an event can. */
export function wakeAt(state: State, now: number): number {
  const { lease } = state;
  if (isOver(lease)) {
    const forgotten = (lease.overAt ?? 0) + RETENTION_MS;
    const reclaim = lease.terms.expiry * 1_000 + RECLAIM_MS;
    return lease.status === "lost" && now < reclaim ? Math.min(reclaim, forgotten) : forgotten;
  }
  let at = lease.terms.expiry * 1_000;
  if (lease.status === "quoted") at = lease.quoteUntil;
  // Whatever the terms say, the chain's answer to the funding is waited for, and asking for it is a duty.
  if (lease.status === "funding") at = never;
  if (lease.status === "active") at = windUpAt(lease);
  const hold = holdAt(lease);
  if (hold > now) at = Math.min(at, hold);
  const watch = watchAt(state);
  if (watch > now) at = Math.min(at, watch);
  if (lease.suspendedAt !== null) at = Math.min(at, lease.suspendedAt + SUSPENDED_MS);
  at = Math.min(at, restAt(lease));
  const { yieldAt } = lease.capacity;
  if (yieldAt !== null && yieldAt > now) at = Math.min(at, yieldAt);
  for (const stop of lease.drainAt === null ? [] : [lease.drainAt, lease.drainAt + PLACE_MS])
    if (stop > now) at = Math.min(at, stop);
  if (heardUntil(lease) > now) at = Math.min(at, heardUntil(lease));
  if (lease.status === "closing" && lease.closing !== null)
    at = Math.min(at, lease.closing.validBefore * 1_000);
  if (lease.awayAt === null) at = Math.min(at, blockAt(state), serviceAt(state));
  let hasWork = false;
  for (const job of state.jobs.values()) {
    if (isTerminal(job) || isLeaving(job)) continue;
    at = Math.min(at, deadline(state, job).at);
    hasWork ||= tokenInHand(job) !== undefined || mayMove(lease, job);
  }
  const isAwaited = wantsAgent(lease) && lease.status !== "funding" && lease.status !== "quoted";
  if (lease.awayAt === null || !isAwaited) return at;
  const grace = lease.awayAt + GRACE_MS;
  return Math.min(at, lease.awayAt + LOST_MS, hasWork && grace > now ? grace : never);
}

/** A lease that is over may be forgotten after its retention, or at once when nobody ever paid for it. */
export function isForgotten(state: State, now: number): boolean {
  const { lease } = state;
  if (!isOver(lease) || lease.overAt === null) return false;
  return (lease.funding === null && lease.errands.released) || now >= lease.overAt + RETENTION_MS;
}
