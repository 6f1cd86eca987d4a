import type { Entry } from "@gpux/durable-objects/lease/draft";
import type { JobId, LeaseId } from "@gpux/protocol/ids";
import type { JobStatus } from "@gpux/protocol/job";

/** A job as its consumer is told of it. */
export interface JobSeen {
  readonly id: JobId;
  readonly lease: LeaseId;
  readonly status: JobStatus;
  /** When it was so, in ms. */
  readonly at: number;
}

/** A line of a lease's journal, numbered. */
export interface Line extends Entry {
  readonly id: number;
}
