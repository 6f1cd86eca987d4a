import { LeaseTerms } from "@gpux/protocol/eip712";
import { Address, type Bytes32 } from "@gpux/protocol/ids";
import type { LeaseView, Settlement } from "@gpux/protocol/lease";
import { FUNDING_WINDOW_S, type LeaseSettings } from "./lease-settings.ts";
import {
  type SignedAllocation,
  type SignedFunding,
  type SignedFundings,
  signAllocation,
  signFundings,
} from "./spending.ts";

/** Whose signature moves the money: the payer's wallet, or this client's account out of the payer's credit. */
export type PayFrom = "wallet" | "credit";

/** A lease that money is signed for: its terms were checked before. */
export interface Payable {
  readonly hash: Bytes32;
  readonly terms: LeaseTerms;
  /** Base units to put in; from credit, what the lease has after it. */
  readonly amount: bigint;
}

/** From credit, of one lease, in wire form. */
export interface SignedCredit extends Omit<SignedAllocation, "funded_to"> {
  readonly funded_to: string;
}

/**
 * Signs what opens leases and adds to them, once, before the send: a retry repeats its salt or its targets, so that
 * nothing is paid twice. What a party needs to get the rest back without the edge is given away before it leaves.
 */
export function createFundings({ account, payer, timing, keep }: LeaseSettings) {
  async function forAll(
    settlement: Settlement,
    leases: readonly Payable[],
    payFrom: PayFrom,
  ): Promise<SignedFundings | SignedAllocation> {
    const { chain_id, escrow } = settlement;
    const validBefore = Math.floor(timing.now() / 1_000) + FUNDING_WINDOW_S;
    const plan = {
      leaseHashes: leases.map(({ hash }) => hash),
      amounts: leases.map(({ amount }) => amount),
      validBefore,
    };
    const terms = leases.map((each) => LeaseTerms.encode(each.terms));
    if (payFrom === "credit") {
      // The allocation is half signed; terms are all that it takes to have the rest returned to the credit.
      for (const each of terms) await keep({ chain_id, escrow, intent: { kind: "reclaim", terms: each } });
      return signAllocation(account, settlement, plan);
    }
    const { amounts, ...signed } = await signFundings(payer, settlement, plan);
    await keep({
      chain_id,
      escrow,
      intent: {
        kind: "fund",
        from: Address.parse(payer.address),
        terms,
        amounts: [...amounts],
        salt: signed.salt,
        validAfter: signed.valid_after,
        validBefore: signed.valid_before,
        signature: signed.signature,
      },
    });
    return { amounts, ...signed };
  }

  return {
    forAll,
    /** One allocation for each target, good for as long as the lease can be. */
    raises(
      settlement: Settlement,
      { lease_hash: hash, terms }: Pick<LeaseView, "lease_hash" | "terms">,
      targets: readonly bigint[],
    ): Promise<SignedCredit[]> {
      return Promise.all(
        targets.map(async (target) => {
          const plan = { leaseHashes: [hash], amounts: [target], validBefore: terms.expiry };
          const signed = await signAllocation(account, settlement, plan);
          return { ...signed, funded_to: target.toString() };
        }),
      );
    },
    async forOne(
      settlement: Settlement,
      lease: Payable,
      payFrom: PayFrom,
    ): Promise<SignedFunding | SignedCredit> {
      const signed = await forAll(settlement, [lease], payFrom);
      const amount = lease.amount.toString();
      if ("kind" in signed) return { ...signed, funded_to: amount };
      const { amounts: _, ...rest } = signed;
      return { amount, ...rest };
    },
  };
}
