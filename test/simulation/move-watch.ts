import { isTerminal } from "@gpux/durable-objects/lease/job-state";
import type { JobId, LeaseId } from "@gpux/protocol/ids";
import type { LeaseLedger, Observed } from "./lease-ledger.ts";
import type { Line } from "./seen.ts";
import { hold } from "./violation.ts";

/** What must hold of a job over all leases that it has been on (SPEC JOB-11). */
export class MoveWatch {
  readonly #ledgers: ReadonlyMap<LeaseId, LeaseLedger>;
  /** Of each job that another lease took over: the leases that have had it. */
  readonly #homes = new Map<JobId, Set<LeaseId>>();
  /** The last line of a job that was written, and by which lease. */
  readonly #lines = new Map<JobId, number>();
  /** Lines of each lease's journal that were looked at. */
  readonly #read = new Map<LeaseId, number>();

  constructor(ledgers: ReadonlyMap<LeaseId, LeaseLedger>) {
    this.#ledgers = ledgers;
  }

  /** Jobs that another lease took over. */
  get count(): number {
    return this.#homes.size;
  }

  step(id: LeaseId, { event, before, after }: Observed): void {
    if (event.t === "adopt") {
      const { job, been } = event.carried;
      const from = been.at(-1);
      const known = this.#homes.get(job) ?? new Set(from === undefined ? [] : [from]);
      hold(!known.has(id), "JOB-11 no job comes back to a lease", () => `${job} to ${id}`);
      const before = [...known].reduce((sum, lease) => sum + this.#priceOn(lease, job), 0n);
      hold(
        after.jobs.get(job)?.past?.price === before,
        "JOB-11 a job takes with it what it has cost",
        () => `${job} cost ${before}`,
      );
      this.#homes.set(job, known.add(id));
    }
    for (const job of after.jobs.values()) {
      const was = before.jobs.get(job.id);
      if (was === job) continue;
      hold(
        job.move === null || (was?.batch ?? null) === null,
        "JOB-11 an array stays together",
        () => `${job.id} is offered to ${job.move?.to}`,
      );
      if (this.#homes.has(job.id)) this.#judge(job.id);
    }
  }

  #priceOn(lease: LeaseId, job: JobId): bigint {
    return this.#ledgers.get(lease)?.jobs.get(job)?.price ?? 0n;
  }

  /** One lease has it, or has had it last; all others have let go of it, and altogether it cost what it may. */
  #judge(id: JobId): void {
    const homes = [...(this.#homes.get(id) ?? [])].flatMap((lease) => {
      const job = this.#ledgers.get(lease)?.jobs.get(id);
      return job === undefined ? [] : [{ lease, job }];
    });
    const owners = homes.filter(({ job }) => job.move === null);
    hold(
      owners.length <= 1,
      "JOB-11 a job is with one lease",
      () =>
        `${id} is ${owners.map(({ lease, job }) => `${job.status} on ${lease.slice(0, 9)}`).join(" and ")}`,
    );
    for (const { job } of homes)
      hold(
        job.move === null || job.status === "queued",
        "JOB-11 nothing becomes of a job that is offered elsewhere",
        () => `${id} is ${job.status}`,
      );
    const price = homes.reduce((sum, { job }) => sum + job.price, 0n);
    const most = homes[0]?.job.request.max_price ?? 0n;
    hold(price <= most, "M2 no job costs more than max_price, wherever it ran", () => `${id} costs ${price}`);
  }

  /** J6: for who reads on at another lease. */
  journal(lease: LeaseId, lines: readonly Line[]): void {
    for (const { id, job } of lines.slice(this.#read.get(lease) ?? 0)) {
      hold(
        id > (this.#lines.get(job) ?? 0),
        "J6 a job's lines rise, whichever lease writes them",
        () => `${job} ${id} after ${this.#lines.get(job)}`,
      );
      this.#lines.set(job, id);
    }
    this.#read.set(lease, lines.length);
  }

  /** In the end none is on its way any more. */
  end(): void {
    for (const [id, homes] of this.#homes)
      for (const lease of homes) {
        const job = this.#ledgers.get(lease)?.jobs.get(id);
        hold(job === undefined || isTerminal(job), "JOB-11 every move comes to its end", () => id);
      }
  }
}
