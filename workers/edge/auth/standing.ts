import type { ObjectEnv } from "@gpux/durable-objects/bindings";
import { callerOf, neededFor } from "@gpux/durable-objects/caller";
import type { Caller, LeaseRpc, Outcome, Principal } from "@gpux/durable-objects/interfaces";
import type { LeaseId } from "@gpux/protocol/ids";

/** Whether the principal's session has not been revoked, by its Account; a wallet always stands. */
export async function standing(env: ObjectEnv, principal: Principal): Promise<Outcome> {
  if (principal.session === undefined) return { ok: true };
  return env.ACCOUNT.getByName(principal.address).sessionStands(principal);
}

/**
 * Asks a Lease as the principal. A Lease that does not know the principal's session, or has too little of its cap set
 * aside, says so: then, and only then, the Account is asked to vouch for it, and the Lease again.
 */
export async function onLease<Answer extends object>(
  env: ObjectEnv,
  principal: Principal,
  id: LeaseId,
  ask: (lease: LeaseRpc, as: Caller) => Promise<Answer>,
): Promise<Answer | Extract<Outcome, { ok: false }>> {
  const lease = env.LEASE.getByName(id);
  const as = callerOf(principal);
  const answer = await ask(lease, as);
  const needs = principal.session === undefined ? null : neededFor(answer);
  if (needs === null) return answer;
  const admitted = await env.ACCOUNT.getByName(principal.address).admitSession(principal, id, needs);
  if (!admitted.ok) return admitted;
  const again = await ask(lease, as);
  // Another of the session's requests took what was set aside: that is between its own requests.
  return neededFor(again) === null ? again : { ok: false, code: "session_cap_exceeded" };
}
