import type { Intent, IntentKey } from "@gpux/protocol/intent";
import type { Escrow } from "./escrow.ts";
import type { Landed } from "./escrow-rules.ts";
import type { Random } from "./random.ts";
import type { Schedule } from "./schedule.ts";

const BLOCK_MS = 2_000;
/** A reorganisation takes back so many blocks at most; what is older stays. */
export const REORG_BLOCKS = 4;

export interface Transaction {
  readonly key: IntentKey;
  readonly intent: Intent;
}

/** How a transaction went in the block that has it. */
export interface Included {
  readonly transaction: Transaction;
  readonly outcome: Landed;
  readonly number: number;
  readonly timestamp: number;
}

interface Block {
  readonly number: number;
  readonly before: Escrow;
  readonly transactions: readonly Transaction[];
}

/** Blocks, each two seconds after the other where there is something to put in, and the last of them may be taken back. */
export class Chain {
  escrow: Escrow;
  readonly #schedule: Schedule;
  readonly #random: Random;
  #waiting: Transaction[] = [];
  #recent: Block[] = [];
  #isDue = false;
  /** Until then blocks are full of what others pay more for. */
  fullUntil = 0;
  /** The relayer's ears. */
  onIncluded: (included: Included) => void = () => {};
  onTakenBack: (transaction: Transaction) => void = () => {};
  /** After every block and every reorganisation. */
  onChange: () => void = () => {};

  constructor(schedule: Schedule, random: Random, escrow: Escrow) {
    this.#schedule = schedule;
    this.#random = random;
    this.escrow = escrow;
  }

  /** The height by the clock. */
  get height(): number {
    return Math.floor(this.#schedule.now / BLOCK_MS);
  }

  /** The escrow as of the newest block that no reorganisation reaches. */
  get settledEscrow(): Escrow {
    return this.#recent.find((block) => block.number > this.height - REORG_BLOCKS)?.before ?? this.escrow;
  }

  /** It is sent and in no block yet. */
  isWaiting(key: IntentKey): boolean {
    return this.#waiting.some((each) => each.key === key);
  }

  send(transaction: Transaction): void {
    if (this.isWaiting(transaction.key)) return;
    this.#waiting.push(transaction);
    this.#mineSoon();
  }

  /** Whether a reorganisation would have something to take back. */
  get isYoung(): boolean {
    return this.#recent.some((block) => block.number > this.height - REORG_BLOCKS);
  }

  /** The last blocks are gone; what they had may come again, in another order. */
  reorganise(): void {
    const from = this.#recent.findIndex((block) => block.number > this.height - REORG_BLOCKS);
    const first = this.#recent[from];
    if (first === undefined) return;
    const lost = this.#recent.slice(from).flatMap((block) => block.transactions);
    this.#recent = this.#recent.slice(0, from);
    this.escrow = first.before;
    for (const transaction of lost) this.onTakenBack(transaction);
    this.onChange();
  }

  #mineSoon(): void {
    if (this.#isDue || this.#waiting.length === 0) return;
    this.#isDue = true;
    this.#schedule.at((this.height + 1) * BLOCK_MS, "block", () => this.#mine());
  }

  #mine(): void {
    this.#isDue = false;
    const number = this.height;
    const timestamp = (number * BLOCK_MS) / 1_000;
    // A sequencer leaves some for the next block.
    const share = this.#schedule.now < this.fullUntil ? 0.05 : 0.9;
    const taken = this.#waiting.filter(() => this.#random.chance(share));
    this.#waiting = this.#waiting.filter((each) => !taken.includes(each));
    const before = this.escrow.copy();
    const landed: Included[] = [];
    for (const transaction of taken) {
      const outcome = this.escrow.land(transaction.intent, timestamp);
      landed.push({ transaction, outcome, number, timestamp });
    }
    this.#recent = [
      ...this.#recent.filter((block) => block.number > number - REORG_BLOCKS),
      {
        number,
        before,
        transactions: landed.filter((each) => each.outcome.ok).map((each) => each.transaction),
      },
    ];
    for (const included of landed) this.onIncluded(included);
    this.onChange();
    this.#mineSoon();
  }
}
