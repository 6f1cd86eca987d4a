import type { FromLease } from "@gpux/protocol/frames";
import type { JobId } from "@gpux/protocol/ids";
import type { AttemptToken } from "@gpux/protocol/job";
import { askBlock, withReceipts } from "./blocks.ts";
import { yieldBy } from "./capacity.ts";
import { type Draft, note, put, send, sendVolatile, tellVoucher } from "./draft.ts";
import { askClose, drain, stopBy } from "./ending.ts";
import { currentAttempt, inOrder, isTerminal, type Job, sameAttempt, tokenInHand } from "./job-state.ts";
import { begin, type Refusal, runOf, sendCancel } from "./jobs.ts";
import { fail, finish, giveWay, keep, lose } from "./outcome.ts";
import { forgo, meet, served, serving } from "./service.ts";
import { isAnswer, isCloseAnswer } from "./signatures.ts";
import { isOver, isSettled, unsignedReceipts } from "./state.ts";
import { fenced, unsend } from "./turns.ts";

const HEARTBEAT_S = 25;

/** LNK-2: a frame that was dealt with before is dropped; of the rest, the highest seq is what we acknowledge. */
export function frame(draft: Draft, said: FromLease): Refusal | null {
  if (isSettled(draft.lease)) return null;
  if (said.seq > 0) {
    if (said.seq <= draft.lease.seen) return null;
    draft.lease = { ...draft.lease, seen: said.seq };
  }
  switch (said.t) {
    case "hello":
      hello(draft, said);
      return null;
    // The shell makes a `restore` of it.
    case "accepted":
      return null;
    case "started": {
      const job = fenced(draft, said);
      if (job !== null) begin(draft, job, said.ms ?? 0);
      return null;
    }
    case "progress":
    case "log": {
      if (fenced(draft, said) === null) return null;
      const { v: _v, seq: _seq, ack: _ack, t, job, attempt, ...data } = said;
      const entry = { job, type: t, data: { ...data, attempt: attempt.n } };
      (t === "log" ? draft.journal : draft.passing).push(entry);
      return null;
    }
    case "result": {
      const job = ending(draft, said);
      if (job === null) return null;
      const running = begin(draft, job, said.ms);
      finish(draft, running, {
        status: "succeeded",
        agentMs: said.ms,
        gpu: said.gpu,
        outputs: said.outputs,
        charged: true,
      });
      return null;
    }
    case "failed": {
      const job = ending(draft, said);
      if (job !== null) fail(draft, job, said);
      return null;
    }
    case "stopped": {
      const job = ending(draft, said);
      if (job === null) return null;
      const began = job.status === "running" ? begin(draft, job, said.ms) : job;
      // An agent that knows nothing of the attempt says so by no time at all, and would not sign for any.
      finish(draft, began, { status: "canceled", agentMs: said.ms, gpu: said.gpu, charged: said.ms > 0 });
      return null;
    }
    case "yielded": {
      const job = ending(draft, said);
      if (job !== null) keep(draft, job, said);
      return null;
    }
    case "drain":
      stopBy(draft, draft.now + said.deadline_s * 1_000);
      return null;
    case "yield":
      yieldBy(draft, draft.now + said.notice_s * 1_000);
      return null;
    case "serving":
      serving(draft);
      return null;
    case "served":
      served(draft, said);
      return null;
    case "signed":
      signed(draft, said);
      return null;
    case "close_signed": {
      const { closing } = draft.lease;
      if (closing !== null && isCloseAnswer(draft.lease, said))
        draft.lease = { ...draft.lease, closing: { ...closing, provider: said.signature } };
      return null;
    }
    case "refused":
      if (said.what !== "close") refused(draft, said.reason);
      return null;
    case "ack":
      return null;
  }
}

/**
 * The job whose attempt ends by this frame. When, by the agent's clock from where ours saw it begin: the next may have begun
 * then, and no time is counted for both.
 */
function ending(draft: Draft, said: Extract<FromLease, { ms: number; gpu: string }>): Job | null {
  const job = fenced(draft, said);
  const attempt = job === null ? undefined : currentAttempt(job);
  if (attempt !== undefined)
    draft.freedAt = Math.min(draft.now, (attempt.startedAt ?? attempt.sentAt) + said.ms);
  return job;
}

/** LNK-3: after every (re)connection both sides compare what they think is running; the edge's list holds. */
function hello(draft: Draft, said: Extract<FromLease, { t: "hello" }>): void {
  const { lease } = draft;
  const sent = Math.max(lease.sent, said.last_seq);
  draft.lease = {
    ...lease,
    awayAt: null,
    metAt: draft.now,
    sent,
    keeps: said.checkpoints ?? false,
    prefetches: said.prefetches ?? false,
  };
  const has = (job: JobId, token: AttemptToken) =>
    said.attempts.some((each) => each.job === job && sameAttempt(each.attempt, token));
  const live = inOrder(draft.jobs.values()).flatMap((job) => {
    const token = isTerminal(job) ? undefined : tokenInHand(job);
    return token === undefined ? [] : [{ job, token }];
  });
  sendVolatile(draft, {
    t: "welcome",
    heartbeat_s: HEARTBEAT_S,
    epoch: lease.epoch,
    terms: lease.terms,
    last_seq: lease.seen,
    attempts: live
      .filter(({ job, token }) => has(job.id, token))
      .map(({ job, token }) => ({ job: job.id, attempt: token })),
  });
  tellVoucher(draft);
  meet(draft);
  for (const { job, token } of live) {
    if (has(job.id, token)) {
      if (job.cancelAskedAt !== null) sendCancel(draft, job, "the consumer canceled it");
    } else if (job.status === "queued") unsend(draft, job);
    else if (job.status === "starting" && job.cancelAskedAt === null)
      send(draft, { t: "run", ...runOf(draft, job, token) });
    // LSE-11: the agent's clock of the notice may run out before ours, and it comes back without what it stopped then.
    else if (draft.lease.capacity.yieldAt !== null) giveWay(draft, job);
    else lose(draft, job, { code: "node_lost" });
  }
  askBlock(draft);
  askClose(draft);
}

/** The shell has checked the signature against the digest of what was asked. */
function signed(draft: Draft, said: Extract<FromLease, { t: "signed" }>): void {
  const { block } = draft.lease;
  if (block === null || !isAnswer(draft.lease, said)) return;
  draft.lease = { ...draft.lease, block: { ...block, provider: said.usage.signature } };
}

/** The node will not. What its agent already signed stands; nothing new is begun on this lease. */
export function refused(draft: Draft, detail: string): void {
  if (isOver(draft.lease)) return;
  forgo(draft);
  for (const job of draft.jobs.values()) {
    if (isTerminal(job)) continue;
    const failure = { code: "terms_refused" as const, detail };
    finish(draft, job, { status: "failed", failure, charged: false });
  }
  forgive(draft);
  if (draft.lease.status === "active") drain(draft, { reason: "node_refused", fault: "provider", detail });
}

/** MTR-6: what the node refuses to sign is not owed, or a single disputed receipt would hold the money for ever. */
function forgive(draft: Draft): void {
  const unsigned = unsignedReceipts(draft);
  const [first] = unsigned;
  if (first === undefined) return;
  const { block } = draft.lease;
  const signed = block !== null && block.provider !== null ? block : null;
  const ticks = draft.lease.ticks.filter((tick) => unsigned.every(({ asked }) => asked !== tick.receipt));
  draft.lease = { ...draft.lease, ...first.asked.before, block: signed, ticks };
  for (const { job, asked } of unsigned) {
    if (job === null) continue;
    const left = withReceipts(draft.jobs.get(job.id) ?? job, asked, null);
    const price = left.price - asked.receipt.price;
    put(draft, { ...left, price, billedMs: left.billedMs - Number(asked.receipt.billedMs) });
    note(draft, job.id, "receipt", { sequence: asked.receipt.sequence, refused: true });
  }
}
