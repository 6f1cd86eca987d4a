import type { EdgeConfig } from "@gpux/durable-objects/config";
import type { Principal } from "@gpux/durable-objects/interfaces";
import { canonicalJson } from "@gpux/protocol/canonical";
import { LeaseId } from "@gpux/protocol/ids";
import { Demand } from "@gpux/protocol/resources";
import { z } from "zod";

/**
 * POOL-2: `<lease id>.<key id>.<mac>` says that this lease fits this demand of this key, in the edge's own hand, so that
 * the next such request goes to the Lease in one hop, with no look-up. It opens nothing: the Lease judges who asks as
 * ever, and a token that is not for this key and demand is as good as none.
 */
export const LEASE_HEADER = "gpux-lease";

type Seal = Pick<EdgeConfig, "seal">;

export async function leaseToken(
  { seal }: Seal,
  principal: Principal,
  demand: Demand,
  lease: LeaseId,
): Promise<string> {
  return `${lease}.${await seal.mark(claimOf(principal, demand, lease))}`;
}

/** The lease that the request's token leads to; null without one that holds. */
export async function routedLease(
  { seal }: Seal,
  request: Request,
  principal: Principal,
  demand: Demand,
): Promise<LeaseId | null> {
  const [id = "", ...mark] = request.headers.get(LEASE_HEADER)?.split(".") ?? [];
  const lease = LeaseId.safeParse(id);
  if (!lease.success) return null;
  const isOurs = await seal.isMarked(claimOf(principal, demand, lease.data), mark.join("."));
  return isOurs ? lease.data : null;
}

function claimOf({ address, session }: Principal, demand: Demand, lease: LeaseId): string {
  return `lease\n${lease}\n${session?.id ?? address}\n${canonicalJson(z.encode(Demand, demand))}`;
}
