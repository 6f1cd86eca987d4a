import type { JobId } from "@gpux/protocol/ids";
import type { AttemptToken } from "@gpux/protocol/job";
import { sameAttempt } from "./book.ts";

/** Why an attempt is stopped. Only a `canceled` one tells the edge; of the others the edge asks no more. */
export type StopReason = "canceled" | "fenced" | "leaving";

/** An attempt under way on this machine. */
export interface Attempt {
  readonly job: JobId;
  readonly attempt: AttemptToken;
  readonly signal: AbortSignal;
  readonly stopReason: StopReason | null;
  /** From the executor's start to its end. */
  executing: boolean;
  /** What it ran, once it has. */
  ms: number;
  stop(reason: StopReason): void;
}

/** The attempts of one lease that have begun and not ended. */
export class Attempts {
  readonly #all = new Set<Attempt>();
  readonly #empty = new Set<() => void>();

  begin(job: JobId, attempt: AttemptToken): Attempt {
    const abort = new AbortController();
    let stopReason: StopReason | null = null;
    const begun: Attempt = {
      job,
      attempt,
      signal: abort.signal,
      get stopReason() {
        return stopReason;
      },
      executing: false,
      ms: 0,
      stop(reason) {
        stopReason ??= reason;
        abort.abort(new Error(`the attempt is ${reason}`));
      },
    };
    this.#all.add(begun);
    return begun;
  }

  end(attempt: Attempt): void {
    this.#all.delete(attempt);
    if (this.#all.size > 0) return;
    for (const resolve of this.#empty) resolve();
    this.#empty.clear();
  }

  find(job: string, token: AttemptToken): Attempt | undefined {
    return this.list().find((each) => each.job === job && sameAttempt(each.attempt, token));
  }

  list(): Attempt[] {
    return [...this.#all];
  }

  /** Resolves when none is left. */
  ended(): Promise<void> {
    if (this.#all.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#empty.add(resolve);
    });
  }
}
