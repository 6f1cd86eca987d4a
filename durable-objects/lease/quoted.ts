import { emptyFrontier } from "@gpux/protocol/merkle";
import type { HoldRequest } from "../interfaces.ts";
import { hasherOf } from "./billing.ts";
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
    funding: null,
    plan: null,
    funded: 0n,
    openedAt: null,
    epoch: 0,
    secret: null,
    sent: 0,
    seen: 0,
    awayAt: now,
    metAt: null,
    billedMs: 0,
    spent: 0n,
    allowance: null,
    frontier: emptyFrontier(),
    block: null,
    ticks: [],
    service: {
      servingAt: null,
      since: null,
      edgeMs: 0,
      agentMs: 0,
      countedMs: 0,
      asked: 0,
      askedAt: null,
      billedTo: null,
      low: null,
      isFinal: false,
    },
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
