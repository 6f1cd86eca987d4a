import { z } from "zod";
import { Problem } from "./answers.ts";
import { JobId, LeaseId } from "./ids.ts";
import { JobEvent, JobView, MOST_IN_BATCH } from "./job.ts";

/**
 * The session socket, `GET /v1/leases/{id}/session`: a client's own WebSocket into its lease. JSON text frames
 * `{v, t, ...}`; the texts `ping`/`pong` are heartbeats, which wake nothing. The upgrade is signed, its frames are not.
 *
 * `id` is the client's name for what it asks, and the Idempotency-Key of the jobs that come of it: the same frame again,
 * over whatever connection or as `POST /v1/leases/{id}/jobs`, is the same job. Answers bear it.
 */
export const CLIENT_FRAME_VERSION = 1;

/** What the upgrade asks for as its subprotocol, and is given. */
export const CLIENT_PROTOCOL = "gpux.v1";

/** Longest text frame from a client, in UTF-16 units, checked before parsing: as much as an HTTP body may have. */
export const CLIENT_FRAME_LIMIT = 48 * 1024;

/**
 * Jobs of one socket that have not ended. What the lease remembers of them over a hibernation must fit into 16 KiB, the
 * longest attachment of a socket.
 */
export const MOST_UNDER_WAY = 128;

/** Close codes of the session socket. */
export const CLIENT_CLOSE = {
  /** Longer than {@link CLIENT_FRAME_LIMIT} (RFC 6455 section 7.4.1). */
  tooLong: 1009,
  /** No frame of this protocol: a bug; reconnecting will not help. */
  badFrame: 4400,
  /** The session that signed the upgrade is over, or the socket too old: dial again with a fresh signature. */
  unauthorized: 4401,
  /** The lease is over: nothing more will happen to it. */
  gone: 4410,
  /** Far more frames at once than the lease said that it takes. */
  flooded: 4429,
} as const;

/** Printable, and no longer than what a lease can remember of {@link MOST_UNDER_WAY}. */
export const RequestName = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, "1 to 64 of A-Za-z0-9._-, beginning with a letter or digit");

const frame = <T extends string, S extends z.core.$ZodLooseShape>(t: T, shape: S) =>
  z.strictObject({ v: z.literal(CLIENT_FRAME_VERSION), t: z.literal(t), ...shape });

/**
 * From a client. What `request` and `requests` hold is checked by itself (`JobRequest`, `JobBatch`): one that does not
 * fit is refused by its id, as over HTTP, and costs nobody the connection.
 */
export const FromClient = z.discriminatedUnion("t", [
  frame("job", { id: RequestName, request: z.unknown() }),
  frame("batch", { id: RequestName, requests: z.array(z.unknown()).min(1).max(MOST_IN_BATCH) }),
  /** Answered by `state`. */
  frame("cancel", { id: RequestName, job: JobId }),
]);
export type FromClient = z.output<typeof FromClient>;

/** Of a batch: which of its jobs. */
const which = { id: RequestName, index: z.int().min(0).optional() };
const answer = <T extends string, S extends z.core.$ZodLooseShape>(t: T, shape: S) =>
  z.object({ v: z.literal(CLIENT_FRAME_VERSION), t: z.literal(t), ...shape });

/** To a client. Open objects: an older client must survive a newer edge's additions. */
export const ToClient = z.discriminatedUnion("t", [
  /** The first. After `until` the lease closes the socket (`unauthorized`). */
  answer("ready", {
    lease: LeaseId,
    most_under_way: z.int().min(1),
    frame_limit: z.int().min(1),
    until: z.iso.datetime(),
  }),
  /** The job is on record (ACK-1). Not said of one that ends before it is. */
  answer("accepted", { ...which, job: JobView }),
  /** Of a job that was accepted: `status` until it ends, and `progress`. */
  answer("event", { ...which, event: JobEvent }),
  /** It has succeeded. The last word about it. */
  answer("result", { ...which, job: JobView }),
  /** It has ended otherwise. The last word about it. */
  answer("failed", { ...which, job: JobView }),
  /** How a job stands that was asked to be canceled. */
  answer("state", { id: RequestName, job: JobView }),
  /** Nothing came of it; `problem` is what HTTP answers. */
  answer("refused", { id: RequestName, problem: Problem }),
]);
export type ToClient = z.output<typeof ToClient>;
