import { type Intent, type IntentResult, releaseDigest } from "@gpux/protocol/intent";
import type { TypedDataHasher } from "@gpux/protocol/typed-data-encoder";
import type { Escrow } from "./escrow.ts";

/**
 * What came of an intent about credit, whoever brought it about, as durable-objects/relay-key/outcome.ts reads it from
 * the escrow; null when nothing did. `known`: all that the relayer was ever given.
 */
export function creditDone(
  escrow: Escrow,
  hasher: TypedDataHasher,
  intent: Intent,
  known: readonly Intent[],
): IntentResult | "premature" | null {
  switch (intent.kind) {
    case "deposit": {
      const { from: payer, spender, meter, amount, salt } = intent;
      const nonce = hasher.depositNonce({ payer, spender, meter, amount, salt });
      if (!escrow.usedSalts.has(nonce)) return null;
      return { kind: "deposit", payer, spender, meter, amount: amount.toString() };
    }
    case "allocate": {
      const leases = intent.terms.map((terms) => {
        const leaseId = hasher.leaseTerms(terms);
        const lease = escrow.leases.get(leaseId);
        return { leaseId, funded: lease?.funded ?? 0n, openedAt: lease?.openedAt ?? 0 };
      });
      if (!leases.every(({ funded }, n) => funded >= (intent.fundedTo[n] ?? 0n))) return null;
      const seen = leases.map((lease) => ({ ...lease, funded: lease.funded.toString() }));
      return { kind: "allocate", leases: seen, amount: null };
    }
    case "release": {
      const { payer, spender, meter, meterSignature } = intent;
      if (!escrow.credits.usedReleases.has(releaseDigest(hasher, intent))) return null;
      const { releaseAt } = escrow.credits.of(payer, spender);
      if (meterSignature !== undefined && releaseAt > 0) return null;
      return { kind: "release", payer, spender, meter, releaseAt: releaseAt || null, amount: null };
    }
    case "reclaim_credit": {
      const { payer, spender, meter } = intent;
      if (escrow.credits.of(payer, spender).releaseAt > 0) return null;
      // One of its releases may have been taken back, and is yet to land again.
      const isPremature = known.some(
        (each) =>
          each.kind === "release" &&
          each.payer === payer &&
          each.spender === spender &&
          !escrow.credits.usedReleases.has(releaseDigest(hasher, each)),
      );
      return isPremature ? "premature" : { kind: "reclaim_credit", payer, spender, meter, amount: null };
    }
    default:
      return null;
  }
}
