import type { Address, LeaseId } from "@gpux/protocol/ids";
import type { ObjectEnv } from "../bindings.ts";
import type { AccountLease, Standing } from "./machine.ts";

/** Leases that are asked how they stand before one of them is chosen. */
const LOOK_AT = 8;

/** POOL-1: how soon each would begin a job; asked only where there is a choice. One that does not answer is not there. */
export async function standingOf(
  env: ObjectEnv,
  by: Address,
  leases: readonly AccountLease[],
): Promise<ReadonlyMap<LeaseId, Standing>> {
  const asked = leases.length > 1 ? leases.slice(0, LOOK_AT) : [];
  const seen = await Promise.all(
    asked.map(async ({ id }): Promise<[LeaseId, Standing][]> => {
      const view = await env.LEASE.getByName(id)
        .view(by)
        // It is tried in its turn all the same.
        .catch(() => null);
      if (view === null || !view.ok || !view.lease.warm) return [];
      return [[id, view.lease.node_connected ? "attached" : "held"]];
    }),
  );
  return new Map(seen.flat());
}
