import type { Entry } from "@gpux/durable-objects/lease/draft";
import type { Job } from "@gpux/durable-objects/lease/job-state";
import type { State } from "@gpux/durable-objects/lease/state";
import type { JobId } from "@gpux/protocol/ids";
import { append, type Disk, save } from "./disk.ts";

interface Noted {
  readonly entries: readonly Entry[];
  readonly isTwice: boolean;
}

/** What has changed and is not on the disk yet, as durable-objects/lease/write-behind.ts has it: one batch, one write. */
export class Behind {
  #state: State | null = null;
  #jobs = new Map<JobId, Job>();
  #noted: Noted[] = [];
  readonly #unborn = new Set<JobId>();

  get isEmpty(): boolean {
    return this.#state === null;
  }

  /** `isTwice`: as only a planted bug has it (disk.ts). */
  note(before: State | null, after: State, entries: readonly Entry[], isTwice: boolean): void {
    this.#state = after;
    for (const job of after.jobs.values()) {
      const was = before?.jobs.get(job.id);
      if (was === job) continue;
      if (was === undefined) this.#unborn.add(job.id);
      this.#jobs.set(job.id, job);
    }
    if (entries.length > 0) this.#noted.push({ entries, isTwice });
  }

  job(id: JobId): Job | null {
    return this.#jobs.get(id) ?? null;
  }

  /** Whether a crash now would take all that is known of the job. */
  isUnborn(id: JobId): boolean {
    return this.#unborn.has(id);
  }

  write(disk: Disk): void {
    if (this.#state === null) return;
    for (const { entries, isTwice } of this.#noted) append(disk, entries, isTwice);
    save(disk, this.#state, this.#jobs.values());
    this.#state = null;
    this.#jobs = new Map();
    this.#noted = [];
    this.#unborn.clear();
  }
}
