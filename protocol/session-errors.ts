import { tenant } from "./error-entry.ts";

/** What is refused about a session, beyond what any signed request can get wrong. */
export const SESSION_ERRORS = {
  session_invalid: tenant(
    401,
    "The session's token is not of this edge, or of another session",
    "Send `gpux-session` as POST /v1/sessions answered it, with keyid the session's id; or open a session here.",
  ),
  session_expired: tenant(
    401,
    "The session has expired",
    "Open a new one: POST /v1/sessions, by the wallet.",
  ),
  session_revoked: tenant(
    401,
    "The session was revoked",
    "Open a new one: POST /v1/sessions, by the wallet.",
  ),
  session_unknown: tenant(404, "There is no such session", "GET /v1/sessions lists them."),
  session_cap_exceeded: tenant(
    402,
    "The session's cap does not cover this job",
    "Lower max_price, or open a session with a higher cap, by the wallet.",
  ),
  scope_missing: tenant(
    403,
    "The session has no scope for this",
    "Sign with the wallet, or open a session that has the scope in `detail`.",
  ),
  too_many_sessions: tenant(
    409,
    "Too many sessions are open",
    "DELETE /v1/sessions/{id} those that are no longer used.",
  ),
} as const;
