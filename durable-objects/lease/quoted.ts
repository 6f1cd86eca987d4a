import { emptyFrontier } from "@gpux/protocol/merkle";
import type { HoldRequest } from "../interfaces.ts";
import { hasherOf } from "./billing.ts";
import { NOT_SERVED } from "./service-state.ts";
import type { Lease, State } from "./state.ts";

/** LSE-1: a lease begins as a quote: terms that nobody has funded, held until `expiresAt`. */
export function quotedLease(request: HoldRequest, place: Lease["place"], now: number): State {
  const lease: Lease = {
    id: request.lease,
    hash: hasherOf(place).leaseTerms(request.terms),
    place,
    terms: request.terms,
    text: request.text,
    status: "quoted",
    createdAt: now,
    quoteUntil: request.expiresAt,
    reservedUntil: 0,
    funding: null,
    plan: null,
    funded: 0n,
    openedAt: null,
    watch: { at: 0, isHard: false },
    suspendedAt: null,
    extendedS: 0,
    epoch: 0,
    secret: null,
    sent: 0,
    seen: 0,
    keeps: false,
    prefetches: false,
    awayAt: now,
    metAt: null,
    billedMs: 0,
    spent: 0n,
    allowance: null,
    frontier: emptyFrontier(),
    block: null,
    ticks: [],
    service: NOT_SERVED,
    voucher: null,
    closing: null,
    topUps: [],
    autoTopUp: null,
    held: { cumulative: 0n, at: 0 },
    settled: 0n,
    errands: { opened: false, metered: false, released: false, withdraw: [] },
    capacity: { state: "held", turn: 0, told: true, blocker: null, idleAt: null, yieldAt: null },
    transactions: [],
    arrivals: 0,
    jobsEnded: 0,
    drainAt: null,
    overAt: null,
    end: null,
  };
  return { lease, jobs: new Map() };
}
