import { later, tenant } from "./error-entry.ts";

/** What is refused about a session socket, beyond what the same request over HTTP can get wrong. */
export const SOCKET_ERRORS = {
  upgrade_required: tenant(
    426,
    "A WebSocket upgrade is needed here",
    "Open it as a WebSocket with the subprotocol gpux.v1; nothing else is wrong with this request.",
  ),
  too_many_sockets: later(
    429,
    "tenant",
    "Too many session sockets are open on the lease",
    "Close those that are no longer used; one takes many jobs at once.",
  ),
  too_many_under_way: later(
    429,
    "tenant",
    "Too many jobs of this socket have not ended",
    "Send the next when one has ended; `ready` says how many may be under way.",
  ),
} as const;
