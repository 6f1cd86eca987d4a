import { type JobId, jobIdOf, type LeaseId } from "@gpux/protocol/ids";

/**
 * The name under which a request is remembered: client-made job ids and idempotency keys cannot meet. Without
 * either, a request is only ever itself, for its nonce cannot come again.
 */
export function scopeOf(clientId: string | null, key: string | null, nonce: string): string {
  if (clientId !== null) return `id:${clientId}`;
  return key === null ? `nonce:${nonce}` : `key:${key}`;
}

/** The same request of the same principal is the same job in a lease, however often and by whichever route it comes. */
export async function jobIdFor(lease: LeaseId, by: string, scope: string): Promise<JobId> {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(`${by} ${scope}`));
  return jobIdOf(lease, new Uint8Array(hash, 0, 16));
}

/**
 * Of an array of requests that came as one. The first has the id of a request by itself: a name stands for one request,
 * array or not.
 */
export function jobIdsFor(lease: LeaseId, by: string, scope: string, count: number): Promise<JobId[]> {
  return Promise.all(
    Array.from({ length: count }, (_, index) =>
      jobIdFor(lease, by, index === 0 ? scope : `${scope} ${index}`),
    ),
  );
}
