import type { Caller, Principal } from "./interfaces.ts";

/** A principal as a Lease is told of it. */
export function callerOf({ address, session }: Principal): Caller {
  return session === undefined ? address : { address, session: session.id, bearer: session.bearer };
}

/**
 * The ceiling for which a Lease's answer sends a session to its Account (0n: the Lease does not know the session);
 * null when the answer stands.
 */
export function neededFor(answer: object): bigint | null {
  if (!("code" in answer)) return null;
  if (answer.code === "session_unknown") return 0n;
  if (answer.code !== "session_cap_exceeded" || !("needs" in answer)) return null;
  return typeof answer.needs === "bigint" ? answer.needs : null;
}
