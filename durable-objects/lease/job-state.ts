import { Receipt } from "@gpux/protocol/eip712";
import { JobFailureCode } from "@gpux/protocol/errors";
import { Bytes32, ClientJobId, HexBytes, JobId, LeaseId, Sha256 } from "@gpux/protocol/ids";
import {
  AttemptToken,
  Checkpoint,
  JobRequest,
  JobStatus,
  JobView,
  Output,
  TERMINAL,
} from "@gpux/protocol/job";
import { Frontier } from "@gpux/protocol/merkle";
import { Amount } from "@gpux/protocol/money";
import { SessionId } from "@gpux/protocol/session";
import { z } from "zod";

/** Everything here is in milliseconds since the epoch unless it says seconds. */
export const Time = z.int().min(0);

export const Attempt = z.strictObject({
  token: AttemptToken,
  sentAt: Time,
  startedAt: Time.nullable(),
  endedAt: Time.nullable(),
  outcome: z.string().nullable(),
});
export type Attempt = z.infer<typeof Attempt>;

/** The usage that provider and meter have both signed, with what shows that this receipt is in its evidence. */
const Settled = z.strictObject({
  cumulative: Amount,
  evidence: Bytes32,
  /** Receipts under the evidence. */
  size: z.int().min(1),
  path: z.array(Bytes32),
  provider: HexBytes,
  meter: HexBytes,
});

export const ReceiptState = z.strictObject({
  receipt: Receipt,
  /** Its leaf in the evidence; documents of before 0.2 lack it. */
  digest: Bytes32.optional(),
  /** The lease's evidence with this receipt as its last. */
  evidence: Bytes32,
  /** The meter before it: what it falls back to when the node refuses to sign. */
  before: z.strictObject({ billedMs: z.int().min(0), spent: Amount, frontier: Frontier }),
  settled: Settled.nullable().default(null),
  /** Before 0.2 each receipt was signed by itself; one with both signatures is not asked for again. */
  provider: HexBytes.nullable().optional(),
  edge: HexBytes.nullable().optional(),
});
export type ReceiptState = z.output<typeof ReceiptState>;

/** What a job did on the leases that it has come from. */
const Past = z.strictObject({
  /** As they are shown, in order. */
  attempts: z.array(JobView.shape.attempts.element),
  price: Amount,
  billedMs: z.int().min(0),
});
export type Past = z.output<typeof Past>;

/** Sent to the agent before there is room for it there (turns.ts). */
const Prefetched = z.strictObject({
  token: AttemptToken,
  sentAt: Time,
  /** There is room: since when by the agent's word (`freedAt`), and when the edge heard of it. */
  turn: z.strictObject({ freedAt: Time, at: Time }).nullable(),
});

/** A job while its lease works on it. The last attempt is the current one. */
export const Job = z.strictObject({
  id: JobId,
  clientId: ClientJobId.nullable(),
  /** The job that it does again. */
  retryOf: JobId.nullable().default(null),
  /** Of one that came in an array: what stands for the whole of it (batch.ts). */
  batch: Sha256.nullable().default(null),
  /** Under whose cap it counts, when a session and not the wallet asked for it. */
  session: SessionId.nullable().default(null),
  /** Order of arrival in the lease. */
  n: z.int().min(1),
  request: JobRequest,
  inputHash: Sha256,
  status: JobStatus,
  createdAt: Time,
  queuedAt: Time,
  endedAt: Time.nullable(),
  cancelAskedAt: Time.nullable(),
  attempts: z.array(Attempt),
  /** Of `queued`: its agent has it, and will begin it by itself. */
  prefetched: Prefetched.nullable().default(null),
  outputs: z.array(Output),
  billedMs: z.int().min(0),
  price: Amount,
  failure: z.strictObject({ code: JobFailureCode, detail: z.string().max(4_000).optional() }).nullable(),
  /** Of the attempt that ended it. */
  receipt: ReceiptState.nullable(),
  /** Of attempts before that one, which gave way and kept what they had done; `billedMs` and `price` count them too. */
  kept: z.array(ReceiptState).default([]),
  /** What the last of those has kept: the next attempt goes on from it. */
  checkpoint: Checkpoint.nullable().default(null),
  /** Which lease was asked to take it; `gone`: that one has it (moves.ts). */
  move: z.strictObject({ to: LeaseId, gone: z.boolean() }).nullable().default(null),
  /** Leases that have had it, or would not have it: it is offered to none of them again. */
  been: z.array(LeaseId).default([]),
  /** Null: it came here first. */
  past: Past.nullable().default(null),
});
export type Job = z.output<typeof Job>;

/** Over for this lease: it has ended, or another lease has it. */
export function isTerminal(job: Pick<Job, "status"> & Partial<Pick<Job, "move">>): boolean {
  return TERMINAL.has(job.status) || isGone(job);
}

export function isGone({ move }: Partial<Pick<Job, "move">>): boolean {
  return move?.gone === true;
}

/** Another lease was asked to take it and has not answered: until then nobody knows whose it is. */
export function isLeaving({ move }: Pick<Job, "move">): boolean {
  return move !== null && !move.gone;
}

/** It waits for its turn here. */
export function isQueued(job: Job): boolean {
  return job.status === "queued" && job.move === null;
}

/** Of all its attempts, those on other leases too: what they cost, and how long they are paid for. */
export function costOf({ price, billedMs, past }: Job): {
  readonly price: bigint;
  readonly billedMs: number;
} {
  return past === null
    ? { price, billedMs }
    : { price: past.price + price, billedMs: past.billedMs + billedMs };
}

/** How many attempts there were, on whichever lease. */
export function attemptsOf({ attempts, past }: Job): number {
  return (past?.attempts.length ?? 0) + attempts.length;
}

/** Nothing more will happen to it: it may leave memory. */
export function isFinal(job: Job): boolean {
  return isTerminal(job) && isSettledJob(job);
}

/** Whether a voucher covers all that it cost so far. */
export function isSettledJob({ receipt, kept }: Job): boolean {
  return (receipt === null || isSettledReceipt(receipt)) && kept.every(isSettledReceipt);
}

/** Of all attempts that are paid for, in order. */
export function receiptsOf({ receipt, kept }: Job): readonly ReceiptState[] {
  return receipt === null ? kept : [...kept, receipt];
}

export function isSettledReceipt({ settled, edge }: ReceiptState): boolean {
  return settled !== null || (edge ?? null) !== null;
}

export function sameAttempt(a: Attempt["token"], b: Attempt["token"]): boolean {
  return a.n === b.n && a.epoch === b.epoch;
}

export function currentAttempt(job: Job): Attempt | undefined {
  return job.attempts.at(-1);
}

/** What its agent has it under: the attempt that is under way, or the one that it will be. */
export function tokenInHand({ status, prefetched, attempts }: Job): AttemptToken | undefined {
  if (status === "queued") return prefetched?.token;
  return status === "starting" || status === "running" ? attempts.at(-1)?.token : undefined;
}

/** As their turn comes: by priority, then by age. */
export function inTurn(jobs: Iterable<Job>): Job[] {
  return inOrder(jobs).sort((a, b) => b.request.priority - a.request.priority);
}

export function inOrder(jobs: Iterable<Job>): Job[] {
  return [...jobs].sort((a, b) => a.n - b.n);
}
