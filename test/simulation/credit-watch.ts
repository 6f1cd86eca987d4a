import { committed } from "@gpux/durable-objects/lease/billing";
import { pledged } from "@gpux/durable-objects/lease/state";
import { fundingKey, isFromCredit } from "@gpux/protocol/funding";
import type { Address, Bytes32 } from "@gpux/protocol/ids";
import type { Escrow } from "./escrow.ts";
import type { Observed } from "./lease-ledger.ts";
import type { Promised } from "./meter.ts";
import { hold } from "./violation.ts";

/** As in durable-objects/lease/auto-top-up.ts, and a second for rounding. */
const LANDING_S = 61;

/** What must hold of money that is spent from credit. */
export class CreditWatch {
  /** The highest target that a lease's consumer has signed, alone or with others. */
  readonly #targets = new Map<Bytes32, bigint>();
  readonly #signed = new Set<string>();
  readonly #promised = new Map<Bytes32, bigint>();
  /** Leases whose close the meter has signed. */
  readonly #closed = new Set<Bytes32>();
  /** What everybody who buys had before there was a market. */
  readonly #began = new Map<Address, bigint>();

  begins(account: Address, wallet: bigint): void {
    this.#began.set(account, wallet);
  }

  signs(lease: Bytes32, target: bigint): void {
    this.#signed.add(`${lease} ${target}`);
    if (target > this.target(lease)) this.#targets.set(lease, target);
  }

  target(lease: Bytes32): bigint {
    return this.#targets.get(lease) ?? 0n;
  }

  closes(lease: Bytes32): void {
    this.#closed.add(lease);
  }

  promised({ lease, target }: Promised): void {
    hold(
      this.#signed.has(`${lease} ${target}`),
      "CRD-2 the meter co-signs what the consumer signed",
      () => `${lease}: ${target}`,
    );
    const before = this.#promised.get(lease) ?? 0n;
    if (target <= before) return;
    hold(
      !this.#closed.has(lease),
      "CRD-2 the meter promises nothing more to a lease that it closes",
      () => `${lease}: ${target} after ${before}`,
    );
    this.#promised.set(lease, target);
  }

  step({ before, event, after }: Observed, now: number): void {
    const { id } = after.lease;
    const auto = event.t === "auto_top_up" ? event.auto : before.lease.autoTopUp;
    const known = new Set(before.lease.topUps.map(({ funding }) => fundingKey(funding)));
    if (event.t === "top_up") known.add(fundingKey(event.funding));
    const has = least(pledged(before.lease), pledged(after.lease));
    const needs = -least(-committed(before), -committed(after));
    for (const { funding } of after.lease.topUps) {
      if (known.has(fundingKey(funding))) continue;
      hold(
        auto?.allocations.some((each) => each === funding) === true,
        "CRD-6 a lease lands only raises that it was left",
        () => `${id}: ${fundingKey(funding)}`,
      );
      hold(
        auto !== null && has - needs < auto.below,
        "CRD-6 no raise lands before it is needed",
        () => `${id}: ${has - needs} of ${auto?.below}`,
      );
      hold(
        after.lease.topUps.filter(({ refused }) => refused === null).length === 1,
        "CRD-6 one raise at a time",
        () => id,
      );
    }
    this.#refused(before, event, after);
    this.#needed(after, now);
    if (event.t !== "relayed" || event.answer.result.kind !== "allocate") return;
    const landed = event.answer.result.leases.find(({ leaseId }) => leaseId === after.lease.hash);
    const most = -least(-before.lease.funded, -BigInt(landed?.funded ?? 0));
    hold(
      after.lease.funded <= most,
      "CRD-3 a lease has what the chain says, and no more",
      () => `${id}: ${after.lease.funded} of ${most}`,
    );
  }

  #refused(before: Observed["before"], event: Observed["event"], after: Observed["after"]): void {
    if (event.t !== "relay_refused" || event.code === "relayer_low_balance") return;
    const isRaise = before.lease.topUps.some(
      ({ funding }) => isFromCredit(funding) && fundingKey(funding) === event.funding,
    );
    hold(
      !isRaise || after.lease.autoTopUp === null,
      "CRD-6 the first raise that cannot land ends them",
      () => after.lease.id,
    );
  }

  #needed(after: Observed["after"], now: number): void {
    const { status, autoTopUp, topUps, id } = after.lease;
    if (status !== "active" || autoTopUp === null) return;
    const has = pledged(after.lease);
    const isLow = has - committed(after) < autoTopUp.below;
    const isFree = topUps.every(({ refused }) => refused !== null);
    const isUseful = autoTopUp.allocations.some(
      ({ funded_to, valid_before }) => funded_to > has && valid_before >= now / 1_000 + LANDING_S,
    );
    hold(!(isLow && isFree && isUseful), "CRD-6 a raise that is needed is landed", () => id);
  }

  /** After every block and every reorganisation. `authorized`: what payers' wallets have signed over to a lease. */
  chain(escrow: Escrow, authorized: ReadonlyMap<Bytes32, bigint>): void {
    for (const [id, { funded }] of escrow.leases) {
      const most = (authorized.get(id) ?? 0n) + this.target(id);
      hold(funded <= most, "M5 a lease gets no more than was signed", () => `${funded} of ${most}`);
    }
    for (const { payer, spender, amount, deposited, returned } of escrow.credits.list()) {
      let should = deposited - returned;
      for (const { terms, allocated, fromCredit, refunded } of escrow.leases.values())
        if (terms.payer === payer && terms.consumerSigner === spender)
          should += (fromCredit ? refunded : 0n) - allocated;
      hold(
        amount === should && amount >= 0n,
        "CRD-4 what leases do not use returns to their credit",
        () => `${payer} for ${spender}: ${amount}, not ${should}`,
      );
    }
    for (const [account, began] of this.#began) {
      const worth = worthOf(escrow, account);
      hold(
        worth <= began,
        "CRD-1 nobody but its payer takes credit",
        () => `${account}: ${worth} of ${began}`,
      );
    }
  }
}

/** All that an account has, wherever it lies. */
function worthOf(escrow: Escrow, account: Address): bigint {
  let worth = (escrow.wallets.get(account) ?? 0n) + (escrow.owed.get(account) ?? 0n);
  for (const { payer, amount } of escrow.credits.list()) if (payer === account) worth += amount;
  for (const { terms, status, funded, paid } of escrow.leases.values())
    if (terms.payer === account && status === "open") worth += funded - paid;
  return worth;
}

function least(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}
