import type { Wanted } from "@gpux/durable-objects/account/quote";
import type { Address, Bytes32, LeaseId } from "@gpux/protocol/ids";
import type { FundingAuthorization, Quote } from "@gpux/protocol/lease";
import type { Demand } from "@gpux/protocol/resources";
import type { Actor, Flow } from "./actor.ts";
import type { Random } from "./random.ts";
import { type Setting, sleep } from "./setting.ts";

/** A lease that a consumer opened, as its own notes say. */
export interface Opened {
  readonly id: LeaseId;
  readonly hash: Bytes32;
  readonly quote: Quote;
}

/** How a consumer comes by leases, and by more money in them. */
export class Buyer {
  /** Its notes. */
  readonly leases: Opened[] = [];
  readonly #owner: Actor;
  readonly #address: Address;
  readonly #setting: Setting;
  readonly #random: Random;

  constructor(owner: Actor, address: Address, setting: Setting, random: Random) {
    this.#owner = owner;
    this.#address = address;
    this.#setting = setting;
    this.#random = random;
  }

  demand(): Demand {
    return {
      tier: this.#random.chance(this.#setting.isSpot ? 0.9 : 0.3) ? "yieldable" : "firm",
      resources: {
        gpus: this.#random.chance(0.7) ? 1 : 2,
        cpu: this.#random.pick([0, 0, 4, 8]),
        memory_gb: this.#random.pick([0, 0, 16, 32]),
      },
    };
  }

  *open(): Flow<void> {
    const account = this.#setting.account(this.#address);
    const request = this.#wanted();
    const quoted = yield* this.#setting.network.call(this.#owner, account, "quote", () =>
      account.quote(this.#address, request),
    );
    if (quoted.ok) yield* this.fund(quoted.quote);
  }

  #wanted(): Wanted {
    const demand = this.demand();
    const duration_s = this.#random.pick([300, 600, 1_800, 3_600]);
    return {
      demand,
      duration_s,
      extendable_s: 0,
      keep_warm_s: this.#random.pick([0, 5, 30, 300]),
      // A quarter of them: leases that are long enough for ticks.
      mode: duration_s === 1_800 ? "dedicated" : "serverless",
      ...(this.#random.chance(0.5)
        ? { amount: BigInt(this.#random.pick([200_000, 2_000_000, 8_000_000])) }
        : {}),
    };
  }

  /** Leases with several nodes, or with none. */
  *openTogether(): Flow<void> {
    const { schedule, network, hasher, keyring } = this.#setting;
    const account = this.#setting.account(this.#address);
    const request: Wanted = {
      ...this.#wanted(),
      demand: { ...this.demand(), tier: "firm" },
      mode: "serverless",
    };
    const nodes = this.#random.int(2, 3);
    const ask = () => account.order(this.#address, request, nodes);
    const placed = yield* network.call(this.#owner, account, "order", ask);
    if (!placed.ok || this.#random.chance(0.15)) return;
    yield* sleep(schedule, this.#random.wait(3_000), "thinks it over");
    const legs = placed.order.legs.filter(({ state }) => state === "held");
    const salt = this.#random.bytes32();
    const amounts = legs.map(({ amount }) => amount);
    const leaseIds = legs.map(({ leaseHash }) => leaseHash);
    const nonce = hasher.fundingNonce({ leaseIds, amounts, salt });
    for (const { leaseHash, amount } of legs) this.#setting.watch.authorizes(leaseHash, amount);
    const funding = {
      amounts,
      salt,
      valid_after: 0,
      valid_before: Math.floor(schedule.now / 1_000) + this.#random.pick([90, 300, 3_000]),
      signature: keyring.sign(this.#address, nonce),
    };
    const sign = () => account.fundOrder(placed.order.id, funding);
    const funded = yield* network.call(this.#owner, account, "fund order", sign, true);
    if (!funded.ok) return;
    for (const { hold, leaseHash, amount } of legs)
      this.leases.push({
        id: hold.lease,
        hash: leaseHash,
        quote: account.quoteOf({ hold, leaseHash }, amount),
      });
  }

  *fund(quote: Quote): Flow<void> {
    const { schedule, network } = this.#setting;
    if (this.#random.chance(0.15)) return;
    yield* sleep(schedule, this.#random.wait(3_000), "thinks it over");
    const funding = this.#authorize(quote, quote.amount);
    const account = this.#setting.account(this.#address);
    for (let tries = 0; tries < 3; tries += 1) {
      try {
        const opened = yield* network.call(
          this.#owner,
          account,
          "open lease",
          () => account.openLease(this.#address, quote.lease_id, funding),
          true,
        );
        if (opened.ok && this.leases.every((each) => each.id !== quote.lease_id))
          this.leases.push({ id: quote.lease_id, hash: quote.lease_hash, quote });
        return;
      } catch {
        // It may have got there: the same authorization again changes nothing.
        yield* sleep(schedule, this.#random.wait(1_000), "tries again");
      }
    }
  }

  #authorize(quote: Quote, amount: bigint): FundingAuthorization {
    const { hasher, keyring, schedule } = this.#setting;
    const salt = this.#random.bytes32();
    const nonce = hasher.fundingNonce({ leaseIds: [quote.lease_hash], amounts: [amount], salt });
    this.#setting.watch.authorizes(quote.lease_hash, amount);
    const ahead = this.#random.pick([90, 300, 3_000]);
    return {
      amount,
      salt,
      valid_after: 0,
      valid_before: Math.floor(schedule.now / 1_000) + ahead,
      signature: keyring.sign(this.#address, nonce),
    };
  }

  *topUp(): Flow<void> {
    const { quote } = this.#random.pick(this.leases);
    const funding = this.#authorize(quote, BigInt(this.#random.pick([50_000, 3_000_000])));
    const lease = this.#setting.lease(quote.lease_id);
    yield* this.#setting.network.call(
      this.#owner,
      lease,
      "top up",
      () => lease.topUp(this.#address, funding),
      true,
    );
  }
}
