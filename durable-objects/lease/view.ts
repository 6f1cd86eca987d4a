import { JOB_FAILURES } from "@gpux/protocol/errors";
import { isFromCredit, type LeaseFunding } from "@gpux/protocol/funding";
import type { JobView, SignedReceipt } from "@gpux/protocol/job";
import type { LeaseView, TickView } from "@gpux/protocol/lease";
import { wireOf } from "@gpux/protocol/wire";
import { billableMs, committed, priceOf } from "./billing.ts";
import { isHeld } from "./capacity.ts";
import {
  type Attempt,
  costOf,
  currentAttempt,
  inTurn,
  isGone,
  isLeaving,
  isTerminal,
  type Job,
  type ReceiptState,
} from "./job-state.ts";
import { endsAt, isOpenedFromCredit, isOver, type Lease, type State, type Tick } from "./state.ts";

const time = (ms: number) => new Date(ms).toISOString();

/** A job as the API shows it, whether it is still in memory or came back from its row. */
export function jobView(state: State, job: Job, now: number): JobView {
  const { lease } = state;
  const startedAt = currentAttempt(job)?.startedAt ?? null;
  const running = job.status === "running" && startedAt !== null;
  const soFar = running ? Math.min(Math.max(0, now - startedAt), billableMs(lease, job)) : 0;
  const cost = costOf(job);
  const path = `/v1/jobs/${job.id}`;
  return {
    id: job.id,
    object: "job",
    ...(job.clientId === null ? {} : { client_id: job.clientId }),
    ...(job.retryOf === null ? {} : { retry_of: job.retryOf }),
    status: job.status,
    lease_id: lease.id,
    node: lease.terms.providerSigner,
    function: job.request.function,
    created_at: time(job.createdAt),
    ...(startedAt === null ? {} : { started_at: time(startedAt) }),
    ...(job.endedAt === null ? {} : { ended_at: time(job.endedAt) }),
    attempts: attemptViews(lease, job),
    max_price: job.request.max_price,
    price: running ? cost.price + priceOf(lease, soFar) : cost.price,
    billed_ms: running ? cost.billedMs + soFar : cost.billedMs,
    ...(job.checkpoint === null ? {} : { checkpoint: job.checkpoint }),
    ...(job.status === "queued" && !isGone(job) ? { wait: waitOf(state, job) } : {}),
    outputs: job.outputs.map((output, n) => ({ ...output, url: `${path}/outputs/${n}` })),
    ...receiptOf(job),
    ...failureOf(job),
    urls: { get: path, events: `${path}/events`, cancel: `${path}/cancel` },
  };
}

/** All of them, those on other leases first. */
export function attemptViews(lease: Lease, job: Job): JobView["attempts"] {
  const own = job.attempts.map((attempt, at) => ({
    n: attempt.token.n,
    node: lease.terms.providerSigner,
    ...(attempt.startedAt === null ? {} : { started_at: time(attempt.startedAt) }),
    ...(attempt.endedAt === null ? {} : { ended_at: time(attempt.endedAt) }),
    ...(attempt.outcome === null ? {} : { outcome: attempt.outcome }),
    ...paidFor(job, attempt, at === job.attempts.length - 1),
  }));
  return [...(job.past?.attempts ?? []), ...own];
}

/** J3: the last one is charged, and before it those that gave way and kept what they had done. */
function paidFor(job: Job, { token }: Attempt, isLast: boolean): Partial<JobView["attempts"][number]> {
  const kept = job.kept.find(({ receipt }) => receipt.attempt === token.n);
  if (kept === undefined) {
    const before = job.kept.reduce((sum, { receipt }) => sum + receipt.price, 0n);
    return { paid: isLast ? job.price - before : 0n };
  }
  const { price, billedMs } = kept.receipt;
  return { paid: price, billed_ms: Number(billedMs), receipt: signedReceipt(kept) };
}

/** Why it waits: each condition by how many (jobs, or 1) stand in the way. */
function waitOf(state: State, job: Job): NonNullable<JobView["wait"]> {
  const { lease } = state;
  const turns = inTurn(state.jobs.values()).filter((other) => !isTerminal(other));
  const ahead = turns.findIndex((other) => other.id === job.id);
  return {
    position: ahead,
    eta_s: null,
    possible: true,
    blockers: {
      ...(lease.status === "suspended" ? { funding: 1 } : {}),
      ...(lease.status === "funding" ? { [lease.openedAt === null ? "funding" : "confirmations"]: 1 } : {}),
      ...(isHeld(lease) ? {} : { [lease.capacity.blocker ?? "warming"]: 1 }),
      ...(lease.capacity.yieldAt === null ? {} : { yielding: 1 }),
      ...(isLeaving(job) ? { moving: 1 } : {}),
      ...(lease.awayAt === null || !isHeld(lease) ? {} : { node_away: 1 }),
      ...(ahead === 0 ? {} : { jobs_ahead: ahead }),
    },
  };
}

function receiptOf(job: Job): Pick<JobView, "receipt"> {
  return job.receipt === null ? {} : { receipt: signedReceipt(job.receipt) };
}

function signedReceipt({ receipt, settled }: ReceiptState): SignedReceipt {
  return {
    receipt: wireOf(receipt),
    usage:
      settled === null
        ? null
        : { cumulative: settled.cumulative, evidence: settled.evidence, size: settled.size },
    proof: settled?.path ?? null,
    provider_signature: settled?.provider ?? null,
    edge_signature: settled?.meter ?? null,
  };
}

export function tickView({ from, to, receipt }: Tick): TickView {
  const { sequence, billedMs, price } = receipt.receipt;
  return {
    id: String(sequence),
    object: "tick",
    from: time(from),
    to: time(to),
    served_ms: Number(billedMs),
    price,
    receipt: signedReceipt(receipt),
  };
}

function failureOf(job: Job): Pick<JobView, "error"> {
  if (job.failure === null) return {};
  const { title, hint, fault } = JOB_FAILURES[job.failure.code];
  const { code, detail } = job.failure;
  return { error: { code, title, hint, fault, ...(detail === undefined ? {} : { detail }) } };
}

export function leaseView(state: State): LeaseView {
  const { lease } = state;
  return {
    id: lease.id,
    object: "lease",
    lease_hash: lease.hash,
    status: lease.status,
    terms: lease.terms,
    text: lease.text,
    node: lease.terms.providerSigner,
    node_connected: lease.awayAt === null,
    warm: isHeld(lease) && !isOver(lease),
    funded: lease.funded,
    ...(isOpenedFromCredit(lease) ? { from_credit: true } : {}),
    spent: lease.spent,
    committed: committed(state),
    allowance: lease.allowance?.cumulative ?? 0n,
    billed_ms: lease.billedMs,
    jobs_ended: lease.jobsEnded,
    jobs_open: [...state.jobs.values()].filter((job) => !isTerminal(job)).length,
    ...voucherOf(lease),
    ...topUpsOf(lease),
    ...autoTopUpOf(lease),
    transactions: lease.transactions,
    ...(lease.plan === null ? {} : { order_id: lease.plan.order }),
    ...(lease.end === null ? {} : { end: lease.end }),
    ...(lease.openedAt === null ? {} : { opened_at: time(lease.openedAt) }),
    ends_at: time(endsAt(lease)),
    extendable_s: (lease.text.extendable_s ?? 0) - lease.extendedS,
    created_at: time(lease.createdAt),
  };
}

function voucherOf(lease: Lease): Pick<LeaseView, "voucher"> {
  if (lease.voucher === null) return {};
  const { cumulative, evidence, provider, meter } = lease.voucher;
  return { voucher: { cumulative, evidence, provider_signature: provider, meter_signature: meter } };
}

function topUpsOf(lease: Lease): Pick<LeaseView, "top_ups"> {
  const { topUps } = lease;
  if (topUps.length === 0) return {};
  return {
    top_ups: topUps.map(({ funding, refused }) => ({
      ...sumOf(funding, lease),
      ...(refused === null ? { status: "landing" as const } : { status: "refused" as const, ...refused }),
    })),
  };
}

function autoTopUpOf({ autoTopUp }: Lease): Pick<LeaseView, "auto_top_up"> {
  if (autoTopUp === null) return {};
  const targets = autoTopUp.allocations.map(({ funded_to }) => funded_to);
  return { auto_top_up: { below: autoTopUp.below, targets } };
}

function sumOf(funding: LeaseFunding, { funded }: Lease) {
  if (!isFromCredit(funding)) return { amount: funding.amount, salt: funding.salt };
  const { funded_to } = funding;
  return { amount: funded_to > funded ? funded_to - funded : 0n, funded_to };
}
