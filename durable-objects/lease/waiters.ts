import type { JobId } from "@gpux/protocol/ids";

type Subject = JobId | "lease" | "block";

/** Calls that wait for a job to change, for the lease's status, or for the block of receipts under way. In memory: with the object its calls end as well. */
export class Waiters {
  readonly #waiting = new Map<Subject, Set<() => void>>();
  #count = 0;

  /** How many calls wait. */
  get count(): number {
    return this.#count;
  }

  changed(of: Subject): void {
    for (const go of this.#waiting.get(of) ?? []) go();
  }

  /** Resolves at the next change, or after `ms`. */
  change(of: Subject, ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const waiting = this.#waiting.get(of) ?? new Set();
    this.#waiting.set(of, waiting.add(resolve));
    const timer = setTimeout(resolve, ms);
    this.#count += 1;
    return promise.finally(() => {
      clearTimeout(timer);
      this.#count -= 1;
      waiting.delete(resolve);
      if (waiting.size === 0) this.#waiting.delete(of);
    });
  }
}
