import type { LeaseId } from "@gpux/protocol/ids";
import type { Refused } from "../interfaces.ts";

/** A session as its Account keeps it, as far as its cap and its end go. Times in milliseconds. */
export interface Session {
  readonly cap: bigint;
  readonly expiresAt: number;
  readonly revokedAt: number | null;
}

/** A lease that knows the session, and what of its cap is set aside there. */
export interface Place {
  readonly lease: LeaseId;
  readonly reserved: bigint;
  /** Whether it has heard of the session's revocation. */
  readonly told: boolean;
}

/** A lease gets this part of what is free of a cap beyond what it needs, so that it seldom asks again. */
const SLACK = 4n;

/** Why a session may do nothing any more; null when it stands. */
export function sessionRefusal(session: Session | null, now: number): Refused | null {
  // Only after the account was lost could a sealed session be unknown; who holds its key is nobody then.
  if (session === null || session.revokedAt !== null) return { ok: false, code: "session_revoked" };
  return session.expiresAt <= now ? { ok: false, code: "session_expired" } : null;
}

/** What of the cap is set aside for no lease. */
export function freeOf({ cap }: Session, places: readonly Place[]): bigint {
  const reserved = places.reduce((sum, place) => sum + place.reserved, 0n);
  return cap > reserved ? cap - reserved : 0n;
}

/** What must be free for the lease to have `needs`: more than that, and other leases are asked to give back. */
export function missingAt(lease: LeaseId, places: readonly Place[], needs: bigint): bigint {
  const before = places.find((place) => place.lease === lease)?.reserved ?? 0n;
  return needs > before ? needs - before : 0n;
}

/** SES-5: what is set aside for the lease once it has what it needs. */
export function setAside(
  session: Session,
  places: readonly Place[],
  lease: LeaseId,
  needs: bigint,
): { readonly ok: true; readonly reserved: bigint } | Refused {
  const more = missingAt(lease, places, needs);
  const free = freeOf(session, places);
  if (more > free)
    return {
      ok: false,
      code: "session_cap_exceeded",
      detail: `of the cap of ${session.cap}, ${free} is left beside what other jobs have cost or may cost`,
    };
  const extra = more === 0n || free / SLACK <= more ? more : free / SLACK;
  const before = places.find((place) => place.lease === lease)?.reserved ?? 0n;
  return { ok: true, reserved: before + extra };
}

/** SES-6: who must still hear of the revocation. A token that has ended opens nothing anywhere, so nobody must then. */
export function untoldLeases(session: Session, places: readonly Place[], now: number): LeaseId[] {
  if (session.revokedAt === null || session.expiresAt <= now) return [];
  return places.filter(({ told }) => !told).map(({ lease }) => lease);
}
