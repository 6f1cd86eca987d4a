import type { Address } from "@gpux/protocol/ids";
import {
  consumer,
  DEPOSIT,
  feeRecipient,
  leasesOf,
  nodesOf,
  type Rented,
  TOP_UP,
  USED,
  USED_HOURS,
} from "../../scripts/seed/scenario.ts";
import type { Ledger, Sent } from "./ledger.ts";

/** Leases that one consumer opens together and that end together. */
export interface Life {
  readonly leases: number;
  /** Accounts that are paid: the leases of one owner are paid out at once. */
  readonly owners: number;
  /** Half of the money comes later. */
  readonly topUp: boolean;
}

/** How one variant takes leases through their life. */
export interface Way {
  readonly name: string;
  readonly feeBps: number;
  /** What has to be there before `total` base units can be taken, and is counted apart. */
  prepare(total: bigint): Promise<Sent[]>;
  /** `amount` base units into each lease. */
  fund(leases: readonly Rented[], amount: bigint, purpose: "fund" | "top-up"): Promise<Sent[]>;
  /** Ends all leases after {@link USED}, and pays everybody out. */
  finish(leases: readonly Rented[]): Promise<Sent[]>;
}

const PAID_IN = DEPOSIT + TOP_UP;

/**
 * Lives it on books that are as before afterwards, and gives what `look` makes of its transactions while they are
 * still there. Throws when money is not where it should be.
 */
export function live<T>(
  ledger: Ledger,
  way: Way,
  life: Life,
  look: (sent: readonly Sent[]) => Promise<T>,
): Promise<T> {
  return ledger.apart(async () => {
    const leases = leasesOf(nodesOf(life.leases, life.owners), await ledger.now(), way.feeBps);
    const total = BigInt(life.leases) * PAID_IN;
    // The consumer keeps something, as most do: to empty a slot would earn a refund of gas.
    await ledger.chain.mint(consumer.address, total + 1n);
    const sent = await way.prepare(total);
    if (life.topUp) {
      sent.push(...(await way.fund(leases, DEPOSIT, "fund")));
      sent.push(...(await way.fund(leases, TOP_UP, "top-up")));
    } else sent.push(...(await way.fund(leases, PAID_IN, "fund")));
    await ledger.chain.increaseTime(USED_HOURS * 3_600);
    sent.push(...(await way.finish(leases)));
    await expectPaid(ledger, way, leases, total + 1n);
    return await look(sent);
  });
}

async function expectPaid(ledger: Ledger, way: Way, leases: readonly Rented[], before: bigint) {
  const fee = (USED * BigInt(way.feeBps)) / 10_000n;
  const count = BigInt(leases.length);
  const due = new Map<Address, bigint>([
    [consumer.address, before - count * USED],
    [feeRecipient, count * fee],
  ]);
  for (const { terms } of leases) due.set(terms.provider, (due.get(terms.provider) ?? 0n) + USED - fee);
  for (const [account, amount] of due) {
    const there = await ledger.balanceOf(account);
    if (there !== amount) throw new Error(`${way.name}: ${account} holds ${there}, not ${amount}`);
  }
}
