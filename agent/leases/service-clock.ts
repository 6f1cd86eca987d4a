import { performance } from "node:perf_hooks";

/**
 * How long a dedicated lease was served here, by this machine's monotonic clock: while the edge said that time counts,
 * and only as long as the edge was there to hear of it.
 */
export interface ServiceClock {
  /** The edge says whether time counts from now on. */
  run(runs: boolean): void;
  /** The link was lost, and the edge was last heard at `at` (by the same clock): nothing counts until it says so again. */
  cut(at: number): void;
  /** Whole milliseconds. */
  total(): number;
}

/** `before`: what an earlier life of the agent counted. */
export function createServiceClock(
  before: number,
  now: () => number = () => performance.now(),
): ServiceClock {
  let counted = before;
  let since: number | null = null;
  const stand = (at: number) => {
    if (since !== null) counted += Math.max(0, at - since);
    since = null;
  };
  return {
    run(runs) {
      stand(now());
      if (runs) since = now();
    },
    cut: stand,
    total: () => Math.floor(counted + (since === null ? 0 : Math.max(0, now() - since))),
  };
}
