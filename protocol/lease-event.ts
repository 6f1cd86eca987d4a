import { z } from "zod";
import { LeaseId } from "./ids.ts";

/**
 * One entry of a lease's own journal, as `GET /v1/leases/{id}/events` streams it; `id` rises by one within the lease.
 * Amounts in `data` are decimal strings of base units, times are ISO 8601.
 *
 * - `status` {status, reason?, fault?, detail?}: where it stands; of an end, why and whose doing.
 * - `funded` {funded, added}: money that counts from now on.
 * - `top_up` {salt, amount} or, from credit, {funded_to}, {status: landing | refused, reason?}: money on its way, and what could not land.
 * - `extended` {until}: its end was moved.
 * - `low_balance` {left, funded}: less than a fifth of what was paid in is left.
 * - `tick` {from, to, served_ms, price}: time of a dedicated lease that is billed; `GET /v1/leases/{id}/ticks` has its receipt.
 * - `node_away`, `node_back`: the agent's socket, while the lease wants it there.
 * - `capacity` {warm}: whether the node keeps its GPUs for the lease.
 * - `yield` {until}, `drain` {until}: the node takes its GPUs back, or stops.
 * - `voucher` {cumulative}: usage that two have signed; passed on to who watches, not kept.
 */
export const LeaseEvent = z.object({
  id: z.int().min(0),
  lease: LeaseId,
  at: z.iso.datetime(),
  type: z.enum([
    "status",
    "funded",
    "top_up",
    "extended",
    "low_balance",
    "tick",
    "node_away",
    "node_back",
    "capacity",
    "yield",
    "drain",
    "voucher",
  ]),
  data: z.record(z.string(), z.unknown()),
});
export type LeaseEvent = z.infer<typeof LeaseEvent>;
