import type { Share } from "@gpux/protocol/capacity";
import { LeaseTerms } from "@gpux/protocol/eip712";
import { LeaseId } from "@gpux/protocol/ids";
import { QuoteText } from "@gpux/protocol/lease";
import { Gpu, Resources } from "@gpux/protocol/resources";
import { z } from "zod";

/** A quote that this node confirmed: for a time the resources are its own, and the terms are agreed. */
export const Hold = z.strictObject({
  lease: LeaseId,
  terms: LeaseTerms,
  resources: Resources,
  /** The cards that were sold; none in journals of before they were named. */
  gpus: z.array(Gpu).default([]),
  /** What exactly was sold; none in journals of before it was kept. */
  text: QuoteText.optional(),
  /** Milliseconds since the epoch. */
  expiresAt: z.int(),
});
export type Hold = z.output<typeof Hold>;

export const HoldEntry = z.discriminatedUnion("is", [
  z.strictObject({ is: z.literal("held"), hold: Hold }),
  z.strictObject({ is: z.literal("released"), lease: LeaseId }),
]);
export type HoldEntry = z.output<typeof HoldEntry>;

/**
 * A hold reserves for its 30 s. Its funding may land until an hour later (protocol/lease.ts, valid_before) without
 * our hearing of it before `open`, so the agreement itself is remembered for longer.
 */
const REMEMBERED_MS = 2 * 3_600_000;

export type Holds = ReadonlyMap<LeaseId, Hold>;

export function enterHold(holds: Holds, entry: HoldEntry): Holds {
  const next = new Map(holds);
  if (entry.is === "held") next.set(entry.hold.lease, entry.hold);
  else next.delete(entry.lease);
  return next;
}

/** Without those that can no longer open. */
export function rememberedHolds(holds: Holds, nowMs: number): Holds {
  return new Map([...holds].filter(([, hold]) => nowMs < hold.expiresAt + REMEMBERED_MS));
}

/**
 * What holds and leases take of the machine now, `except` one lease. A hold that became a lease takes nothing beside it,
 * also while that rests: the end of a hold that was opened is not synced.
 */
export function takenShares(
  holds: Holds,
  leases: readonly ({ id: LeaseId; isResting: boolean } & Share)[],
  nowMs: number,
  except: LeaseId,
): Share[] {
  const known = new Set(leases.map(({ id }) => id));
  const held = [...holds.values()].filter((hold) => hold.expiresAt > nowMs && !known.has(hold.lease));
  const working = leases.filter(({ isResting }) => !isResting);
  return [...working.filter(({ id }) => id !== except), ...held.filter(({ lease }) => lease !== except)];
}
