/** Below this a signature is not refused for its time, so there is nothing to put right; ms. */
const NEAR_MS = 15_000;
/** A clock that is off by more would have this agent decline what it is asked for; it has to be set first. */
const MOST_MS = 900_000;

/**
 * The time that signatures for the edge name. Clocks of machines at home are off by minutes, and the edge takes no
 * signature that is (protocol/http-signature). Whoever says the edge's time may do no more by it than have this key sign
 * for the edge alone, a minute long: nothing else that the agent decides goes by it.
 */
export interface EdgeClock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** The `Date` of an answer that refused a signature. */
  refusedAt(date: string | null | undefined): void;
}

/** `onOff`: this machine's clock is so many seconds ahead of the edge's; told when that is news. */
export function createEdgeClock(onOff: (aheadS: number) => void): EdgeClock {
  let heardMs = 0;
  return {
    now: () => Date.now() - (Math.abs(heardMs) > MOST_MS ? 0 : heardMs),
    refusedAt(date) {
      const theirs = Date.parse(date ?? "");
      if (Number.isNaN(theirs)) return;
      const aheadMs = Date.now() - theirs;
      if (Math.abs(aheadMs - heardMs) < NEAR_MS) return;
      heardMs = aheadMs;
      onOff(Math.round(aheadMs / 1_000));
    },
  };
}
