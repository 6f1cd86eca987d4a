/** First ceiling of the wait; it doubles with each failure in a row. */
const BASE_MS = 1_000;
const CAP_MS = 60_000;
/** After a link that had been stable: a deploy drops every socket at once, and the new edge is already there. */
const QUICK_MS = 250;

/** A link that lived this long counts as healthy; the next loss starts the back-off anew. */
export const STABLE_MS = 10_000;

/**
 * Milliseconds until the next dial: full jitter, uniform below a doubling ceiling, so that the agents that one
 * outage dropped do not come back together. `failures` counts from 0, the loss of a stable link. `random` is in
 * [0, 1). `retryAfterMs`, where the edge gave one, is the least, and those that were told the same come back spread over
 * as long again at least.
 */
export function backoff(failures: number, random: number, retryAfterMs = 0): number {
  const least = Math.min(retryAfterMs, CAP_MS);
  const ceiling = failures === 0 ? QUICK_MS : Math.min(CAP_MS, BASE_MS * 2 ** Math.min(failures - 1, 16));
  return least + Math.floor(random * Math.max(ceiling, least));
}
