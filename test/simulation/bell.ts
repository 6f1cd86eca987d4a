import type { Flow } from "./actor.ts";
import type { Schedule } from "./schedule.ts";

/** Wakes who waits for a change. */
export class Bell {
  readonly #schedule: Schedule;
  #waiting: (() => void)[] = [];

  constructor(schedule: Schedule) {
    this.#schedule = schedule;
  }

  ring(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }

  /** Pauses until it rings, or until a time in ms. */
  *wait(until: number): Flow<void> {
    yield (resume) => {
      let isOver = false;
      const once = () => {
        if (isOver) return;
        isOver = true;
        timer.cancel();
        resume();
      };
      const timer = this.#schedule.at(until, "waited long enough", once, false);
      this.#waiting.push(once);
    };
  }
}
