import { NO_JOB } from "@gpux/protocol/eip712";
import { accrued, MAX_AMOUNT } from "@gpux/protocol/money";
import { charged, paidMs } from "@gpux/protocol/tariff";
import { cardOf, ceiling, tariffOf, withReceipt } from "./billing.ts";
import { type Draft, sendVolatile } from "./draft.ts";
import { drain } from "./ending.ts";
import { isTerminal } from "./job-state.ts";
import { sendCancel } from "./jobs.ts";
import { giveUp } from "./outcome.ts";
import { isDedicated, type Lease, type State } from "./state.ts";

/**
 * The time of a dedicated lease (SPEC MTR-9 to MTR-11). The edge's clock runs while the lease is there to be used: the
 * agent has confirmed it, its socket is up, and nobody has ended it. Every tick the agent is asked what its own clock
 * says; what is billed is the least of the two, of what the terms allow by now, and of the money.
 */

/** An agent that does not say how long it served gets no more than it said before, when the lease is to close. */
export const LAST_COUNT_MS = 10_000;

type Service = Lease["service"];
type Span = Pick<Lease, "text" | "terms" | "service">;

const never = Number.POSITIVE_INFINITY;

/** What the edge's own clock has counted by `now`. */
export function edgeMs({ terms, service }: Span, now: number): number {
  const { since } = service;
  return service.edgeMs + (since === null ? 0 : Math.max(0, Math.min(now, terms.expiry * 1_000) - since));
}

/** MTR-9: what is owed for by now, of all the time that was served: the least of both clocks, terms and money. */
export function servedMs(lease: Lease, now: number): number {
  const { terms, service, funded } = lease;
  const elapsed = Math.max(0, Math.min(now, terms.expiry * 1_000) - (lease.openedAt ?? now));
  const byTime =
    terms.upfront === MAX_AMOUNT ? MAX_AMOUNT : terms.upfront + accrued(terms.ratePerHour, elapsed);
  const limits = [funded, ceiling(lease), byTime].map((most) => paidMs(tariffOf(lease), most));
  return Math.min(service.agentMs, edgeMs(lease, now), ...limits);
}

/** Whether time counts now. While begun jobs end, only the consumer's own end of the lease lets it go on. */
function counts({ lease, jobs }: State): boolean {
  const { status, awayAt, drainAt, service, end } = lease;
  if (!isDedicated(lease) || service.servingAt === null || service.isFinal || awayAt !== null) return false;
  if (status === "active") return true;
  if (status !== "draining" || drainAt !== null) return false;
  const isAgreed = end?.reason === "closed_by_consumer" || end?.reason === "terms_expired";
  return isAgreed && [...jobs.values()].some((job) => !isTerminal(job));
}

/** When so much has been counted since the agent was last asked; infinity while the clock stands. */
function after(service: Service, ms: number): number {
  return service.since === null ? never : service.since + service.countedMs - service.edgeMs + ms;
}

function tickMs({ text }: Span): number {
  return text.tick_s * 1_000;
}

function tickAt(lease: Lease): number {
  const { service } = lease;
  return service.askedAt === null ? after(service, tickMs(lease)) : service.askedAt + tickMs(lease);
}

/** When its money is used up. */
export function spentAt(lease: Lease): number {
  return after(lease.service, paidMs(tariffOf(lease), lease.funded) - lease.billedMs);
}

/** When less than a fifth of its money is left. */
function lowAt(lease: Lease): number {
  // A millisecond more than four fifths pay for.
  const ms = paidMs(tariffOf(lease), (lease.funded * 4n) / 5n) + 1;
  return after(lease.service, ms - lease.billedMs);
}

/** When time next brings something about. */
export function serviceAt({ lease }: State): number {
  const { status, service } = lease;
  if (!isDedicated(lease)) return never;
  if (service.since !== null)
    return Math.min(tickAt(lease), spentAt(lease), service.low === null ? lowAt(lease) : never);
  return status === "draining" && !service.isFinal && service.askedAt !== null
    ? service.askedAt + LAST_COUNT_MS
    : never;
}

/** Whether a lease that is to close knows all that is owed. */
export function isCounted(lease: Lease): boolean {
  return !isDedicated(lease) || lease.service.isFinal;
}

/** The agent serves the lease: from here on its time counts. */
export function serving(draft: Draft): void {
  const { service } = draft.lease;
  if (service.servingAt === null) change(draft, { servingAt: draft.now });
}

/** After the agent's hello: it counts nothing until it is told that time counts, so the edge begins anew with it. */
export function meet(draft: Draft): void {
  if (isDedicated(draft.lease)) stand(draft, draft.now);
}

/**
 * A new life of the object finds no socket, and nothing says when it broke: the agent's own clock, which stood when it
 * lost the edge, is believed for one tick beyond the last that was due, and no further.
 */
export function breakClock(draft: Draft): void {
  const { lease, now } = draft;
  if (lease.service.since === null) return;
  stand(draft, Math.max(lease.service.since, Math.min(now, after(lease.service, 2 * tickMs(lease)))));
}

/** Nothing that is not billed yet will be: the agent will sign no more. */
export function forgo(draft: Draft): void {
  stand(draft, draft.now);
  change(draft, { isFinal: true });
}

/** The agent's answer to a `tick`: what is owed since the last one becomes a receipt. */
export function served(draft: Draft, said: { readonly n: number; readonly ms: number }): void {
  const { lease, now } = draft;
  const { service } = lease;
  if (!isDedicated(lease) || service.isFinal || service.askedAt === null || said.n !== service.asked) return;
  change(draft, {
    agentMs: Math.max(service.agentMs, said.ms),
    askedAt: null,
    countedMs: edgeMs(lease, now),
    isFinal: lease.status === "draining" && service.since === null,
  });
  tick(draft);
}

function tick(draft: Draft): void {
  const { lease, now } = draft;
  const total = servedMs(lease, now);
  const ms = total - lease.billedMs;
  if (ms <= 0) return;
  const { quote } = lease.terms;
  const price = charged(tariffOf(lease), total) - charged(tariffOf(lease), lease.billedMs);
  const added = withReceipt(lease, ms, {
    job: NO_JOB,
    attempt: lease.service.asked,
    inputHash: quote,
    outputHashes: [],
    gpu: cardOf(lease),
    billedMs: BigInt(ms),
    price,
    endedAt: Math.floor(now / 1_000),
  });
  const from = lease.service.billedTo ?? lease.service.servingAt ?? now;
  const ticks = [...lease.ticks, { from, to: now, receipt: added.receipt }];
  draft.lease = { ...added.lease, ticks };
  change(draft, { billedTo: now });
}

/** Everything that is due by the clock, or follows from what has happened. Runs after every event. */
export function keepTime(draft: Draft): void {
  if (!isDedicated(draft.lease)) return;
  const { now } = draft;
  wind(draft);
  if (draft.lease.service.since === null) return lastCount(draft);
  if (now >= lowAt(draft.lease) && draft.lease.service.low === null)
    change(draft, { low: leftAt(draft.lease, now) });
  if (now >= spentAt(draft.lease)) {
    spend(draft);
    wind(draft);
    return lastCount(draft);
  }
  if (now >= tickAt(draft.lease)) ask(draft);
}

/** More money has come: that little is left may be said again. */
export function refilled(draft: Draft): void {
  if (draft.lease.service.low !== null) change(draft, { low: null });
}

/** Starts or stops the clock as the lease stands, and tells the agent. */
function wind(draft: Draft): void {
  const { now } = draft;
  const runs = counts(draft);
  if (runs === (draft.lease.service.since !== null)) return;
  if (runs) change(draft, { since: now });
  else stand(draft, now);
  if (!draft.lease.service.isFinal) ask(draft);
}

/** Of a lease that is to close: what it served until its clock stood. */
function lastCount(draft: Draft): void {
  const { lease, now } = draft;
  const { service } = lease;
  if (lease.status !== "draining" || service.isFinal || counts(draft)) return;
  const isNothing = edgeMs(lease, now) <= lease.billedMs;
  const isLate = service.askedAt !== null && now >= service.askedAt + LAST_COUNT_MS;
  if (isNothing || (isLate && lease.awayAt === null)) change(draft, { isFinal: true });
  else if (service.askedAt === null) ask(draft);
}

/** MTR-11: nobody serves for nothing. Its jobs are broken off. */
function spend(draft: Draft): void {
  for (const job of draft.jobs.values()) {
    if (isTerminal(job)) continue;
    if (job.status !== "queued") sendCancel(draft, job, "the lease's money is used up");
    giveUp(draft, job, { code: "lease_ended" });
  }
  if (draft.lease.status === "active") drain(draft, { reason: "funds_spent", fault: "tenant" });
}

function leftAt(lease: Lease, now: number): bigint {
  const unbilled = edgeMs(lease, now) - lease.service.countedMs;
  const spent = charged(tariffOf(lease), lease.billedMs + Math.max(0, unbilled));
  return spent < lease.funded ? lease.funded - spent : 0n;
}

function ask(draft: Draft): void {
  if (draft.lease.awayAt !== null) return;
  const n = draft.lease.service.asked + 1;
  change(draft, { asked: n, askedAt: draft.now });
  sendVolatile(draft, { t: "tick", n, runs: draft.lease.service.since !== null });
}

/** The clock stands from `at` on. A question that was put before is put anew. */
function stand(draft: Draft, at: number): void {
  const { lease } = draft;
  change(draft, { edgeMs: edgeMs(lease, at), since: null, askedAt: null });
}

function change(draft: Draft, service: Partial<Service>): void {
  draft.lease = { ...draft.lease, service: { ...draft.lease.service, ...service } };
}
