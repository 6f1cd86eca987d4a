import type { Actor, Flow } from "./actor.ts";
import type { Random } from "./random.ts";
import type { Schedule } from "./schedule.ts";

/** agent/journal.ts as a disk that may fail: what was synced stays, of the rest a crash keeps any beginning. */
export class Journal<Entry> {
  entries: Entry[] = [];
  #synced = 0;
  readonly #schedule: Schedule;
  readonly #random: Random;

  constructor(schedule: Schedule, random: Random) {
    this.#schedule = schedule;
    this.#random = random;
  }

  append(entry: Entry): void {
    this.entries.push(entry);
  }

  *sync(): Flow<void> {
    const upTo = this.entries.length;
    yield (resume) => {
      this.#schedule.at(this.#schedule.now + this.#random.int(1, 8), "synced", resume, false);
    };
    this.#synced = Math.max(this.#synced, upTo);
  }

  /** Calls back when all that was appended so far is on the disk. */
  synced(actor: Actor, then: () => void): void {
    actor.run(this.sync(), then);
  }

  /** Replaces it all, atomically. */
  rewrite(entries: readonly Entry[]): void {
    this.entries = [...entries];
    this.#synced = entries.length;
  }

  /** `power`: also what had left the process but not reached the disk is gone. */
  crash(power: boolean): void {
    if (power) this.entries = this.entries.slice(0, this.#random.int(this.#synced, this.entries.length));
    this.#synced = this.entries.length;
  }
}
