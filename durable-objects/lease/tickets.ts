import type { FromLease, ToLease } from "@gpux/protocol/frames";
import { type Bytes32, ClientJobId, JobId, Sha256 } from "@gpux/protocol/ids";
import { AttemptToken, type JobRequest, Timeouts } from "@gpux/protocol/job";
import { keccak256 } from "@gpux/protocol/keccak";
import { Amount } from "@gpux/protocol/money";
import { SessionId } from "@gpux/protocol/session";
import { wireText } from "@gpux/protocol/wire";
import { z } from "zod";
import { currentAttempt, type Job, sameAttempt } from "./job-state.ts";
import type { Run } from "./runs.ts";

/**
 * What the agent is given with a job whose row is not durable yet: the edge's own word that it took the job. Should the
 * edge crash before the row is written, the agent brings the ticket back with the job's end, and the job is known again
 * (SPEC ACK-5). Nobody but this lease can make one, so a provider cannot invent jobs to be paid for.
 */
const Ticket = z.strictObject({
  job: JobId,
  clientId: ClientJobId.nullable(),
  session: SessionId.nullable(),
  inputHash: Sha256,
  max_price: Amount,
  timeouts: Timeouts,
  retries: z.int(),
  priority: z.int().default(0),
  checkpoint: z.boolean().optional(),
  retryOf: JobId.nullable().default(null),
  batch: Sha256.nullable().default(null),
  createdAt: z.int(),
  attempt: AttemptToken,
  sentAt: z.int(),
});
export type Ticket = z.output<typeof Ticket>;

const MAC_LENGTH = 66;

/** Keccak is a sponge: with the key in front it is a MAC, and needs no HMAC around it. */
function macOf(secret: Bytes32, text: string): Bytes32 {
  return keccak256(`${secret}${text}`);
}

/** Of a job that was just sent; null when it was not. */
export function issue(secret: Bytes32, job: Job): string | null {
  const attempt = job.prefetched ?? currentAttempt(job);
  if (attempt === undefined) return null;
  const { max_price, timeouts, retries, priority, checkpoint } = job.request;
  const ticket: Ticket = {
    job: job.id,
    clientId: job.clientId,
    session: job.session,
    inputHash: job.inputHash,
    max_price,
    timeouts,
    retries,
    priority,
    ...(checkpoint === undefined ? {} : { checkpoint }),
    retryOf: job.retryOf,
    batch: job.batch,
    createdAt: job.createdAt,
    attempt: attempt.token,
    sentAt: attempt.sentAt,
  };
  const text = wireText(ticket);
  return `${macOf(secret, text)}${text}`;
}

/** What it says, when this lease made it; else null. */
export function redeem(secret: Bytes32, ticket: string): Ticket | null {
  const text = ticket.slice(MAC_LENGTH);
  // Not in constant time: who could measure this is the one agent that was given the ticket.
  if (macOf(secret, text) !== ticket.slice(0, MAC_LENGTH)) return null;
  return Ticket.parse(JSON.parse(text));
}

/**
 * The job that an agent brings back by its ticket, as it was asked for; null when this lease made no such ticket. Whether
 * the inputs are those of the ticket is the caller's to check: only their hash is in it.
 */
export function broughtBack(
  secret: Bytes32 | null,
  { job, attempt, function: code, inputs, ticket: text }: Extract<FromLease, { t: "accepted" }>,
): { readonly ticket: Ticket; readonly request: JobRequest } | null {
  const ticket = secret === null ? null : redeem(secret, text);
  if (ticket === null || ticket.job !== job || !sameAttempt(ticket.attempt, attempt)) return null;
  const { max_price, timeouts, retries, priority, checkpoint } = ticket;
  const limits = { max_price, timeouts, retries, priority };
  return {
    ticket,
    request: {
      kind: "function",
      function: code,
      inputs,
      ...limits,
      ...(checkpoint === undefined ? {} : { checkpoint }),
    },
  };
}

/** The frame with a ticket for each job that it sends, where `ticketOf` has one. */
export function withTickets(frame: ToLease, ticketOf: (job: JobId) => string | null): ToLease {
  const added = <Of extends Run>(run: Of): Of => {
    const ticket = ticketOf(run.job);
    return ticket === null ? run : { ...run, ticket };
  };
  if (frame.t === "runs") return { ...frame, runs: frame.runs.map(added) };
  return frame.t === "run" ? added(frame) : frame;
}
