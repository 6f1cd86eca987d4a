import { ceiling, committed, tariffOf } from "@gpux/durable-objects/lease/billing";
import type { Entry } from "@gpux/durable-objects/lease/draft";
import {
  attemptsOf,
  costOf,
  currentAttempt,
  isLeaving,
  isTerminal,
  type Job,
  type ReceiptState,
  receiptsOf,
} from "@gpux/durable-objects/lease/job-state";
import type { Event } from "@gpux/durable-objects/lease/machine";
import { WITHDRAWN, YIELDED } from "@gpux/durable-objects/lease/outcome";
import { isDedicated, isOver, pledged, type State } from "@gpux/durable-objects/lease/state";
import type { Receipt } from "@gpux/protocol/eip712";
import type { JobId, LeaseId } from "@gpux/protocol/ids";
import { JobStatus } from "@gpux/protocol/job";
import { sideBySide } from "@gpux/protocol/quote-text";
import { charged } from "@gpux/protocol/tariff";
import type { Disk } from "./disk.ts";
import { checkPrefetched, checkTurns, latestEnd } from "./prefetch-watch.ts";
import { type Run, runKey, type Truth } from "./truth.ts";
import { hold } from "./violation.ts";

/** What may be billed beyond what ran. */
const ROUNDING_MS = 50;

/** Where a job may go; back to the queue only over an attempt that is closed. */
const FORWARD: Readonly<Record<JobStatus, readonly JobStatus[]>> = {
  queued: ["starting", "canceled", "aborted", "failed"],
  starting: ["running", "queued", "succeeded", "failed", "canceled", "timed_out", "aborted"],
  running: ["queued", "succeeded", "failed", "canceled", "timed_out"],
  succeeded: [],
  failed: [],
  canceled: [],
  timed_out: [],
  aborted: [],
};

/** One step of a lease as it was seen. */
export interface Observed {
  readonly before: State;
  readonly event: Event;
  readonly after: State;
  readonly entries: readonly Entry[];
}

/** What a simulation has seen of one lease: it is checked at every step against what may be. */
export class LeaseLedger {
  readonly id: LeaseId;
  jobs = new Map<JobId, Job>();
  /** Receipts of time by their sequence, of a dedicated lease. */
  readonly ticks = new Map<number, Receipt>();
  state: State;
  /** Receipts that the node refused and that are not owed (SPEC MTR-6). */
  forgiven = 0;
  readonly #truth: Truth;
  /** Status by the journal's word. */
  readonly #told = new Map<JobId, JobStatus>();
  #lines = 0;
  #last = 0;
  readonly #restored = new Set<JobId>();
  readonly #signed = new Map<number, string>();
  /** When its node was given up, or its terms ran out before it was closed; in ms. */
  lostAt: number | null = null;

  constructor(state: State, truth: Truth) {
    this.id = state.lease.id;
    this.state = state;
    this.#truth = truth;
  }

  step({ before, event, after, entries }: Observed, now: number): void {
    if (event.t === "restore") this.#restored.add(event.ticket.job);
    if (event.t === "frame") this.#fenced(before, event.frame, after);
    for (const entry of entries)
      if (entry.type === "status") this.#tell(entry.job, String(entry.data.status));
    for (const job of after.jobs.values()) if (job !== this.jobs.get(job.id)) this.#job(job, after, now);
    for (const job of before.jobs.values())
      hold(after.jobs.has(job.id) || isTerminal(job), "J1 no job is dropped", () => `${job.id} is gone`);
    this.#time(before, after, now);
    this.#money(before, after);
    this.#notice(before, after, now);
    if (after.lease.status === "lost") this.lostAt ??= now;
    this.state = after;
  }

  /** What was only in memory never was. */
  rewind({ state, jobs, journal }: Disk): void {
    if (state === null) return;
    this.state = state;
    this.jobs = new Map(jobs);
    this.#told.clear();
    for (const { type, job, data } of journal)
      if (type === "status" && isStatus(String(data.status)))
        this.#told.set(job, JobStatus.parse(data.status));
  }

  /** J6: numbered without gap or double but where it was to skip (JOB-11), and only ever longer. */
  journal({ journal: lines, skips }: Pick<Disk, "journal" | "skips">): void {
    for (const line of lines.slice(this.#lines)) {
      const isNext = line.id === this.#last + 1;
      hold(
        isNext || (line.id > this.#last && skips.has(line.id - 1)),
        "J6 the journal has no gap and no double",
        () => `${this.id} line ${line.id} comes after ${this.#last}`,
      );
      this.#last = line.id;
    }
    hold(lines.length >= this.#lines, "J6 the journal forgets nothing", () => this.id);
    this.#lines = lines.length;
  }

  /** J3: what the provider signs at one place is one receipt. */
  providerSigned(digests: readonly { readonly sequence: number; readonly digest: string }[]): void {
    for (const { sequence, digest } of digests) {
      const known = this.#signed.get(sequence);
      hold(
        known === undefined || known === digest,
        "J3 one receipt for each sequence",
        () => `${this.id} signs ${sequence} twice`,
      );
      this.#signed.set(sequence, digest);
    }
  }

  #fenced(before: State, frame: Extract<Event, { t: "frame" }>["frame"], after: State): void {
    if (!("attempt" in frame)) return;
    const was = before.jobs.get(frame.job);
    const token = was === undefined ? undefined : currentAttempt(was)?.token;
    const isCurrent = token?.n === frame.attempt.n && token.epoch === frame.attempt.epoch;
    if (isCurrent || was === undefined || was.status === "queued") return;
    const is = after.jobs.get(frame.job);
    hold(
      is === was || is?.outputs === was.outputs,
      "J3 an older attempt is fenced off",
      () => `${frame.t} of ${runKey(frame.job, frame.attempt)} was believed`,
    );
  }

  #tell(job: JobId, status: string): void {
    const before = this.#told.get(job);
    const next = (before === undefined ? ["queued"] : FORWARD[before]).find((each) => each === status);
    hold(
      next !== undefined,
      "J6 the journal tells what happened in order",
      () => `${job}: ${before} -> ${status}`,
    );
    if (next !== undefined && isStatus(next)) this.#told.set(job, next);
  }

  #job(job: Job, after: State, now: number): void {
    const was = this.jobs.get(job.id);
    this.jobs.set(job.id, job);
    hold(
      this.#told.get(job.id) === job.status,
      "J6 the journal tells every status",
      () => `${job.id} is ${job.status}`,
    );
    if (was !== undefined && isTerminal(was)) {
      hold(
        was.status === job.status,
        "J4 an end is final",
        () => `${job.id}: ${was.status} -> ${job.status}`,
      );
      hold(
        was.price === job.price || receiptsOf(job).length < receiptsOf(was).length,
        "M2 the price of a job that has ended stands",
        () => job.id,
      );
    }
    if (was !== undefined)
      this.forgiven += receiptsOf(was).filter((each) => !receiptsOf(job).some((is) => isOf(is, each))).length;
    if (was?.status === "queued" && was.move === null && job.status === "aborted")
      hold(
        now <= latestEnd(was, after) + 1_000 || after.lease.status === "expired",
        "J1 a queue time-out is kept",
        () => `${job.id} waited ${now - was.queuedAt} ms of ${was.request.timeouts.queue_s} s`,
      );
    checkPrefetched(was, job, now);
    const inFlight = job.status === "starting" || job.status === "running" ? 1 : 0;
    for (const attempt of job.attempts.slice(0, job.attempts.length - inFlight))
      hold(attempt.endedAt !== null, "J4 only a closed attempt makes room for another", () => job.id);
    const elsewhere = job.past?.attempts ?? [];
    job.attempts.forEach((attempt, at) => {
      hold(attempt.token.n === elsewhere.length + at + 1, "J3 attempts are counted", () => job.id);
    });
    const spent = [...elsewhere, ...job.attempts].filter(
      ({ outcome }) => outcome !== YIELDED && outcome !== "node_draining" && outcome !== WITHDRAWN,
    );
    hold(spent.length <= job.request.retries + 1, "J3 retries are counted", () => job.id);
    const cost = costOf(job);
    hold(
      cost.price <= job.request.max_price,
      "M2 no job costs more than max_price",
      () => `${job.id} costs ${cost.price}`,
    );
    hold(
      cost.billedMs <= job.request.timeouts.execution_s * 1_000,
      "MTR-1 no more is billed than the time-out",
      () => job.id,
    );
    const prices = receiptsOf(job).reduce((sum, { receipt }) => sum + receipt.price, 0n);
    hold(job.price === prices, "M2 a price has receipts", () => `${job.id}: ${job.price} of ${prices}`);
    for (const each of job.kept)
      if (was === undefined || !was.kept.some((known) => isOf(known, each))) this.#keep(job, each.receipt);
    if (job.receipt !== null && was?.receipt?.receipt !== job.receipt.receipt) this.#charge(job, after, now);
    else if (!isTerminal(job))
      hold(job.receipt === null, "M2 nothing else is charged before the end", () => job.id);
  }

  /** J3: before the last attempt those are charged that gave way and kept what they had done, for that. */
  #keep(job: Job, { attempt: n, billedMs }: Receipt): void {
    const attempt = job.attempts.find(({ token }) => token.n === n);
    const runs = attempt === undefined ? [] : (this.#truth.runs.get(runKey(job.id, attempt.token)) ?? []);
    const run = runs.find(({ kept }) => kept !== null);
    hold(
      attempt?.outcome === YIELDED && run !== undefined,
      "J3 an attempt before the last is charged only with its checkpoint",
      () => `${job.id} attempt ${n}`,
    );
    hold(
      Number(billedMs) <= (run?.kept?.ms ?? 0) + ROUNDING_MS,
      "MTR-1 no more is billed than was kept",
      () => `${job.id} attempt ${n}: ${billedMs} ms of ${run?.kept?.ms}`,
    );
    if (n === attemptsOf(job))
      hold(
        job.checkpoint !== null && runs.some(({ kept }) => kept?.sha256 === job.checkpoint?.sha256),
        "CKP-1 what was paid for is there to go on from",
        () => `${job.id} attempt ${n}`,
      );
  }

  /** MTR-1, JOB-6: what is charged ran, on this lease's node, in the attempt that is charged, for at least so long. */
  #charge(job: Job, after: State, now: number): void {
    const attempt = currentAttempt(job);
    if (attempt === undefined || job.receipt === null) return;
    const { receipt } = job.receipt;
    const runs = this.#truth.runs.get(runKey(job.id, attempt.token)) ?? [];
    hold(receipt.attempt === attempt.token.n, "J3 the last attempt alone is charged", () => job.id);
    hold(receipt.node === after.lease.terms.providerSigner, "J3 a receipt names its node", () => job.id);
    const ran = Math.max(0, ...runs.map((run) => durationOf(run, now)));
    hold(
      Number(receipt.billedMs) <= ran + ROUNDING_MS,
      "MTR-1 no more is billed than ran",
      () => `${job.id} ran ${ran} ms and is billed ${receipt.billedMs} as ${job.status}`,
    );
    if (job.checkpoint !== null && after.lease.keeps)
      hold(
        runs.every(({ resumed }) => resumed === job.checkpoint?.sha256),
        "CKP-1 the next attempt goes on from what was paid for",
        () => job.id,
      );
    if (job.status === "succeeded")
      hold(
        runs.some((run) => run.output === job.outputs[0]?.sha256),
        "J3 the output is of the attempt that is charged",
        () => job.id,
      );
    hold(
      !this.#truth.isRepeated(runs),
      "J3 an attempt runs once to its end",
      () => `${job.id} ran ${runs.length} times`,
    );
  }

  /** MTR-9: time is billed once, for what the lease is worth by the clock, and for no more than has gone by. */
  #time(before: State, { lease }: State, now: number): void {
    const known = new Set(lease.ticks.map(({ receipt }) => receipt.receipt.sequence));
    for (const { receipt } of before.lease.ticks) {
      const { sequence } = receipt.receipt;
      if (receipt.settled !== null || known.has(sequence)) continue;
      this.forgiven += 1;
      this.ticks.delete(sequence);
    }
    for (const { receipt } of lease.ticks) this.ticks.set(receipt.receipt.sequence, receipt.receipt);
    hold(
      lease.spent === charged(tariffOf(lease), lease.billedMs),
      "MTR-12 a lease costs its time and, once, its start",
      () => `${this.id}: ${lease.billedMs} ms for ${lease.spent}`,
    );
    if (!isDedicated(lease)) return;
    const served = [...this.ticks.values()].reduce((sum, { billedMs }) => sum + Number(billedMs), 0);
    hold(
      served <= now - (lease.service.servingAt ?? now),
      "MTR-9 no more time is billed than has gone by",
      () => `${this.id} is billed ${served} ms`,
    );
    hold(
      lease.spent === charged(tariffOf(lease), served),
      "MTR-9 time costs what the terms say",
      () => `${this.id}: ${served} ms for ${lease.spent}`,
    );
    for (const job of this.jobs.values())
      hold(job.price === 0n, "MTR-9 jobs of a dedicated lease are free", () => job.id);
  }

  /** LSE-11: who is told to give way begins nothing, and has nothing running when the notice is over. */
  #notice(before: State, after: State, now: number): void {
    const { capacity, text } = after.lease;
    hold(
      capacity.yieldAt === null || text.tier === "yieldable",
      "LSE-11 a firm lease never gives way",
      () => this.id,
    );
    if (capacity.yieldAt === null || before.lease.capacity.yieldAt === null) return;
    for (const job of after.jobs.values()) {
      const was = before.jobs.get(job.id)?.status ?? "queued";
      hold(
        !isBegun(job.status) || was !== "queued" || this.#restored.has(job.id),
        "LSE-11 nothing begins in the notice",
        () => job.id,
      );
      hold(
        now < capacity.yieldAt || (job.status !== "starting" && job.status !== "running"),
        "LSE-11 nothing runs when the notice is over",
        () => `${job.id} is ${job.status}`,
      );
    }
  }

  #money(before: State, after: State): void {
    const { lease } = after;
    let prices = 0n;
    for (const { price } of this.ticks.values()) prices += price;
    for (const job of this.jobs.values()) prices += job.price;
    hold(
      lease.spent === prices,
      "M2 what is spent is what jobs and time cost",
      () => `${this.id}: ${lease.spent} of ${prices}`,
    );
    const funded = pledged(lease);
    const open = committed(after);
    if (lease.status !== "expired") {
      hold(
        open <= funded,
        "M2 no more is committed than is funded",
        () => `${this.id}: ${open} of ${funded}`,
      );
      hold(open <= ceiling(lease), "M5 no more is committed than is allowed", () => this.id);
    }
    hold(lease.settled >= before.lease.settled, "M5 what is settled only rises", () => this.id);
    hold(
      (lease.voucher?.cumulative ?? 0n) <= lease.spent,
      "M5 no voucher is above what was spent",
      () => this.id,
    );
    // One that came back by its ticket has run already.
    const busy = [...after.jobs.values()].filter(
      ({ id, status }) => (status === "starting" || status === "running") && !this.#restored.has(id),
    ).length;
    hold(busy <= sideBySide(lease.text), "C3 a lease runs no more than it may", () => this.id);
    checkTurns(after, busy);
    if (isOver(lease)) {
      hold(lease.end !== null, "J4 an end has a reason", () => this.id);
      for (const job of after.jobs.values())
        hold(isTerminal(job) || isLeaving(job), "J1 no job outlives its lease", () => job.id);
    }
  }
}

function isBegun(status: JobStatus): boolean {
  return status === "starting" || status === "running" || status === "succeeded";
}

function durationOf(run: Run, now: number): number {
  return (run.to ?? now) - run.from;
}

function isOf(a: ReceiptState, b: ReceiptState): boolean {
  return a.receipt.sequence === b.receipt.sequence;
}

function isStatus(status: string): status is JobStatus {
  return Object.hasOwn(FORWARD, status);
}
