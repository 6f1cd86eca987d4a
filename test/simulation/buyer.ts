import type { Wanted } from "@gpux/durable-objects/account/quote";
import type { CreditOffer } from "@gpux/protocol/credit";
import type { CreditAuthorization, LeaseFunding } from "@gpux/protocol/funding";
import type { Address, Bytes32, LeaseId } from "@gpux/protocol/ids";
import type { FundingAuthorization, Quote } from "@gpux/protocol/lease";
import type { OrderAuthorization } from "@gpux/protocol/order";
import type { Demand } from "@gpux/protocol/resources";
import { type Actor, type Flow, Unreachable } from "./actor.ts";
import type { Purse } from "./purse.ts";
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
  /** Null: it pays from its wallet alone. */
  readonly #purse: Purse | null;

  constructor(owner: Actor, address: Address, setting: Setting, random: Random, purse: Purse | null) {
    this.#owner = owner;
    this.#address = address;
    this.#setting = setting;
    this.#random = random;
    this.#purse = purse;
  }

  /** Something to be done with credit; null most of the time, and for who has none. */
  spend(): Flow<void> | null {
    const purse = this.#purse;
    if (purse === null || !purse.random.chance(0.3)) return null;
    const dice = purse.random.next();
    if (this.leases.length === 0 || dice < (this.leases.length < 3 ? 0.35 : 0.1))
      return purse.random.chance(0.25) ? this.openTogether(purse) : this.open(purse);
    if (dice < 0.5) return this.#raise(purse);
    return dice < 0.85 ? this.#leaveRaises(purse) : this.#closeRaised(purse);
  }

  /** Whose money a lease is opened with that a job may need; null: its own. */
  payerOfJob(): Address | null {
    return this.#purse?.random.chance(0.5) === true ? this.#purse.payer : null;
  }

  /** CRD-5: signs what it is offered, when it is for the lease that was quoted. */
  accept(quote: Quote, { allocate }: CreditOffer): CreditAuthorization | null {
    const { leaseIds, fundedTo, validBefore } = allocate.message;
    const [target] = fundedTo;
    if (this.#purse === null || leaseIds[0] !== quote.lease_hash || target !== quote.amount) return null;
    this.#note(quote);
    return this.#purse.allocate(quote.lease_hash, target, validBefore);
  }

  #note(quote: Quote): void {
    if (this.leases.every((each) => each.id !== quote.lease_id))
      this.leases.push({ id: quote.lease_id, hash: quote.lease_hash, quote });
  }

  demand(): Demand {
    if (this.#setting.isScattered) {
      const tier = this.#setting.isSpot || this.#random.chance(0.5) ? "yieldable" : "firm";
      return { tier, resources: { gpus: 1, cpu: 0, memory_gb: 0 } };
    }
    return {
      tier: this.#random.chance(this.#setting.isSpot ? 0.9 : 0.3) ? "yieldable" : "firm",
      resources: {
        gpus: this.#random.chance(0.7) ? 1 : 2,
        cpu: this.#random.pick([0, 0, 4, 8]),
        memory_gb: this.#random.pick([0, 0, 16, 32]),
      },
    };
  }

  *open(purse: Purse | null = null): Flow<void> {
    const account = this.#setting.account(this.#address);
    const request = { ...this.#wanted(), ...(purse === null ? {} : { payer: purse.payer }) };
    const quoted = yield* this.#setting.network.call(this.#owner, account, "quote", () =>
      account.quote(this.#address, request),
    );
    if (quoted.ok) yield* this.fund(quoted.quote, purse);
  }

  #wanted(): Wanted {
    const demand = this.demand();
    if (this.#setting.isScattered) {
      const keep_warm_s = this.#random.pick([0, 5, 300]);
      const usual = { duration_s: 3_600, extendable_s: 0, mode: "serverless", amount: 2_000_000n } as const;
      return { demand, keep_warm_s, ...usual };
    }
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
  *openTogether(purse: Purse | null = null): Flow<void> {
    const { schedule, network } = this.#setting;
    const account = this.#setting.account(this.#address);
    const request: Wanted = {
      ...this.#wanted(),
      ...(purse === null ? {} : { payer: purse.payer }),
      demand: { ...this.demand(), tier: "firm" },
      mode: "serverless",
    };
    const nodes = this.#random.int(2, 3);
    const ask = () => account.order(this.#address, request, nodes);
    const placed = yield* network.call(this.#owner, account, "order", ask);
    if (!placed.ok || this.#random.chance(0.15)) return;
    yield* sleep(schedule, this.#random.wait(3_000), "thinks it over");
    const legs = placed.order.legs.filter(({ state }) => state === "held");
    const funding = this.#authorizeAll(legs, purse);
    const sign = () => account.fundOrder(placed.order.id, funding);
    const funded = yield* network.call(this.#owner, account, "fund order", sign, true);
    if (!funded.ok) return;
    for (const { amount, ...draft } of legs)
      this.leases.push({
        id: draft.hold.lease,
        hash: draft.leaseHash,
        quote: account.quoteOf(draft, amount),
      });
  }

  /** All or none of the leases of an order, by one signature. */
  #authorizeAll(
    legs: readonly { readonly leaseHash: Bytes32; readonly amount: bigint }[],
    purse: Purse | null,
  ): OrderAuthorization {
    const { schedule, hasher, keyring, watch } = this.#setting;
    const amounts = legs.map(({ amount }) => amount);
    const leaseIds = legs.map(({ leaseHash }) => leaseHash);
    if (purse !== null) {
      const validBefore = purse.ahead([90, 300, 3_000]);
      const signature = purse.sign(leaseIds, amounts, validBefore);
      return { kind: "credit", funded_to: amounts, valid_before: validBefore, signature };
    }
    const salt = this.#random.bytes32();
    const nonce = hasher.fundingNonce({ leaseIds, amounts, salt });
    for (const { leaseHash, amount } of legs) watch.authorizes(leaseHash, amount);
    return {
      amounts,
      salt,
      valid_after: 0,
      valid_before: Math.floor(schedule.now / 1_000) + this.#random.pick([90, 300, 3_000]),
      signature: keyring.sign(this.#address, nonce),
    };
  }

  *fund(quote: Quote, purse: Purse | null = null): Flow<void> {
    const { schedule, network } = this.#setting;
    // Another's money is not its own to sign for.
    if (purse === null && quote.terms.payer !== this.#address) return;
    if (this.#random.chance(0.15)) return;
    yield* sleep(schedule, this.#random.wait(3_000), "thinks it over");
    const funding: LeaseFunding =
      purse === null
        ? this.#authorize(quote, quote.amount)
        : purse.allocate(quote.lease_hash, quote.amount, purse.ahead([90, 300, 3_000]));
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
        if (opened.ok) this.#note(quote);
        return;
      } catch (error) {
        if (!(error instanceof Unreachable)) throw error;
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
    if (quote.terms.payer !== this.#address) return;
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

  /** More from credit; also for a lease that a wallet opened. */
  *#raise(purse: Purse): Flow<void> {
    const quote = this.#payable(purse);
    if (quote === null) return;
    const funding = purse.raise(quote.lease_hash, quote.amount);
    const lease = this.#setting.lease(quote.lease_id);
    const ask = () => lease.topUp(this.#address, funding);
    yield* this.#setting.network.call(this.#owner, lease, "raise", ask, true);
  }

  *#leaveRaises(purse: Purse): Flow<void> {
    const quote = this.#payable(purse);
    if (quote === null) return;
    const auto = purse.raises(quote.lease_hash, quote.amount);
    const lease = this.#setting.lease(quote.lease_id);
    const ask = () => lease.autoTopUp(this.#address, auto);
    yield* this.#setting.network.call(this.#owner, lease, "auto top-up", ask, true);
  }

  /** While raises may be on their way to it. */
  *#closeRaised(purse: Purse): Flow<void> {
    const quote = this.#payable(purse);
    if (quote === null) return;
    const lease = this.#setting.lease(quote.lease_id);
    yield* this.#setting.network.call(this.#owner, lease, "close", () => lease.close(this.#address), true);
  }

  /** A lease of the payer whose credit it is: that of another is not touched. */
  #payable({ payer, random }: Purse): Quote | null {
    const of = this.leases.filter(({ quote }) => quote.terms.payer === payer);
    return of.length === 0 ? null : random.pick(of).quote;
  }
}
