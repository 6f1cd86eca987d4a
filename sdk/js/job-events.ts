import { JobEvent, JobStatus, JobView, TERMINAL } from "@gpux/protocol/job";
import { type EventOptions, followJournal } from "./journal.ts";
import type { Timing } from "./timing.ts";
import type { Transport } from "./transport.ts";

/** The journal of a job, as {@link followJournal} has it. */
export function jobEvents(
  transport: Transport,
  timing: Timing,
  id: string,
  options: EventOptions,
): AsyncGenerator<JobEvent> {
  const path = `/v1/jobs/${id}`;
  const journal = {
    path: `${path}/events`,
    schema: JobEvent,
    types: JobEvent.shape.type,
    isPassing: (event: JobEvent) => event.type === "progress",
    isEnd,
    hasEnded: async (signal: AbortSignal | undefined) =>
      TERMINAL.has((await transport.json({ method: "GET", path, signal }, JobView)).status),
  };
  return followJournal(transport, timing, journal, options);
}

export function isEnd(event: JobEvent): boolean {
  const status = event.type === "status" ? JobStatus.safeParse(event.data.status) : null;
  return status?.success === true && TERMINAL.has(status.data);
}
