import type { Flow } from "./actor.ts";

/** agent/leases/slots.ts in virtual time: so many jobs at once on a machine, the others in order of asking. */
export class Slots {
  readonly size: number;
  #taken = 0;
  #waiting: (() => void)[] = [];

  constructor(size: number) {
    this.size = size;
  }

  get taken(): number {
    return this.#taken;
  }

  /** Comes back once there is a place, or once `isStopped`; the answer is how to give it back. */
  *take(stopped: (tell: () => void) => void, isStopped: () => boolean): Flow<(() => void) | null> {
    if (isStopped()) return null;
    if (this.#taken >= this.size) {
      const given = { place: false };
      yield (resume) => {
        const enter = () => {
          given.place = true;
          resume();
        };
        this.#waiting.push(enter);
        stopped(() => {
          if (!this.#waiting.includes(enter)) return;
          this.#waiting = this.#waiting.filter((each) => each !== enter);
          resume();
        });
      };
      if (!given.place) return null;
    } else this.#taken += 1;
    let isGiven = false;
    return () => {
      if (isGiven) return;
      isGiven = true;
      const next = this.#waiting.shift();
      if (next === undefined) this.#taken -= 1;
      else next();
    };
  }
}
