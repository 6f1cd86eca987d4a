import type { JobId } from "@gpux/protocol/ids";
import { type AttemptToken, MOST_IN_BATCH } from "@gpux/protocol/job";
import { sideBySide } from "@gpux/protocol/quote-text";
import { startPriceOf } from "@gpux/protocol/tariff";
import { isReady } from "./capacity.ts";
import { type Draft, note, put, send } from "./draft.ts";
import { GRACE_MS } from "./ending.ts";
import {
  type Attempt,
  attemptsOf,
  inTurn,
  isQueued,
  isTerminal,
  type Job,
  sameAttempt,
  tokenInHand,
} from "./job-state.ts";
import { recall, runOf } from "./jobs.ts";
import { WITHDRAWN } from "./outcome.ts";
import { inFrames, type Run } from "./runs.ts";
import type { Lease } from "./state.ts";

/**
 * Whose turn it is (SPEC JOB-3, JOB-12). A job is sent when there is room for it, and to an agent that prefetches before
 * that: it stays `queued`, and the agent begins it by itself once those before it have ended. What the agent says of it
 * then makes an attempt of it; until then it costs nothing, and is given to nobody else.
 */

/** So many of those that wait are with the agent, from the first in turn on: an array goes at once. */
const PREFETCHED = MOST_IN_BATCH;
/** Nor ever more than this: later ones of a higher priority come on top. */
const MOST_PREFETCHED = 2 * PREFETCHED;

type Ahead = NonNullable<Job["prefetched"]>;
type Place = NonNullable<Ahead["turn"]>;

/** Whether a job may be begun on the lease at all. Within the grace its agent may be on its way back, with what it has. */
function mayBegin(lease: Lease, now: number): boolean {
  const { status, awayAt, drainAt } = lease;
  if ((status !== "active" && status !== "draining") || !isReady(lease)) return false;
  // A node that is about to stop begins nothing (LSE-10).
  return drainAt === null && (awayAt === null || now < awayAt + GRACE_MS);
}

/**
 * Sends queued jobs, by priority and then the oldest first, as long as fewer are starting or running than may be side by
 * side; and some before that, to agents that prefetch. As long as those have any the agent alone knows which it begins
 * next, and nothing is sent past them.
 */
export function dispatch(draft: Draft): void {
  const { lease } = draft;
  if (lease.awayAt !== null || !mayBegin(lease, draft.now)) return;
  let free = sideBySide(lease.text);
  let ahead = 0;
  for (const job of draft.jobs.values()) {
    if (job.status === "starting" || job.status === "running") free -= 1;
    if (job.prefetched !== null) ahead += 1;
  }
  const isAlone = ahead === 0;
  const runs: Run[] = [];
  let place = 0;
  for (const job of inTurn(draft.jobs.values())) {
    if (!isQueued(job)) continue;
    if (job.prefetched !== null) {
      place += 1;
      continue;
    }
    const token = { epoch: draft.lease.epoch, n: attemptsOf(job) + 1 };
    if (isAlone && free > 0) {
      free -= 1;
      runs.push(runOf(draft, take(draft, job, token, draft.now), token));
      continue;
    }
    if (!prefetches(lease) || place >= PREFETCHED || ahead >= MOST_PREFETCHED) break;
    place += 1;
    ahead += 1;
    const sent: Job = { ...job, prefetched: { token, sentAt: draft.now, turn: null } };
    put(draft, sent);
    runs.push(runOf(draft, sent, token));
  }
  for (const each of inFrames(runs)) send(draft, each);
  giveTurns(draft, free);
}

/** What a job may cost beyond its time is known only when the start of the lease is paid for (MTR-12). */
function prefetches({ prefetches: isAble, text, billedMs }: Lease): boolean {
  return isAble && (billedMs > 0 || startPriceOf(text) === 0n);
}

/** `from`: it cannot have begun before, and from there on the edge's clock may count (MTR-1). */
function take(draft: Draft, job: Job, token: AttemptToken, from: number): Job {
  const attempt: Attempt = { token, sentAt: from, startedAt: null, endedAt: null, outcome: null };
  const starting: Job = {
    ...job,
    status: "starting",
    prefetched: null,
    attempts: [...job.attempts, attempt],
  };
  put(draft, starting);
  note(draft, job.id, "status", { status: "starting", attempt: token.n });
  return starting;
}

/**
 * Room that the agent has for what it was sent goes to the first of that in turn. It was there when the attempt before had
 * ended by the agent's own word, however late and together with others that comes.
 */
function giveTurns(draft: Draft, free: number): void {
  if (free <= 0) return;
  const ahead = inTurn(draft.jobs.values()).flatMap((job) =>
    job.prefetched === null ? [] : [{ job, prefetched: job.prefetched }],
  );
  let left = free - ahead.filter(({ prefetched }) => prefetched.turn !== null).length;
  for (const { job, prefetched } of ahead) {
    if (left <= 0) return;
    if (prefetched.turn !== null) continue;
    left -= 1;
    const turn: Place = { freedAt: draft.freedAt ?? draft.now, at: draft.now };
    put(draft, { ...job, prefetched: { ...prefetched, turn } });
  }
}

/**
 * JOB-5: the job a frame speaks of, unless it has ended, the frame comes from an older attempt, or there was no room for it
 * yet: no agent may run more than the lease's share.
 */
export function fenced(draft: Draft, of: { job: JobId; attempt: AttemptToken }): Job | null {
  const job = draft.jobs.get(of.job);
  const token = job === undefined || isTerminal(job) ? undefined : tokenInHand(job);
  if (job === undefined || token === undefined || !sameAttempt(token, of.attempt)) return null;
  return job.prefetched === null ? job : takeUp(draft, job, job.prefetched);
}

/** The agent has begun it. Where it was not the next by our list, for the word of another was on its way, that one waits on. */
function takeUp(draft: Draft, job: Job, { token, sentAt, turn }: Ahead): Job | null {
  const place = turn ?? placeOfAnother(draft);
  return place === null ? null : take(draft, job, token, Math.max(sentAt, place.freedAt));
}

function placeOfAnother(draft: Draft): Place | null {
  const next = inTurn(draft.jobs.values()).findLast(({ prefetched }) => prefetched?.turn != null);
  if (next === undefined || next.prefetched === null) return null;
  put(draft, { ...next, prefetched: { ...next.prefetched, turn: null } });
  return next.prefetched.turn;
}

/** It waits on as if it had not been sent; anew if there was room for it, as a lost attempt does. */
export function unsend(draft: Draft, job: Job): void {
  const hadTurn = job.prefetched?.turn != null;
  put(draft, { ...job, prefetched: null, ...(hadTurn ? { queuedAt: draft.now } : {}) });
}

/**
 * Where nothing may be begun (LSE-10, LSE-11, LSE-14), or its agent was away for too long, what was sent before its turn is
 * called back. It never left the queue, and spends no retry; but its number is used, for the agent has heard of it.
 */
export function withdraw(draft: Draft): void {
  if (mayBegin(draft.lease, draft.now)) return;
  for (const job of draft.jobs.values()) {
    if (job.prefetched === null || isTerminal(job)) continue;
    const { token, sentAt } = job.prefetched;
    recall(draft, job, "nothing is begun on its lease");
    // A node that stops is sent nothing any more, under whatever number.
    if (draft.lease.drainAt !== null) {
      unsend(draft, job);
      continue;
    }
    const attempt: Attempt = { token, sentAt, startedAt: null, endedAt: draft.now, outcome: WITHDRAWN };
    unsend(draft, { ...job, attempts: [...job.attempts, attempt] });
    note(draft, job.id, "attempt", { attempt: token.n, outcome: WITHDRAWN });
  }
}
