import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { Bytes32, JobId, LeaseId } from "@gpux/protocol/ids";
import { type JobView, TERMINAL } from "@gpux/protocol/job";
import type { QuoteText } from "@gpux/protocol/lease";
import { textBlockersOf } from "@gpux/protocol/quote-text";
import type { Demand } from "@gpux/protocol/resources";
import type { SignedAllowance } from "./spending.ts";

/** How much a lease may spend by its consumer's signature, base units. */
export interface Allowed {
  readonly cumulative: bigint;
  /** Null where this client has but the edge's word that it was given it. */
  readonly signed: SignedAllowance | null;
}

/** A lease whose terms this client has checked and may sign allowances for. Amounts in base units. */
export interface WarmLease {
  readonly id: LeaseId;
  readonly hash: Bytes32;
  readonly terms: LeaseTerms;
  readonly text: QuoteText;
  /** No allowance goes above it. */
  limit: bigint;
  /** Used by jobs that ended, as far as this client knows. */
  spent: bigint;
  /** Jobs that are in `spent`: a replayed answer must not count twice. */
  readonly ended: Set<JobId>;
  /** What each job that has not ended may still cost. Keyed by job, or by idempotency key until the job is known. */
  readonly open: Map<string, bigint>;
  /** The last that this client signed, or was told of when it took the lease over. */
  allowed: Allowed | null;
  /** What the consumer's key is being asked for; it is in `allowed` when that resolves. */
  asked: { readonly cumulative: bigint; readonly signed: Promise<void> } | null;
}

/** As a client comes to know it, with nothing on its way there. */
type NewLease = Omit<WarmLease, "ended" | "open" | "allowed" | "asked"> & Partial<Pick<WarmLease, "allowed">>;

export interface WarmLeases {
  get(id: string): WarmLease | undefined;
  put(lease: NewLease): WarmLease;
  /** To at least `limit`, after more money has come. */
  raise(id: string, limit: bigint): void;
  forget(id: string): void;
  /** One that fits and has room for `maxPrice` below its limit. `untilS`: seconds by which the job must have ended. */
  find(demand: Demand, maxPrice: bigint, untilS: number): WarmLease | undefined;
  /** Books the job's max_price before it is sent, so that jobs sent at once do not share one allowance. */
  book(lease: WarmLease, key: string, maxPrice: bigint): void;
  unbook(lease: WarmLease, key: string): void;
  /** From a booked key to the job it became. */
  started(lease: WarmLease, key: string, job: JobView): void;
  /** Any view of a job that passes by: an end frees what its job did not use. */
  saw(job: JobView): void;
}

/** Jobs of it cost nothing of their own: its time is paid for. */
export function isDedicated({ text }: Pick<WarmLease, "text">): boolean {
  return text.mode === "dedicated";
}

/** Spent plus what the open jobs may cost: the edge counts the same (`committed` of a lease's view). */
export function committed(lease: WarmLease): bigint {
  let sum = lease.spent;
  for (const maxPrice of lease.open.values()) sum += maxPrice;
  return sum;
}

/** What the job cost on this lease. */
function paidOn(lease: LeaseId, { lease_id: last, price, attempts }: JobView): bigint {
  const elsewhere = attempts.filter((each) => each.lease_id !== undefined);
  if (lease !== last)
    return elsewhere.reduce((sum, { lease_id, paid = 0n }) => sum + (lease_id === lease ? paid : 0n), 0n);
  return elsewhere.reduce((left, { paid = 0n }) => left - paid, price);
}

export function createWarmLeases(): WarmLeases {
  const leases = new Map<string, WarmLease>();
  const settle = (lease: WarmLease, job: JobView) => {
    // Of one that has moved only what it did here is this lease's.
    if (!TERMINAL.has(job.status) && lease.id === job.lease_id) return false;
    lease.open.delete(job.id);
    if (!lease.ended.has(job.id)) lease.spent += paidOn(lease.id, job);
    lease.ended.add(job.id);
    return true;
  };
  return {
    get: (id) => leases.get(id),
    put(lease) {
      const warm = leases.get(lease.id) ?? {
        allowed: null,
        ...lease,
        asked: null,
        ended: new Set(),
        open: new Map(),
      };
      leases.set(lease.id, warm);
      return warm;
    },
    raise(id, limit) {
      const lease = leases.get(id);
      if (lease !== undefined && limit > lease.limit) lease.limit = limit;
    },
    forget: (id) => leases.delete(id),
    find(demand, maxPrice, untilS) {
      for (const lease of leases.values()) {
        const roomy = isDedicated(lease) || committed(lease) + maxPrice <= lease.limit;
        if (roomy && lease.terms.expiry > untilS && textBlockersOf(lease.text, demand).length === 0)
          return lease;
      }
      return undefined;
    },
    book: (lease, key, maxPrice) => lease.open.set(key, maxPrice),
    unbook: (lease, key) => lease.open.delete(key),
    started(lease, key, job) {
      const maxPrice = lease.open.get(key) ?? job.max_price;
      lease.open.delete(key);
      if (!settle(lease, job)) lease.open.set(job.id, maxPrice);
    },
    saw(job) {
      // Only what this client booked: the rest was in `spent` when the lease was adopted.
      for (const lease of leases.values()) if (lease.open.has(job.id)) settle(lease, job);
    },
  };
}
