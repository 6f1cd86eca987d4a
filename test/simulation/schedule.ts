/** A thing that will happen; `cancel` makes it not happen. */
export interface Timer {
  cancel(): void;
}

interface Due {
  readonly at: number;
  /** Of two at the same time, the one that was put in first happens first. */
  readonly order: number;
  readonly what: string;
  readonly counts: boolean;
  run: (() => void) | null;
}

function isBefore(a: Due, b: Due): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

/** Virtual time: a heap of what is due. Nothing happens but by it, one event after another. */
export class Schedule {
  /** Milliseconds since the epoch. */
  now: number;
  /** Events that have happened; heartbeats do not count. */
  events = 0;
  readonly start: number;
  readonly #heap: Due[] = [];
  #order = 0;

  constructor(start: number) {
    this.start = start;
    this.now = start;
  }

  /** `counts` is false for what happens all the time and means nothing. */
  at(time: number, what: string, run: () => void, counts = true): Timer {
    const due: Due = { at: Math.max(time, this.now), order: this.#order, what, counts, run };
    this.#order += 1;
    this.#push(due);
    return {
      cancel() {
        due.run = null;
      },
    };
  }

  /** Runs the next event; its name, or null when nothing is due up to `until`. */
  next(until: number): string | null {
    for (;;) {
      const due = this.#heap[0];
      if (due === undefined || due.at > until) return null;
      this.#pop();
      const { run } = due;
      if (run === null) continue;
      this.now = due.at;
      if (due.counts) this.events += 1;
      run();
      return due.what;
    }
  }

  #push(due: Due): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(due);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent];
      if (above === undefined || isBefore(above, due)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = due;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      let below = heap[child];
      if (below === undefined) break;
      const right = heap[child + 1];
      if (right !== undefined && isBefore(right, below)) {
        child += 1;
        below = right;
      }
      if (isBefore(last, below)) break;
      heap[at] = below;
      at = child;
    }
    heap[at] = last;
  }
}
