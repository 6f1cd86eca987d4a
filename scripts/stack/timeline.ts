/** One line of what happened: when it began, since the start, and how long it took. */
export interface TimelineEntry {
  readonly step: string;
  readonly at_ms: number;
  readonly ms: number;
  readonly note?: string;
}

export interface Timeline {
  readonly entries: readonly TimelineEntry[];
  /** Runs a step, prints its line when it ends. `note` sums up the result in a few words. */
  run<T>(step: string, work: () => Promise<T>, note?: (result: T) => string): Promise<T>;
}

/** Prints to `out` as it goes, so that a person sees where the time is spent. */
export function createTimeline(out: (line: string) => void): Timeline {
  const start = performance.now();
  const entries: TimelineEntry[] = [];
  return {
    entries,
    async run(step, work, note) {
      const began = performance.now();
      const result = await work();
      const text = note?.(result);
      const entry = {
        step,
        at_ms: Math.round(began - start),
        ms: Math.round(performance.now() - began),
        ...(text === undefined ? {} : { note: text }),
      };
      entries.push(entry);
      out(`${seconds(entry.at_ms)}  ${step.padEnd(30)} ${seconds(entry.ms)}  ${text ?? ""}`.trimEnd());
      return result;
    },
  };
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(2).padStart(6)} s`;
}
