import type { Bytes32 } from "@gpux/protocol/ids";

/** Every choice of a simulation comes from one of these, so that its seed is the whole of it (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
    // The first numbers of neighbouring seeds resemble each other.
    for (let skip = 0; skip < 4; skip += 1) this.next();
  }

  /** In [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  }

  /** Whole, both ends included. */
  int(from: number, to: number): number {
    return from + Math.floor(this.next() * (to - from + 1));
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  /** Throws when there is nothing to pick from. */
  pick<T>(items: readonly T[]): T {
    const item = items[Math.floor(this.next() * items.length)];
    if (item === undefined) throw new RangeError("nothing to pick from");
    return item;
  }

  /** Mostly short, now and then long: as waits are. `mean` in ms. */
  wait(mean: number): number {
    return Math.ceil(-Math.log(1 - this.next()) * mean);
  }

  bytes32(): Bytes32 {
    let hex = "";
    for (let word = 0; word < 8; word += 1) hex += this.int(0, 0xffff_ffff).toString(16).padStart(8, "0");
    return `0x${hex}`;
  }
}
