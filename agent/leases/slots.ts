/** Lets at most `size` holders in at once, the others in order of asking. */
export interface Slots {
  /** Resolves with the way to give the slot back; rejects with the signal's reason when it aborts first. */
  take(signal: AbortSignal): Promise<() => void>;
  /** Takes a slot that is free now; null: none is. */
  takeFree(): (() => void) | null;
}

export function createSlots(size: number): Slots {
  let free = size;
  const waiting: (() => void)[] = [];
  const giveBack = () => {
    const next = waiting.shift();
    if (next === undefined) free += 1;
    else next();
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
    async take(signal) {
      signal.throwIfAborted();
      const taken = takeFree();
      if (taken !== null) return taken;
      return new Promise((resolve, reject) => {
        const enter = () => {
          signal.removeEventListener("abort", leave);
          resolve(once());
        };
        const leave = () => {
          waiting.splice(waiting.indexOf(enter), 1);
          reject(signal.reason);
        };
        waiting.push(enter);
        signal.addEventListener("abort", leave, { once: true });
      });
    },
  };
}
