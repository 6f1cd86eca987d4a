import { z } from "zod";
import { Address, Bytes32, LeaseId } from "./ids.ts";
import { Settlement } from "./lease.ts";
import { Amount } from "./money.ts";

/**
 * The envelopes that answers come in. Objects here are open (unknown fields are dropped), because an older client must
 * survive a newer edge's additions.
 */

/** `/.well-known/gpux`: what a signer checks a quote against. `origin` is what signatures name as their target. */
export const WellKnown = z.object({
  origin: z.url(),
  settlement: Settlement,
  meter: Address,
  fee_recipient: Address,
  /** Of what providers earn, in basis points. */
  fee_bps: z.int().min(0).max(5_000),
});
export type WellKnown = z.infer<typeof WellKnown>;

/** RFC 9457 body as errors.ts writes it; anything between client and edge may answer with less. */
export const Problem = z.looseObject({
  title: z.string(),
  status: z.int(),
  detail: z.string().optional(),
  code: z.string().optional(),
  hint: z.string().optional(),
  fault: z.enum(["tenant", "provider", "platform", "chain"]).optional(),
  retryable: z.boolean().optional(),
  request_id: z.string().optional(),
});
export type Problem = z.infer<typeof Problem>;

/** What `allowance_required` brings: the least cumulative that the lease must be allowed for the job to be taken. */
export const AllowanceNeeded = z.object({ lease_id: LeaseId, lease_hash: Bytes32, cumulative: Amount });

/** One page of a list; `after` of the next request is the last item's id. */
export function listOf<Item extends z.ZodType>(item: Item) {
  return z.object({ object: z.literal("list"), data: z.array(item), has_more: z.boolean() });
}
