import type { Receipt } from "@gpux/protocol/eip712";
import type { Bytes32 } from "@gpux/protocol/ids";
import type { JobRequest, Output } from "@gpux/protocol/job";
import { keccak256 } from "@gpux/protocol/keccak";
import { append, root } from "@gpux/protocol/merkle";
import { charged, paidMs, startPriceOf, type Tariff } from "@gpux/protocol/tariff";
import { createHasher } from "@gpux/protocol/typed-data-encoder";
import type { Job, ReceiptState } from "./job-state.ts";
import { costOf, currentAttempt, isTerminal } from "./job-state.ts";
import type { Lease, State } from "./state.ts";
import { isDedicated } from "./state.ts";

/** What the lease's time costs: of a dedicated one that of all its GPUs, of a serverless one that of each. */
export function tariffOf({ terms, text }: Pick<Lease, "terms" | "text">): Tariff {
  const gpus = text.mode === "dedicated" ? 1 : text.resources.gpus;
  return { ratePerHour: terms.ratePerHour, gpus, start: startPriceOf(text) };
}

/** Of what was paid for the lease, that which bought time: a start is no part of what GPUs go for (MKT-7). */
export function paidForTime(lease: Lease, paid: bigint): bigint {
  const start = lease.billedMs === 0 ? 0n : startPriceOf(lease.text);
  return paid > start ? paid - start : 0n;
}

/** What a job may cost: of a dedicated lease, whose time is paid for, nothing. */
export function mostOf(lease: Lease, request: Pick<JobRequest, "max_price">): bigint {
  return isDedicated(lease) ? 0n : request.max_price;
}

/** What the lease may have used at most when every job that has not ended costs its max_price. */
export function committed(state: State): bigint {
  let sum = state.lease.spent;
  if (isDedicated(state.lease)) return sum;
  for (const job of state.jobs.values()) if (!isTerminal(job)) sum += leftOf(job);
  return sum;
}

/** What of `max_price` its attempts have not cost yet. */
export function leftOf(job: Job): bigint {
  return job.request.max_price - costOf(job).price;
}

/** Ceiling without the consumer's own signature on the usage, as the contract has it. */
export function ceiling(lease: Lease): bigint {
  const allowed = lease.allowance?.cumulative ?? 0n;
  return allowed > lease.terms.unattended ? allowed : lease.terms.unattended;
}

/**
 * Milliseconds until the lease's cumulative would pass what the job may cost. The meter counts in floors over the
 * cumulative time, so this is exact: one millisecond more would cost more than `max_price`.
 */
export function affordableMs(lease: Lease, maxPrice: bigint): number {
  return paidMs(tariffOf(lease), lease.spent + maxPrice) - lease.billedMs;
}

/**
 * The most that is billed for this attempt: the time-out, or what max_price pays for when that is less, after what the
 * attempts before it were billed for (CKP-2). May be 0.
 */
export function billableMs(lease: Lease, job: Job): number {
  const limit = Math.max(0, job.request.timeouts.execution_s * 1_000 - costOf(job).billedMs);
  return isDedicated(lease) ? limit : Math.min(limit, affordableMs(lease, leftOf(job)));
}

/** How long this job may run: a millisecond at least, also where max_price does not pay for it. */
export function executionMs(lease: Lease, job: Job): number {
  return Math.max(1, billableMs(lease, job));
}

/**
 * MTR-1, MTR-12: the price of `ms` more of one of the lease's GPUs, as the difference of two floors over all such time;
 * with the start's, if nothing was billed before.
 */
export function priceOf(lease: Lease, ms: number): bigint {
  if (isDedicated(lease)) return 0n;
  return charged(tariffOf(lease), lease.billedMs + ms) - lease.spent;
}

const hashers = new Map<string, ReturnType<typeof createHasher>>();

/** A lease belongs to one contract; its encoder's precomputed domain is kept. */
export function hasherOf(place: Lease["place"]): ReturnType<typeof createHasher> {
  const key = `${place.chainId}:${place.escrow}`;
  const known = hashers.get(key);
  if (known !== undefined) return known;
  const made = createHasher(place);
  hashers.set(key, made);
  return made;
}

export function evidenceOf(lease: Lease): Bytes32 {
  return root(lease.frontier);
}

/**
 * Bills an attempt that ran: MTR-1, the least of the agent's clock, the edge's and the time-out. `agentMs` is null
 * when the agent did not say. Returns the lease and job with the receipt that explains the price.
 */
export function bill(
  lease: Lease,
  job: Job,
  end: { now: number; agentMs: number | null; gpu: string | null; outputs: readonly Output[] },
): { lease: Lease; job: Job } {
  const attempt = currentAttempt(job);
  if (attempt === undefined || attempt.startedAt === null) return { lease, job };
  const edgeMs = Math.max(0, end.now - attempt.startedAt);
  const ms = Math.min(end.agentMs ?? edgeMs, edgeMs, billableMs(lease, job));
  const price = priceOf(lease, ms);
  const added = withReceipt(lease, isDedicated(lease) ? 0 : ms, {
    job: keccak256(job.id),
    attempt: attempt.token.n,
    inputHash: `0x${job.inputHash}`,
    outputHashes: end.outputs.map((output): Bytes32 => `0x${output.sha256}`),
    gpu: end.gpu ?? cardOf(lease),
    billedMs: BigInt(ms),
    price,
    endedAt: Math.floor(end.now / 1_000),
  });
  const billed = { billedMs: job.billedMs + ms, price: job.price + price };
  return { lease: added.lease, job: { ...job, ...billed, receipt: added.receipt } };
}

/** The card that a receipt names where nobody else does. */
export function cardOf({ text }: Lease): string {
  return text.gpus[0]?.model ?? "";
}

/** The lease's next receipt; `ms` are added to its billed time. */
export function withReceipt(
  lease: Lease,
  ms: number,
  said: Omit<Receipt, "leaseId" | "sequence" | "node" | "cumulative">,
): { lease: Lease; receipt: ReceiptState } {
  const spent = lease.spent + said.price;
  const receipt: Receipt = {
    ...said,
    leaseId: lease.hash,
    sequence: lease.frontier.size + 1,
    node: lease.terms.providerSigner,
    cumulative: spent,
  };
  const digest = hasherOf(lease.place).receipt(receipt);
  const frontier = append(lease.frontier, digest);
  const before = { billedMs: lease.billedMs, spent: lease.spent, frontier: lease.frontier };
  return {
    lease: { ...lease, billedMs: lease.billedMs + ms, spent, frontier },
    receipt: { receipt, digest, evidence: root(frontier), before, settled: null },
  };
}
