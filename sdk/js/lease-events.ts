import { LeaseStatus, LeaseView } from "@gpux/protocol/lease";
import { LeaseEvent } from "@gpux/protocol/lease-event";
import { type EventOptions, followJournal } from "./journal.ts";
import type { Timing } from "./timing.ts";
import type { Transport } from "./transport.ts";

/** Of a lease to which nothing more happens. A lost one is still paid out, and closed. */
const OVER: ReadonlySet<LeaseStatus> = new Set<LeaseStatus>(["closed", "expired"]);

/** The journal of a lease, as {@link followJournal} has it. */
export function leaseEvents(
  transport: Transport,
  timing: Timing,
  id: string,
  options: EventOptions,
): AsyncGenerator<LeaseEvent> {
  const path = `/v1/leases/${id}`;
  const journal = {
    path: `${path}/events`,
    schema: LeaseEvent,
    types: LeaseEvent.shape.type,
    isPassing: (event: LeaseEvent) => event.type === "voucher",
    isEnd: (event: LeaseEvent) => {
      const status = event.type === "status" ? LeaseStatus.safeParse(event.data.status) : null;
      return status?.success === true && OVER.has(status.data);
    },
    hasEnded: async (signal: AbortSignal | undefined) =>
      OVER.has((await transport.json({ method: "GET", path, signal }, LeaseView)).status),
  };
  return followJournal(transport, timing, journal, options);
}
