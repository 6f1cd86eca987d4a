import type { Caller, Outcome, Principal, Refused } from "./interfaces.ts";

/** A principal as a Lease is told of it. */
export function callerOf({ address, session }: Principal): Caller {
  return session === undefined ? address : { address, session: session.id, bearer: session.bearer };
}

/** A session may be unknown to a Lease, and then have too little set aside there. */
const MOST_TURNS = 2;

/**
 * Asks a Lease as the principal. A Lease that does not know the principal's session, or has too little of its cap set
 * aside, says so: then, and only then, the Account is asked to vouch for it (`admit`), and the Lease again.
 */
export async function askAs<Answer extends object>(
  principal: Principal,
  ask: (as: Caller) => Promise<Answer>,
  admit: (needs: bigint) => Promise<Outcome>,
): Promise<Answer | Refused> {
  const as = callerOf(principal);
  for (let turns = 0; ; turns += 1) {
    const answer = await ask(as);
    const needs = principal.session === undefined ? null : neededFor(answer);
    if (needs === null) return answer;
    // Other requests of the session keep taking what is set aside: that is between them.
    if (turns === MOST_TURNS) return { ok: false, code: "session_cap_exceeded" };
    const admitted = await admit(needs);
    if (!admitted.ok) return admitted;
  }
}

/** The ceiling that a Lease's answer asks for (0n: it does not know the session); null when the answer stands. */
export function neededFor(answer: object): bigint | null {
  if (!("code" in answer)) return null;
  if (answer.code === "session_unknown") return 0n;
  if (answer.code !== "session_cap_exceeded" || !("needs" in answer)) return null;
  return typeof answer.needs === "bigint" ? answer.needs : null;
}
