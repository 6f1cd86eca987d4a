import type { Address, LeaseId } from "@gpux/protocol/ids";
import type { JobRequest, RoutedJobRequest } from "@gpux/protocol/job";
import type { Demand } from "@gpux/protocol/resources";
import type { SessionId } from "@gpux/protocol/session";
import type { Buyer } from "./buyer.ts";
import type { Random } from "./random.ts";
import type { JobSeen } from "./seen.ts";
import type { SessionKeys } from "./session-keys.ts";
import type { Setting } from "./setting.ts";
import type { Truth } from "./truth.ts";

/** A request that may be made again under its key. */
export interface Order {
  readonly key: string;
  readonly number: number;
  /** On the warm path; null: its account chooses. */
  readonly lease: LeaseId | null;
  readonly demand: Demand;
  /** How long the answer may wait for the job's end. */
  readonly waitMs: number;
  request: JobRequest;
  /** Of a lease that is opened for it, whose money it is; null: the consumer's own. */
  readonly payer: Address | null;
  /** Under which it is asked for; null: by the wallet. */
  readonly session: SessionId | null;
  /** Opens the lease that was quoted for it, with the same request. */
  opening: Pick<RoutedJobRequest, "lease" | "funding">;
  acknowledged: JobSeen | null;
  /** All that are asked for together with it, itself among them; one alone has none. */
  array: readonly Order[];
}

/** What is asked for when it is: all of its array, in order. */
export function together(order: Order): readonly Order[] {
  return order.array.length > 0 ? order.array : [order];
}

function keyOf(number: number): string {
  return number.toString().padStart(8, "0");
}

/** What a consumer wants done. */
export class Wishes {
  readonly #address: Address;
  readonly #setting: Setting;
  readonly #truth: Truth;
  readonly #random: Random;
  readonly #buyer: Buyer;
  readonly #keys: SessionKeys | null;
  #made = 0;

  constructor(
    address: Address,
    setting: Setting,
    truth: Truth,
    random: Random,
    buyer: Buyer,
    keys: SessionKeys | null,
  ) {
    this.#address = address;
    this.#setting = setting;
    this.#truth = truth;
    this.#random = random;
    this.#buyer = buyer;
    this.#keys = keys;
  }

  /** `nextInMs`: when the next is wanted; null: in its own time. */
  draw(): { readonly order: Order; readonly nextInMs: number | null } {
    const number = this.#nextNumber();
    const checkpoint = number % 2 === 0;
    // Of those that want their work kept, half have some to lose.
    const isOften = this.#setting.isSpot || this.#setting.isScattered;
    const isLong = checkpoint && (isOften || number % 4 === 0);
    const execution_s = isLong ? 120 : this.#random.pick([2, 10, 60]);
    const timeouts = {
      queue_s: this.#random.pick(this.#setting.isScattered ? [300, 600] : [5, 300, 600]),
      start_s: this.#random.pick([5, 60]),
      execution_s,
    };
    const runMs =
      (isLong ? 20_000 : 0) +
      this.#random.wait(isLong ? 60_000 : this.#random.pick([50, 500, 5_000, 40_000]));
    const dice = this.#random.next();
    this.#truth.work.set(number, { runMs, ends: dice < 0.8 ? "well" : dice < 0.9 ? "tenant" : "provider" });
    const session = this.#keys?.ofJob() ?? null;
    const hurry = session === null ? null : (this.#keys?.hurry() ?? null);
    const order: Order = {
      key: keyOf(number),
      number,
      lease: this.#random.chance(0.6) ? this.#random.pick(this.#buyer.leases).id : null,
      demand: this.#buyer.demand(),
      waitMs: hurry?.waitMs ?? this.#random.pick([0, 5_000]),
      request: {
        kind: "function",
        function: "f".repeat(64),
        inputs: { n: { number } },
        max_price: hurry?.max_price ?? BigInt(this.#random.pick([5_000, 60_000, 200_000])),
        timeouts,
        retries: this.#random.int(0, 2),
        priority: this.#random.int(-1, 1),
        checkpoint,
      },
      payer: this.#buyer.payerOfJob(),
      session,
      opening: {},
      acknowledged: null,
      array: [],
    };
    const nextInMs = hurry?.nextInMs ?? null;
    if (nextInMs === null && order.lease !== null && number % 5 === 0) this.#addTo(order);
    return { order, nextInMs };
  }

  /** Asked for together with others of its kind, on one lease (SPEC JOB-10). */
  #addTo(first: Order): void {
    const { number: n, request } = first;
    const work = this.#truth.work.get(n);
    if (work === undefined) return;
    const others = Array.from({ length: 1 + (n % 3) }, (): Order => {
      const number = this.#nextNumber();
      this.#truth.work.set(number, work);
      return { ...first, key: keyOf(number), number, request: { ...request, inputs: { n: { number } } } };
    });
    const array = [first, ...others];
    for (const order of array) order.array = array;
  }

  #nextNumber(): number {
    this.#made += 1;
    return Number.parseInt(this.#address.slice(2, 4), 16) * 1_000 + this.#made;
  }
}
