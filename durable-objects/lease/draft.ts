import { FRAME_VERSION, type ToLease } from "@gpux/protocol/frames";
import type { JobId } from "@gpux/protocol/ids";
import type { JobEvent } from "@gpux/protocol/job";
import type { Job } from "./job-state.ts";
import type { Lease, State } from "./state.ts";

/** A line for the journal; the store numbers it. */
export interface Entry {
  readonly job: JobId;
  readonly type: JobEvent["type"];
  readonly data: Record<string, unknown>;
}

/**
 * The next state in the making, with what follows from it. A step works on a draft of its own, so the machine is
 * pure for its callers while its parts stay short.
 */
export interface Draft {
  lease: Lease;
  readonly jobs: Map<JobId, Job>;
  /** For the agent, in order; only sent while it is connected. */
  readonly frames: ToLease[];
  readonly journal: Entry[];
  /** For who is watching now; not kept. */
  readonly passing: Entry[];
  readonly now: number;
  /** By the agent's word an attempt had ended then, and its place was free for the next; null: none has ended in this step. */
  freedAt: number | null;
}

export function draftOf(state: State, now: number): Draft {
  return {
    lease: state.lease,
    jobs: new Map(state.jobs),
    frames: [],
    journal: [],
    passing: [],
    now,
    freedAt: null,
  };
}

type Body<Frame> = Frame extends ToLease ? Omit<Frame, "v" | "seq" | "ack"> : never;

/** Queues a reliable frame. While the agent is away nothing is queued: its next hello derives anew what it must hear. */
export function send(draft: Draft, body: Body<ToLease>): void {
  if (draft.lease.awayAt !== null) return;
  const seq = draft.lease.sent + 1;
  draft.lease = { ...draft.lease, sent: seq };
  draft.frames.push({ ...body, v: FRAME_VERSION, seq, ack: draft.lease.seen });
}

/** Queues a volatile frame: it carries seq 0 and is never replayed. */
export function sendVolatile(draft: Draft, body: Body<ToLease>): void {
  draft.frames.push({ ...body, v: FRAME_VERSION, seq: 0, ack: draft.lease.seen });
}

/** LNK-7: what pays the provider if we were gone is in its own hands. Said again after every hello. */
export function tellVoucher(draft: Draft): void {
  const { voucher, awayAt } = draft.lease;
  if (voucher === null || voucher.meter === null || awayAt !== null) return;
  const { cumulative, evidence, meter } = voucher;
  sendVolatile(draft, { t: "voucher", cumulative, evidence, meter_signature: meter });
}

export function put(draft: Draft, job: Job): void {
  draft.jobs.set(job.id, job);
}

export function note(draft: Draft, job: JobId, type: Entry["type"], data: Entry["data"]): void {
  draft.journal.push({ job, type, data });
}
