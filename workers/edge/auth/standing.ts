import type { ObjectEnv } from "@gpux/durable-objects/bindings";
import { askAs } from "@gpux/durable-objects/caller";
import type { Caller, LeaseRpc, Outcome, Principal, Refused } from "@gpux/durable-objects/interfaces";
import { askWhereItIs } from "@gpux/durable-objects/moved";
import type { LeaseId } from "@gpux/protocol/ids";

/** Whether the principal's session has not been revoked, by its Account; a wallet always stands. */
export async function standing(env: ObjectEnv, principal: Principal): Promise<Outcome> {
  if (principal.session === undefined) return { ok: true };
  return env.ACCOUNT.getByName(principal.address).sessionStands(principal);
}

/** Asks a Lease as the principal; the Account vouches for a session where the Lease does not know it yet. */
export function onLease<Answer extends object>(
  env: ObjectEnv,
  principal: Principal,
  id: LeaseId,
  ask: (lease: LeaseRpc, as: Caller) => Promise<Answer>,
): Promise<Answer | Refused> {
  const lease = env.LEASE.getByName(id);
  return askAs(
    principal,
    (as) => ask(lease, as),
    (needs) => env.ACCOUNT.getByName(principal.address).admitSession(principal, id, needs),
  );
}

/** Asks the Lease that has the job: the one that it is known of, or where that one says that it has moved (JOB-11). */
export function onJob<Answer extends object>(
  env: ObjectEnv,
  principal: Principal,
  first: LeaseId,
  ask: (lease: LeaseRpc, as: Caller, id: LeaseId) => Promise<Answer>,
): Promise<Answer | Refused> {
  return askWhereItIs(first, (id) => onLease(env, principal, id, (lease, as) => ask(lease, as, id)));
}
