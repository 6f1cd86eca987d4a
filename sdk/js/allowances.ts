import { AllowanceNeeded, type WellKnown } from "@gpux/protocol/answers";
import type { Consumer } from "./account.ts";
import { GpuxError } from "./error.ts";
import type { Leases } from "./leases.ts";
import { type SignedAllowance, signAllowance } from "./spending.ts";
import { committed, isDedicated, type WarmLease, type WarmLeases } from "./warm-leases.ts";

export interface AllowanceOptions {
  /**
   * Base units that an allowance goes beyond what is needed at the moment, so that the consumer's key is asked once for a
   * block of spending and not for each job. By default 32 times the job's `max_price`, or as much as the lease has spent
   * where that is more: never much beyond what is in use, and asked ever more seldom. 0n allows each job by itself.
   *
   * What it risks: up to the allowance, the lease's provider and meter can together settle without another word of the
   * consumer's. A meter that keeps to its rules signs no more than the receipts that it has checked; one that does not is
   * held by the allowance, by the clock of the lease's terms and by its funding. No allowance goes above what the lease
   * was funded with, or above the client's `spendLimit`.
   */
  readonly allowAhead?: bigint;
}

export interface AllowanceSettings extends AllowanceOptions {
  readonly account: Consumer;
  readonly leases: Leases;
  readonly warm: WarmLeases;
  readonly wellKnown: () => Promise<WellKnown>;
}

/** A job that an allowance is for: the dearest, of several. */
interface Asking extends AllowanceOptions {
  readonly maxPrice: bigint;
}

/** A block is of so many jobs at least. A share of the funding instead would risk most where least is used (ADR 22). */
const AHEAD_JOBS = 32n;

export type Allowances = ReturnType<typeof createAllowances>;

/** What jobs on their way to a lease are allowed to spend there, by this client's signature. */
export function createAllowances({
  warm,
  leases,
  account,
  wellKnown,
  allowAhead: always,
}: AllowanceSettings) {
  async function known(id: string, signal: AbortSignal | undefined): Promise<WarmLease> {
    return warm.get(id) ?? (await leases.adopt(id, signal));
  }

  async function sign(lease: WarmLease, cumulative: bigint): Promise<void> {
    try {
      const { settlement } = await wellKnown();
      const signed = await signAllowance(account, settlement, { leaseHash: lease.hash, cumulative });
      lease.allowed = { cumulative, signed };
    } finally {
      lease.asked = null;
    }
  }

  return {
    known,
    /**
     * What a request brings for all that is booked on the lease now: signed before, or being signed, as far as that
     * covers it, else signed now, for a block ahead. None for jobs that cost nothing, or where the edge said that it has
     * enough. Throws `spend_limit` above the lease's limit, whatever the edge says it needs.
     */
    async allow(
      lease: WarmLease,
      { maxPrice, allowAhead = always }: Asking,
    ): Promise<SignedAllowance | undefined> {
      if (isDedicated(lease)) return undefined;
      const needed = committed(lease);
      if (needed > lease.limit) throw aboveLimit(lease, needed);
      if (needed <= lease.terms.unattended) return undefined;
      while (lease.allowed === null || lease.allowed.cumulative < needed) {
        const { asked } = lease;
        if (asked === null) {
          const ahead = allowAhead ?? aheadOf(lease, maxPrice);
          const block = ahead > 0n ? needed + ahead : needed;
          const cumulative = block < lease.limit ? block : lease.limit;
          lease.asked = { cumulative, signed: sign(lease, cumulative) };
        }
        // A signature that is refused is refused to all whom it would have covered; others ask for their own.
        else if (asked.cumulative >= needed) await asked.signed;
        else await asked.signed.catch(() => undefined);
      }
      return lease.allowed.signed ?? undefined;
    },
    /** The lease for which an `allowance_required` asks, with what it asks for beyond `maxPrice` counted as spent. */
    async raised(refusal: GpuxError, { lease: named, maxPrice, signal }: Wanted): Promise<WarmLease> {
      const needed = AllowanceNeeded.safeParse(refusal.problem?.allowance);
      if (!needed.success) throw refusal;
      const { lease_id, lease_hash, cumulative } = needed.data;
      if (named !== undefined && named !== lease_id) throw refusal;
      const lease = await known(lease_id, signal);
      if (lease.hash !== lease_hash) throw refusal;
      // Others with this key use the lease too: what they committed counts as spent.
      const ours = committed(lease) + maxPrice;
      if (cumulative > ours) lease.spent += cumulative - ours;
      // It has not what it said to have.
      if (lease.allowed?.signed === null) lease.allowed = null;
      return lease;
    },
  };
}

interface Wanted {
  /** The one that it must be. */
  readonly lease?: string | undefined;
  /** Of what is sent again, in base units. */
  readonly maxPrice: bigint;
  readonly signal?: AbortSignal | undefined;
}

function aheadOf({ spent }: WarmLease, maxPrice: bigint): bigint {
  const jobs = AHEAD_JOBS * maxPrice;
  if (jobs > spent) return jobs;
  return spent;
}

function aboveLimit(lease: WarmLease, needed: bigint): GpuxError {
  return new GpuxError({
    code: "spend_limit",
    title: "The lease would be allowed more than you set",
    hint: "Raise the spend limit, close the lease and open another, or lower max_price.",
    detail: `${needed} would be allowed on ${lease.id}, the limit is ${lease.limit}`,
    fault: "tenant",
  });
}
