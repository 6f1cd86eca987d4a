import { AllowanceNeeded, type WellKnown } from "@gpux/protocol/answers";
import type { Account } from "./account.ts";
import { GpuxError } from "./error.ts";
import type { Leases } from "./leases.ts";
import { signAllowance } from "./spending.ts";
import { committed, isDedicated, type WarmLease, type WarmLeases } from "./warm-leases.ts";

export interface AllowanceSettings {
  readonly account: Account;
  readonly leases: Leases;
  readonly warm: WarmLeases;
  readonly wellKnown: () => Promise<WellKnown>;
}

/** What jobs on their way to a lease are allowed to spend there, by this client's signature. */
export function createAllowances({ warm, leases, account, wellKnown }: AllowanceSettings) {
  async function known(id: string, signal: AbortSignal | undefined): Promise<WarmLease> {
    return warm.get(id) ?? (await leases.adopt(id, signal));
  }

  return {
    known,
    /** Never above the lease's limit, whatever the edge says it needs. None for jobs that cost nothing. */
    async allow(lease: WarmLease, cumulative: bigint) {
      if (isDedicated(lease)) return undefined;
      if (cumulative > lease.limit) {
        throw new GpuxError({
          code: "spend_limit",
          title: "The lease would be allowed more than you set",
          hint: "Raise the spend limit, close the lease and open another, or lower max_price.",
          detail: `${cumulative} would be allowed on ${lease.id}, the limit is ${lease.limit}`,
          fault: "tenant",
        });
      }
      const { settlement } = await wellKnown();
      return signAllowance(account, settlement, { leaseHash: lease.hash, cumulative });
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
