import { ANY_TURN, precedes } from "@gpux/agent/leases/slots";
import type { Turn } from "@gpux/protocol/frames";
import type { Flow } from "./actor.ts";

/** agent/leases/slots.ts in virtual time: so many holders at once, the others in order of their turns, or of asking. */
export class Slots {
  readonly size: number;
  #taken = 0;
  #waiting: { readonly turn: Turn; readonly enter: () => void }[] = [];

  constructor(size: number) {
    this.size = size;
  }

  get taken(): number {
    return this.#taken;
  }

  /** Comes back once there is a place, or once `isStopped`; the answer is how to give it back. */
  *take(
    stopped: (tell: () => void) => void,
    isStopped: () => boolean,
    turn = ANY_TURN,
  ): Flow<(() => void) | null> {
    if (isStopped()) return null;
    if (this.#taken >= this.size) {
      const given = { place: false };
      yield (resume) => {
        const enter = () => {
          given.place = true;
          resume();
        };
        const one = { turn, enter };
        const behind = this.#waiting.findIndex((other) => precedes(turn, other.turn));
        this.#waiting.splice(behind < 0 ? this.#waiting.length : behind, 0, one);
        stopped(() => {
          if (!this.#waiting.includes(one)) return;
          this.#waiting = this.#waiting.filter((each) => each !== one);
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
      else next.enter();
    };
  }
}
