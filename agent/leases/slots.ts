import type { Turn } from "@gpux/protocol/frames";

/** Lets at most `size` holders in at once, the others in order of their turns, or of asking where those are the same. */
export interface Slots {
  /** Resolves with the way to give the slot back; rejects with the signal's reason when it aborts first. */
  take(signal: AbortSignal, turn?: Turn): Promise<() => void>;
  /** Takes a slot that is free now; null: none is. */
  takeFree(): (() => void) | null;
}

/** Of those that have none, as edges of before send them. */
export const ANY_TURN: Turn = { priority: 0, n: 1 };

/** JOB-3: as the edge has them. */
export function precedes(a: Turn, b: Turn): boolean {
  return a.priority === b.priority ? a.n < b.n : a.priority > b.priority;
}

interface Waiting {
  readonly turn: Turn;
  readonly enter: () => void;
}

export function createSlots(size: number): Slots {
  let free = size;
  const waiting: Waiting[] = [];
  const giveBack = () => {
    const next = waiting.shift();
    if (next === undefined) free += 1;
    else next.enter();
  };
  const once = (): (() => void) => {
    let given = false;
    return () => {
      if (!given) giveBack();
      given = true;
    };
  };
  const takeFree = () => {
    if (free === 0) return null;
    free -= 1;
    return once();
  };
  return {
    takeFree,
    async take(signal, turn = ANY_TURN) {
      signal.throwIfAborted();
      const taken = takeFree();
      if (taken !== null) return taken;
      return new Promise((resolve, reject) => {
        const enter = () => {
          signal.removeEventListener("abort", leave);
          resolve(once());
        };
        const one: Waiting = { turn, enter };
        const leave = () => {
          waiting.splice(waiting.indexOf(one), 1);
          reject(signal.reason);
        };
        const behind = waiting.findIndex((other) => precedes(turn, other.turn));
        waiting.splice(behind < 0 ? waiting.length : behind, 0, one);
        signal.addEventListener("abort", leave, { once: true });
      });
    },
  };
}
