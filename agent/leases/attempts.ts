import { setTimeout as wait } from "node:timers/promises";
import type { JobId } from "@gpux/protocol/ids";
import type { AttemptToken } from "@gpux/protocol/job";
import { sameAttempt } from "./book.ts";

/** Why an attempt is stopped. Only a `canceled` one tells the edge; of the others the edge asks no more. */
export type StopReason = "canceled" | "fenced" | "leaving" | "yielded";

/** An attempt under way on this machine. */
export interface Attempt {
  readonly job: JobId;
  readonly attempt: AttemptToken;
  readonly signal: AbortSignal;
  readonly stopReason: StopReason | null;
  /** Aborted when it is to end where it can go on from, if it can. */
  readonly pausing: AbortSignal;
  /** Its turn among those of its lease has not come: nothing of it has begun. */
  waits: boolean;
  /** From the executor's start to its end. */
  executing: boolean;
  /** What it ran, once it has. */
  ms: number;
  /** The frame that told of its start, when it left, and when the edge was heard to have it; `performance.now()`. */
  start: { readonly seq: number; readonly at: number; heardAt: number | null } | null;
  pause(): void;
  stop(reason: StopReason): void;
}

/** How much of its run the edge may not have counted: until it was heard to know of the start, or all of it. */
export function unheardMs({ start }: Pick<Attempt, "start">, ms: number, now: number): number {
  return start === null ? 0 : Math.min(ms, Math.ceil((start.heardAt ?? now) - start.at));
}

/** The attempts of one lease that have begun and not ended. */
export class Attempts {
  readonly #all = new Map<Attempt, PromiseWithResolvers<void>>();

  begin(job: JobId, attempt: AttemptToken): Attempt {
    const abort = new AbortController();
    const pausing = new AbortController();
    let stopReason: StopReason | null = null;
    const begun: Attempt = {
      job,
      attempt,
      signal: abort.signal,
      get stopReason() {
        return stopReason;
      },
      pausing: pausing.signal,
      pause: () => pausing.abort(),
      waits: true,
      executing: false,
      ms: 0,
      start: null,
      stop(reason) {
        stopReason ??= reason;
        abort.abort(new Error(`the attempt is ${reason}`));
      },
    };
    this.#all.set(begun, Promise.withResolvers());
    return begun;
  }

  /** The edge has dealt with all frames up to `seq`. */
  heard(seq: number, at: number): void {
    for (const { start } of this.#all.keys()) if (start !== null && start.seq <= seq) start.heardAt ??= at;
  }

  end(attempt: Attempt): void {
    this.#all.get(attempt)?.resolve();
    this.#all.delete(attempt);
  }

  find(job: string, token: AttemptToken): Attempt | undefined {
    return this.list().find((each) => each.job === job && sameAttempt(each.attempt, token));
  }

  list(): Attempt[] {
    return [...this.#all.keys()];
  }

  /** Resolves when none of those that there are now is left. */
  async ended(): Promise<void> {
    await Promise.all([...this.#all.values()].map(({ promise }) => promise));
  }

  /** Resolves when those of such jobs have ended, or after `ms`. */
  async endedAmong(isSuch: (job: JobId) => boolean, ms: number): Promise<void> {
    const such = [...this.#all].filter(([attempt]) => isSuch(attempt.job)).map(([, { promise }]) => promise);
    if (such.length === 0) return;
    const limit = new AbortController();
    const late = wait(ms, undefined, { signal: limit.signal }).catch(() => {});
    await Promise.race([Promise.all(such), late]);
    limit.abort();
  }
}
