import { fundingAmount, fundingKey, isFromCredit } from "@gpux/protocol/funding";
import { MAX_AMOUNT } from "@gpux/protocol/money";
import type { Machines } from "../machines.ts";
import { type Bug, inLease } from "./bug.ts";

function inEscrow(product: Machines, change: Partial<Machines["escrow"]>): Machines {
  return { ...product, escrow: { ...product.escrow, ...change } };
}

/** Bugs in what is spent from credit, and in how it comes back. */
export const CREDIT_BUGS: readonly Bug[] = [
  {
    name: "refunds-credit-to-the-payer",
    about: "the rest of a lease that credit opened goes to its payer, and not back to the credit",
    plant: (product) => inEscrow(product, { refundsCredit: true }),
  },
  {
    name: "adds-targets",
    about: "an allocation that lands again moves its target again",
    plant: (product) => inEscrow(product, { addsTargets: true }),
  },
  {
    name: "pays-who-releases",
    about: "a release pays the key that signed it",
    plant: (product) => inEscrow(product, { paysWhoReleases: true }),
  },
  {
    name: "co-signs-what-nobody-signed",
    about: "the meter does not look whose signature an allocation has",
    plant: (product) => ({ ...product, meter: { ...product.meter, isSigned: () => true } }),
  },
  {
    name: "promises-after-the-close",
    about: "the meter gives more to a lease whose close it has signed",
    plant: (product) => ({
      ...product,
      meter: {
        ...product.meter,
        promise: (_, promised, target) => product.meter.promise(null, promised, target),
      },
    }),
  },
  {
    name: "raises-after-a-refusal",
    about: "a raise that could not land is followed by higher ones",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          const result = step(state, event, now);
          if (!result.ok || event.t !== "relay_refused" || result.next.lease.autoTopUp !== null)
            return result;
          const { autoTopUp } = state.lease;
          return { ...result, next: { ...result.next, lease: { ...result.next.lease, autoTopUp } } };
        },
      })),
  },
  {
    name: "raises-at-once",
    about: "raises land whether or not the lease is short of money",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          const { autoTopUp } = state.lease;
          if (autoTopUp === null) return step(state, event, now);
          const eager = {
            ...state,
            lease: { ...state.lease, autoTopUp: { ...autoTopUp, below: MAX_AMOUNT } },
          };
          const result = step(eager, event, now);
          const kept = result.ok ? result.next.lease.autoTopUp : null;
          if (!result.ok || kept === null || kept.below !== MAX_AMOUNT) return result;
          const lease = { ...result.next.lease, autoTopUp: { ...kept, below: autoTopUp.below } };
          return { ...result, next: { ...result.next, lease } };
        },
      })),
  },
  {
    name: "counts-a-raise-as-more",
    about: "a raise's target is added to what the lease has",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          const result = step(state, event, now);
          if (!result.ok || event.t !== "relayed") return result;
          const { lease } = result.next;
          const landed = state.lease.topUps.filter(
            ({ funding }) =>
              isFromCredit(funding) &&
              lease.topUps.every((kept) => fundingKey(kept.funding) !== fundingKey(funding)),
          );
          const more = landed.reduce((sum, each) => sum + fundingAmount(each.funding), 0n);
          return { ...result, next: { ...result.next, lease: { ...lease, funded: lease.funded + more } } };
        },
      })),
  },
  {
    name: "forgets-the-raise-that-is-needed",
    about: "a lease that is short already when raises are left with it, or a job comes, waits with them",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          const isLeft = event.t === "auto_top_up";
          if (!isLeft && event.t !== "submit") return step(state, event, now);
          const autoTopUp = isLeft ? event.auto : state.lease.autoTopUp;
          const bare = { ...state, lease: { ...state.lease, autoTopUp: null } };
          const result = step(bare, isLeft ? { t: "auto_top_up", auto: null } : event, now);
          if (!result.ok) return result;
          return { ...result, next: { ...result.next, lease: { ...result.next.lease, autoTopUp } } };
        },
      })),
  },
];
