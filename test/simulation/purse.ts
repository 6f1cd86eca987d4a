import type { AutoTopUp, CreditAuthorization } from "@gpux/protocol/funding";
import type { Address, Bytes32, HexBytes } from "@gpux/protocol/ids";
import type { Random } from "./random.ts";
import type { Setting } from "./setting.ts";

/** What a consumer may spend of a payer's credit, by its own signature alone. */
export class Purse {
  /** Whose credit it is: the consumer's own, or a sponsor's. */
  readonly payer: Address;
  /** A stream of its own: a world without credit is the same as before there was any. */
  readonly random: Random;
  readonly #consumer: Address;
  readonly #setting: Setting;
  /** The highest target that it has signed for each lease. */
  readonly #targets = new Map<Bytes32, bigint>();

  constructor(payer: Address, consumer: Address, setting: Setting, random: Random) {
    this.payer = payer;
    this.random = random;
    this.#consumer = consumer;
    this.#setting = setting;
  }

  /** Seconds since the epoch until which what is signed now may land. */
  ahead(seconds: readonly number[]): number {
    return Math.floor(this.#setting.schedule.now / 1_000) + this.random.pick(seconds);
  }

  /** Its signature over these targets, of leases that land together. */
  sign(leaseIds: Bytes32[], fundedTo: bigint[], validBefore: number): HexBytes {
    const { hasher, keyring, watch } = this.#setting;
    for (const [n, lease] of leaseIds.entries()) {
      const target = fundedTo[n] ?? 0n;
      watch.credit.signs(lease, target);
      if (target > (this.#targets.get(lease) ?? 0n)) this.#targets.set(lease, target);
    }
    return keyring.sign(this.#consumer, hasher.allocate({ leaseIds, fundedTo, validBefore }));
  }

  allocate(lease: Bytes32, target: bigint, validBefore: number): CreditAuthorization {
    const signature = this.sign([lease], [target], validBefore);
    return { kind: "credit", funded_to: target, valid_before: validBefore, signature };
  }

  /** For a lease that has `least` at any rate: more than was ever signed, or now and then no more than that. */
  raise(lease: Bytes32, least: bigint): CreditAuthorization {
    const from = this.#from(lease, least);
    const more = BigInt(this.random.pick([0, 50_000, 50_000, 1_000_000, 6_000_000]));
    return this.allocate(lease, from + more, this.ahead([90, 300, 3_000]));
  }

  /** Raises for the lease to land by itself; null takes back those that it has. */
  raises(lease: Bytes32, least: bigint): AutoTopUp | null {
    if (this.random.chance(0.15)) return null;
    const step = BigInt(this.random.pick([20_000, 200_000, 3_000_000]));
    const from = this.#from(lease, least);
    const ahead = this.ahead([90, 600, 6_000]);
    const count = this.random.int(1, 4);
    const allocations = Array.from({ length: count }, (_, n) =>
      this.allocate(lease, from + step * BigInt(n + 1), ahead),
    );
    return { below: BigInt(this.random.pick([10_000, 100_000, 1_000_000])), allocations };
  }

  #from(lease: Bytes32, least: bigint): bigint {
    const known = this.#targets.get(lease) ?? 0n;
    return known > least ? known : least;
  }
}
