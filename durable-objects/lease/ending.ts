import type { LeaseEnd } from "@gpux/protocol/lease";
import { evidenceOf } from "./billing.ts";
import { type Draft, send } from "./draft.ts";

/** An attempt on a node that left is lost after this. */
export const GRACE_MS = 120_000;

/** An agent that is back says at once what it kept; a connection that holds it up for longer is dead (SPEC MTR-7). */
export const SILENT_MS = 75_000;

/** No new work; what was begun still ends (SPEC LSE-5). */
export function drain(draft: Draft, why: LeaseEnd): void {
  draft.lease = { ...draft.lease, status: "draining", end: why };
}

/** LSE-10: the node stops at `at`. Said again it may be earlier, never later. */
export function stopBy(draft: Draft, at: number): void {
  draft.lease = { ...draft.lease, drainAt: Math.min(draft.lease.drainAt ?? at, at) };
}

/** Nothing more happens but paying out; but for a lost lease, whose agent may still sign, its socket is closed. */
export function end(draft: Draft, status: "closed" | "expired" | "lost"): void {
  const awayAt = status === "lost" ? draft.lease.awayAt : (draft.lease.awayAt ?? draft.now);
  draft.lease = { ...draft.lease, status, overAt: draft.now, awayAt };
}

/** Asks the provider to sign the final usage. */
export function askClose(draft: Draft): void {
  const { closing, spent } = draft.lease;
  if (closing === null || closing.provider !== null) return;
  send(draft, {
    t: "close",
    cumulative: spent,
    evidence: evidenceOf(draft.lease),
    valid_before: closing.validBefore,
  });
}

/** LSE-2: a quote that nobody pays for. */
export function lapse(draft: Draft): void {
  draft.lease = { ...draft.lease, end: { reason: "quote_lapsed", fault: "tenant" } };
  end(draft, "expired");
}
