import { leftOf } from "@gpux/durable-objects/lease/billing";
import { isTerminal, type Job } from "@gpux/durable-objects/lease/job-state";
import type { JobId, LeaseId } from "@gpux/protocol/ids";
import type { SessionId } from "@gpux/protocol/session";
import type { Observed } from "./lease-ledger.ts";
import { hold } from "./violation.ts";

interface Seen {
  readonly cap: bigint;
  readonly expiresAt: number;
  /** What each of its jobs has cost, or may yet, by lease and job. */
  readonly jobs: Map<string, bigint>;
  readonly vouchedAt: Set<LeaseId>;
  readonly revokedAt: Set<LeaseId>;
}

/** What must hold of sessions, over all leases of a wallet. */
export class SessionWatch {
  readonly #seen = new Map<SessionId, Seen>();

  opens(id: SessionId, cap: bigint, expiresAt: number): void {
    this.#seen.set(id, { cap, expiresAt, jobs: new Map(), vouchedAt: new Set(), revokedAt: new Set() });
  }

  vouched(lease: LeaseId, session: SessionId): void {
    this.#seen.get(session)?.vouchedAt.add(lease);
  }

  /** The lease has heard of the revocation. */
  revoked(lease: LeaseId, session: SessionId): void {
    this.#seen.get(session)?.revokedAt.add(lease);
  }

  /** SES-6: `DELETE` says who has not heard; all others that knew the session have, unless it has ended by itself. */
  answered(session: SessionId, untold: readonly LeaseId[], now: number): void {
    const seen = this.#seen.get(session);
    if (seen !== undefined && seen.expiresAt <= now) return;
    for (const lease of seen?.vouchedAt ?? [])
      hold(
        seen?.revokedAt.has(lease) === true || untold.includes(lease),
        "SES-6 a revocation is told before it is answered, or its answer says to whom not",
        () => `${session} at ${lease}`,
      );
  }

  step({ before, event, after }: Observed): void {
    if (this.#seen.size === 0) return;
    const { id } = after.lease;
    for (const job of after.jobs.values()) {
      const was = before.jobs.get(job.id);
      if (job.session === null || was === job) continue;
      const seen = this.#seen.get(job.session);
      if (was === undefined && (event.t === "submit" || event.t === "submit_all"))
        this.#accepted(id, job.session, seen);
      seen?.jobs.set(`${id} ${job.id}`, worthOf(job));
      // Until its first lease has heard where it is, a job that moves is counted twice, by them as by us.
      this.#sum(job.session);
    }
  }

  #accepted(lease: LeaseId, session: SessionId, seen: Seen | undefined): void {
    hold(
      seen?.vouchedAt.has(lease) === true,
      "SES-6 a session is nobody before it is vouched for",
      () => `${session} at ${lease}`,
    );
    hold(
      seen?.revokedAt.has(lease) !== true,
      "SES-6 a lease takes no job after it was told of the revocation",
      () => `${session} at ${lease}`,
    );
  }

  #sum(session: SessionId): void {
    const seen = this.#seen.get(session);
    if (seen === undefined) return;
    let sum = 0n;
    for (const worth of seen.jobs.values()) sum += worth;
    hold(
      sum <= seen.cap,
      "SES-5 a session's jobs never pass its cap",
      () => `${session}: ${sum} of ${seen.cap}`,
    );
  }

  /** A crash took what its disk does not have; a ticket may bring it back. */
  rewound(lease: LeaseId, taken: Iterable<Job>, kept: ReadonlyMap<JobId, Job>): void {
    if (this.#seen.size === 0) return;
    for (const { id, session } of taken) {
      const seen = session === null ? undefined : this.#seen.get(session);
      const job = kept.get(id);
      const key = `${lease} ${id}`;
      if (job === undefined) seen?.jobs.delete(key);
      else seen?.jobs.set(key, worthOf(job));
    }
  }
}

function worthOf(job: Job): bigint {
  return isTerminal(job) ? job.price : job.price + leftOf(job);
}
