import type { Address, JobId, LeaseId } from "@gpux/protocol/ids";
import type { AttemptToken, JobRequest, JobStatus } from "@gpux/protocol/job";

/** What a job does when it runs: known to the simulation, and to nobody in it before it has run. */
export interface Work {
  readonly runMs: number;
  /** `tenant`: its own fault; `provider`: the machine's. */
  readonly ends: "well" | "tenant" | "provider";
}

/** An attempt that ran on a machine. */
export interface Run {
  readonly node: Address;
  readonly lease: LeaseId;
  readonly job: JobId;
  readonly attempt: AttemptToken;
  readonly from: number;
  /** Null while it runs, and for ever when its machine died meanwhile. */
  to: number | null;
  output: string | null;
  /** The checkpoint that it went on from; null: from the beginning. */
  readonly resumed: string | null;
  /** What is in the store of it, and for how long it had run by then. */
  kept: { readonly sha256: string; readonly ms: number } | null;
}

export interface Acknowledged {
  readonly lease: LeaseId;
  readonly at: number;
  /** When it must have ended at the latest, faults aside. */
  readonly number: number;
}

/** What really happened, as nobody in the market sees it whole. */
export class Truth {
  readonly work = new Map<number, Work>();
  readonly runs = new Map<string, Run[]>();
  readonly acknowledged = new Map<JobId, Acknowledged>();
  readonly canceled = new Map<JobId, number>();
  /** Ends that consumers were told of. */
  readonly toldEnds = new Map<JobId, JobStatus>();
  /** Jobs that a crash took and that were asked for again: when. They may end otherwise than somebody was told. */
  readonly begunAgain = new Map<JobId, number>();
  /** When each machine lost what its disk did not have yet. */
  readonly losses = new Map<Address, number[]>();
  /** By their hash: whose they are, and how much of its work they spare. */
  readonly checkpoints = new Map<string, { readonly number: number; readonly doneMs: number }>();
  #outputs = 0;

  began(run: Omit<Run, "to" | "output" | "kept">): Run {
    const whole: Run = { ...run, to: null, output: null, kept: null };
    const key = runKey(run.job, run.attempt);
    this.runs.set(key, [...(this.runs.get(key) ?? []), whole]);
    return whole;
  }

  lost(node: Address, at: number): void {
    this.losses.set(node, [...(this.losses.get(node) ?? []), at]);
  }

  /** Whether a machine ran an attempt again although it could have known how it had ended. */
  isRepeated(runs: readonly Run[]): boolean {
    const ended = runs.filter((run) => run.output !== null);
    return ended.some((run, at) => {
      const before = ended[at - 1];
      const losses = this.losses.get(run.node) ?? [];
      return before !== undefined && !losses.some((loss) => loss >= (before.to ?? 0) && loss <= run.from);
    });
  }

  /** An output that no other run has, in the form of its SHA-256. */
  output(): string {
    this.#outputs += 1;
    return this.#outputs.toString(16).padStart(64, "0");
  }
}

export function runKey(job: string, attempt: AttemptToken): string {
  return `${job} ${attempt.epoch} ${attempt.n}`;
}

/** Jobs are told apart by the number that they take in. */
export function numberOf(request: Pick<JobRequest, "inputs">): number {
  const { n } = request.inputs;
  return n !== undefined && "number" in n ? n.number : 0;
}

/** In the place of `inputHash`, which asks WebCrypto. */
export function inputHashOf(request: Pick<JobRequest, "inputs">): string {
  return numberOf(request).toString(16).padStart(64, "0");
}

/** As durable-objects/lease/batch.ts: numbers are below a million in hex, so that arrays of up to twelve differ. */
export function batchHashOf(requests: readonly Pick<JobRequest, "inputs">[]): string {
  return requests
    .map((request) => numberOf(request).toString(16).padStart(5, "0"))
    .join("")
    .padStart(64, "0");
}
