import { setTimeout as pause } from "node:timers/promises";
import type { Reorganisations } from "./reorganisations.ts";

export interface WatchOptions {
  /** Without an intent that ends, a kill or a block that hardens for so long, it has failed. */
  readonly stallSeconds: number;
  readonly timeoutSeconds: number;
  readonly say?: (line: string) => void;
}

/** It makes no progress any more; the message says what is stuck. */
export class ChaosStalled extends Error {
  override readonly name = "ChaosStalled";
}

/** How far a run is; shared by its parts, read by the watch over it. */
export class Progress {
  readonly #of: { readonly leases: number; readonly kills: number };
  readonly reorgs: Reorganisations = { count: 0, deepest: 0 };
  readonly refusals = new Map<string, number>();
  phase = "";
  leases = 0;
  intents = 0;
  final = 0;
  kills = 0;

  constructor(of: { readonly leases: number; readonly kills: number }) {
    this.#of = of;
  }

  /** Changes whenever something got on. */
  get mark(): string {
    return [this.phase, this.intents, this.final, this.kills].join();
  }

  get line(): string {
    const { count, deepest } = this.reorgs;
    return `${this.phase}: ${this.leases} of ${this.#of.leases} leases driven, ${this.intents} intents landed, ${this.final} final, ${this.kills} of ${this.#of.kills} kills, ${count} reorganisations, the deepest of ${deepest}`;
  }
}

/** Ends with `part`, or with a ChaosStalled when nothing gets on or the time is up. */
export async function watched(
  progress: Progress,
  phase: string,
  options: WatchOptions,
  over: AbortSignal,
  part: () => Promise<void>,
): Promise<void> {
  const ended = new AbortController();
  const signal = AbortSignal.any([over, ended.signal]);
  const watch = async () => {
    let [mark, still] = [progress.mark, 0];
    for (let second = 1; ; second++) {
      await pause(1_000, undefined, { signal });
      still = mark === progress.mark ? still + 1 : 0;
      mark = progress.mark;
      if (second % 10 === 0) options.say?.(`${second} s  ${progress.line}`);
      if (still >= options.stallSeconds)
        throw new ChaosStalled(`nothing got on for ${still} s; ${progress.line}`);
      if (second >= options.timeoutSeconds)
        throw new ChaosStalled(`not over after ${second} s; ${progress.line}`);
    }
  };
  progress.phase = phase;
  try {
    await Promise.race([part(), watch()]);
  } finally {
    ended.abort();
  }
}
