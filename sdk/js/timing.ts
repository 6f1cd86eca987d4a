/** The clock that retries, waits and signatures go by; tests bring their own. Times in ms. */
export interface Timing {
  now(): number;
  /** Resolves after `ms`, or at once when the signal aborts; it never rejects. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** From 0 to below 1. */
  random(): number;
}

export const SYSTEM_TIMING: Timing = {
  now: () => Date.now(),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted) return resolve();
      const end = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      signal?.addEventListener("abort", end, { once: true });
    }),
  random: () => Math.random(),
};

const BASE_MS = 500;
const LONGEST_MS = 8_000;
/** A longer Retry-After than this is an answer for people, not for a loop. */
const LONGEST_RETRY_AFTER_MS = 60_000;

/** Full jitter over 0.5 s x 2^attempt, at most 8 s. `attempt` counts from 0. */
export function backoff(attempt: number, timing: Timing): number {
  return timing.random() * Math.min(BASE_MS * 2 ** attempt, LONGEST_MS);
}

/** RFC 9110 section 10.2.3: seconds or an HTTP date. `null` when absent, unreadable or beyond a minute. */
export function retryAfter(headers: Headers, now: number): number | null {
  const text = headers.get("retry-after")?.trim();
  if (!text) return null;
  const ms = /^[0-9]{1,6}$/.test(text) ? Number(text) * 1_000 : Date.parse(text) - now;
  return ms >= 0 && ms <= LONGEST_RETRY_AFTER_MS ? ms : null;
}
