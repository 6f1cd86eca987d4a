import type { JobId, LeaseId, OrderId } from "@gpux/protocol/ids";
import type { QuoteText } from "@gpux/protocol/lease";
import { standInFor, textBlockersOf } from "@gpux/protocol/quote-text";
import { type Demand, Prices, ratePerHour } from "@gpux/protocol/resources";
import type { Refused } from "../interfaces.ts";

/** How long a finished request answers its retries. */
export const RETENTION_MS = 24 * 3_600_000;
/** Quotes and orders hold other people's GPUs: this many of them at once. */
export const MAX_OPEN_QUOTES = 8;

/** A job and the lease that it was first asked of. */
export interface Chosen {
  readonly job: JobId;
  readonly lease: LeaseId;
}

interface KeyHead {
  readonly bodyHash: string;
  /** Milliseconds: when it began, or began again. */
  readonly since: number;
}

/**
 * What an idempotency key (or a client-made job id) stands for. A lease is chosen before it is asked, so that a
 * retry after a crash asks the same lease for the same job.
 */
export type KeyEntry =
  | (KeyHead & { readonly state: "pending"; readonly chosen: Chosen | null })
  | (KeyHead & { readonly state: "done"; readonly chosen: Chosen });

export type KeyEvent =
  /** `underway`: the first request is being dealt with by this very life of the object. */
  | { readonly t: "begin"; readonly bodyHash: string; readonly underway: boolean }
  | { readonly t: "choose"; readonly chosen: Chosen }
  | { readonly t: "succeeded"; readonly chosen: Chosen }
  /** Nothing came of it: the same key may bring the request again, as after `payment_required`. */
  | { readonly t: "refused" };

export type KeyStep =
  | {
      readonly ok: true;
      readonly next: KeyEntry | null;
      /** The job of the first request, when this one is its retry. */
      readonly replay: Chosen | null;
    }
  | Refused;

/**
 * One key's life: absent -> pending -> done, or back to absent. Done entries never change. A pending one that nobody
 * is dealing with was cut off, by a crash or a throw: a retry takes it over at once.
 */
export function stepKey(entry: KeyEntry | null, event: KeyEvent, now: number): KeyStep {
  if (event.t === "begin") return begin(entry, event, now);
  if (entry === null || entry.state === "done") return { ok: true, next: entry, replay: null };
  switch (event.t) {
    case "choose":
      return { ok: true, next: { ...entry, chosen: event.chosen }, replay: null };
    case "succeeded":
      return { ok: true, next: { ...entry, state: "done", chosen: event.chosen }, replay: null };
    case "refused":
      return { ok: true, next: null, replay: null };
  }
}

function begin(
  entry: KeyEntry | null,
  { bodyHash, underway }: Extract<KeyEvent, { t: "begin" }>,
  now: number,
): KeyStep {
  const fresh: KeyEntry = { bodyHash, state: "pending", chosen: null, since: now };
  if (entry === null) return { ok: true, next: fresh, replay: null };
  if (entry.bodyHash !== bodyHash) return { ok: false, code: "idempotency_key_reused" };
  if (entry.state === "done") return { ok: true, next: entry, replay: entry.chosen };
  if (underway) return { ok: false, code: "idempotency_in_progress" };
  return { ok: true, next: { ...entry, since: now }, replay: null };
}

/** A lease of this account: `quoted` until it is funded or lapses, `open` while it is in the warm pool. */
export interface AccountLease {
  readonly id: LeaseId;
  readonly phase: "quoted" | "open" | "ended";
  readonly text: QuoteText;
  /** Milliseconds: of the quote while it is `quoted`, of the terms after that. */
  readonly expiresAt: number;
  readonly createdAt: number;
  /** Of one that is quoted and funded together with others. */
  readonly order: OrderId | null;
}

/** Whether what the lease bought would also be sold for this demand. */
export function fits(text: QuoteText, demand: Demand): boolean {
  return textBlockersOf(text, demand).length === 0;
}

/** How soon a lease would begin a job, as it was a moment ago. */
export type Standing = "attached" | "held" | "resting";
const READINESS: readonly Standing[] = ["attached", "held", "resting"];

/** The account's open leases that a job with this demand may go to, in no order. */
export function pool(leases: readonly AccountLease[], demand: Demand, now: number): AccountLease[] {
  return leases.filter(
    (lease) => lease.phase === "open" && lease.expiresAt > now && fits(lease.text, demand),
  );
}

/**
 * POOL-1: the leases to try for a job, in order: the one that an interrupted first try chose, then either the one that
 * the request names or the account's own that fit, those whose node is there first, then the cheapest, then the newest.
 */
export function candidates(
  leases: readonly AccountLease[],
  request: { readonly lease?: LeaseId | undefined; readonly demand: Demand },
  chosen: LeaseId | null,
  now: number,
  standing: ReadonlyMap<LeaseId, Standing> = new Map(),
): LeaseId[] {
  const readiness = (id: LeaseId) => READINESS.indexOf(standing.get(id) ?? "resting");
  const fitting = pool(leases, request.demand, now)
    .map(rated)
    .sort((a, b) => readiness(a.id) - readiness(b.id) || cheapestFirst(a, b))
    .map(({ id }) => id);
  const tried = request.lease === undefined ? fitting : [request.lease];
  return [...new Set(chosen === null ? tried : [chosen, ...tried])];
}

/** A job is offered to one after another: to so many before they are looked for anew. */
const MOST_PLACES = 8;

/**
 * JOB-11: the open leases that may take over what waits on `from`, cheapest first, then the newest. A firm one's jobs stay
 * firm; a dedicated lease, and one of an order, is what its consumer put the job on.
 */
export function placesFor(
  from: AccountLease | null,
  leases: readonly AccountLease[],
  now: number,
): LeaseId[] {
  if (from === null || from.text.mode === "dedicated" || from.order !== null) return [];
  const { id, text } = from;
  return leases
    .filter((each) => each.id !== id && each.phase === "open" && each.expiresAt > now && each.order === null)
    .filter((each) => each.text.mode === text.mode && each.text.node !== text.node)
    .filter((each) => fits(each.text, standInFor(text)))
    .map(rated)
    .sort(cheapestFirst)
    .map((each) => each.id)
    .slice(0, MOST_PLACES);
}

function rated({ id, text: { prices, resources }, createdAt }: AccountLease) {
  return { id, rate: ratePerHour(Prices.parse(prices), resources), createdAt };
}

/** Then the newest. */
function cheapestFirst(a: ReturnType<typeof rated>, b: ReturnType<typeof rated>): number {
  return Number(a.rate > b.rate) - Number(a.rate < b.rate) || b.createdAt - a.createdAt;
}

/** Those of an order count with it. */
export function openQuotes(leases: readonly AccountLease[], now: number): number {
  return leases.filter((lease) => lease.phase === "quoted" && lease.order === null && lease.expiresAt > now)
    .length;
}
