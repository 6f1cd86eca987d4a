import type { ToLease } from "@gpux/protocol/frames";
import { type Bytes32, JobId, leaseIdOf } from "@gpux/protocol/ids";
import { inputHash } from "@gpux/protocol/job";
import { formatAmount } from "@gpux/protocol/money";
import { type FrameBody, leaseBody } from "../link/frames.ts";
import type { Log } from "../log.ts";
import { isConsumersAllowance } from "./allowance.ts";
import { type Attempt, Attempts, unheardMs } from "./attempts.ts";
import {
  type Book,
  type BookEntry,
  type Ended,
  findEnded,
  isDedicated,
  placesOf,
  sameAttempt,
  untoldEnds,
} from "./book.ts";
import { type AttemptEnd, type Executed, execute, keep, type Run, upload } from "./job.ts";
import { createSlots } from "./slots.ts";
import type { Workshop } from "./workshop.ts";

/** What the jobs of a lease need of it. */
export interface LeaseJobsOptions {
  readonly workshop: Workshop;
  readonly book: Book;
  readonly leaseId: Bytes32;
  readonly log: Log;
  readonly record: (entry: BookEntry) => void;
  readonly send: (body: FrameBody, durable: boolean) => number;
  readonly tell: (body: FrameBody) => void;
  /** Waits until the chain was read; null when the lease is served. */
  readonly refusal: () => Promise<string | null>;
  readonly covers: (allowed: bigint, committed: bigint) => Promise<string | null>;
  readonly onFault: (error: unknown) => void;
  readonly onChange: (what: "began" | "ended") => void;
}

/** The jobs of one lease on this machine, from `run` to the frame that tells their end. */
export interface LeaseJobs {
  readonly attempts: Attempts;
  begin(frame: Run): void;
  cancel(frame: Extract<ToLease, { t: "cancel" }>): void;
  /** Tells the end of an attempt again, unless it is on its way as it is. */
  tellAgain(ended: Ended): void;
  /** Begins nothing more. */
  close(): void;
}

const PROGRESS_EVERY_MS = 200;
/** A job that succeeds within this tells its begin with its end, in one frame for two. */
const STARTED_WITHIN_MS = 25;
const LOG_LINES = 1_000;

export function createLeaseJobs(options: LeaseJobsOptions): LeaseJobs {
  const { workshop, book, leaseId, log } = options;
  const { house, objects, executor, slots, exposure, gpu, prepare } = workshop;
  const { terms } = book;
  const attempts = new Attempts();
  /** As the edge counts them: one has its place from its turn until its end is told. */
  const places = createSlots(placesOf(book));
  let accepting = true;

  function tellAgain(ended: Ended): void {
    const onItsWay = untoldEnds(book).some(
      (each) => each.job === ended.job && sameAttempt(each.attempt, ended.attempt),
    );
    if (!onItsWay) options.send(ended.body, true);
  }

  function begin(frame: Run): void {
    // What a leaving agent does not begin is not in its next hello, so the edge gives it to another attempt.
    if (!accepting || attempts.find(frame.job, frame.attempt) !== undefined) return;
    const ended = findEnded(book, frame.job, frame.attempt);
    if (ended !== undefined) {
      tellAgain(ended);
      return;
    }
    for (const older of attempts.list()) if (older.job === frame.job) older.stop("fenced");
    const attempt = attempts.begin(frame.job, frame.attempt);
    let giveBack = () => {};
    void places
      .take(attempt.signal, frame.turn)
      .then((place) => {
        giveBack = place;
        attempt.waits = false;
        return work(frame, attempt);
      })
      .catch((error: unknown): AttemptEnd => {
        if (attempt.signal.aborted) return { t: "stopped", ms: attempt.ms };
        log({
          level: "error",
          event: "job.broken",
          text: `${frame.job}: ${error instanceof Error ? error.stack : error}`,
        });
        return { t: "failed", ms: 0, code: "executor_failed", detail: "The agent could not run the job." };
      })
      .then((end) => finish(frame, attempt, end))
      .catch(options.onFault)
      .finally(() => {
        giveBack();
        attempts.end(attempt);
        // One that was dropped before its turn has not begun.
        if (!attempt.waits) options.onChange("ended");
      });
  }

  async function work(frame: Run, attempt: Attempt): Promise<AttemptEnd> {
    const [missing, prepared] = await Promise.all([coverage(frame), prepare(frame, attempt.signal)]);
    attempt.signal.throwIfAborted();
    if (missing !== null) return { t: "failed", ms: 0, code: "terms_refused", detail: missing };
    if (!prepared.ok) return { t: "failed", ms: 0, code: prepared.code, detail: prepared.detail };
    if (!exposure.hasRoom()) {
      const owed = formatAmount(exposure.total());
      const text = `${frame.job} waits: ${owed} USDC were delivered that the meter has not signed for`;
      log({ level: "warn", event: "job.held", text, facts: { job: frame.job } });
      await exposure.room(attempt.signal);
    }
    const giveBack = await slots.take(attempt.signal);
    const told = listener(frame, attempt);
    try {
      const pause = frame.checkpoint === undefined ? undefined : attempt.pausing;
      const executed = await execute(executor, prepared.job, told, attempt.signal, pause);
      attempt.ms = executed.ms;
      attempt.executing = false;
      // The GPU is free for the next job while this one's outputs travel.
      giveBack();
      const end = await kept(frame, attempt, executed);
      // What it ran may have to be paid for, and the edge's clock begins with this.
      if (end.t !== "result") told.tellBegun();
      return end;
    } finally {
      told.end();
      attempt.executing = false;
      giveBack();
    }
  }

  /** What was made is in the store before its end is told. */
  async function kept(frame: Run, attempt: Attempt, executed: Executed): Promise<AttemptEnd> {
    const { ms } = executed;
    if (executed.t === "done") {
      const of = { lease: leaseIdOf(leaseId), job: frame.job, attempt: frame.attempt };
      return upload(objects, of, ms, executed.outputs, attempt.signal);
    }
    if (executed.t !== "paused") return executed;
    const checkpoint = await keep(objects, executed.state, attempt.signal);
    if (checkpoint !== null) return { t: "yielded", ms, checkpoint };
    // Then it has given way as one does that keeps nothing: free, and the edge needs no word of it.
    attempt.stop("yielded");
    return { t: "stopped", ms };
  }

  function listener(frame: Run, attempt: Attempt) {
    const { job, attempt: token } = frame;
    let told = 0;
    let lines = 0;
    let begunAt = 0;
    let untold: NodeJS.Timeout | null = null;
    const end = () => {
      if (untold !== null) clearTimeout(untold);
      untold = null;
    };
    const tellBegun = () => {
      if (untold === null) return;
      end();
      if (attempt.stopReason !== null && attempt.stopReason !== "canceled") return;
      log({ level: "info", event: "job.started", text: job, facts: { job } });
      const ms = Math.floor(performance.now() - begunAt);
      const seq = options.send(leaseBody({ t: "started", job, attempt: token, ms }), false);
      attempt.start = { seq, at: performance.now(), heardAt: null };
    };
    return {
      started() {
        attempt.executing = true;
        begunAt = performance.now();
        options.onChange("began");
        untold = setTimeout(tellBegun, STARTED_WITHIN_MS);
      },
      /** Says now that the attempt has begun, if it has and that was not said yet. */
      tellBegun,
      /** Its begin is not told any more. */
      end,
      progress(fraction: number, note: string | undefined) {
        const now = performance.now();
        if (attempt.stopReason !== null || (now - told < PROGRESS_EVERY_MS && fraction < 1)) return;
        told = now;
        tellBegun();
        const text = note === undefined ? {} : { note: note.slice(0, 200) };
        options.tell(leaseBody({ t: "progress", job, attempt: token, fraction, ...text }));
      },
      log(line: string) {
        lines += 1;
        if (attempt.stopReason !== null || lines > LOG_LINES) return;
        tellBegun();
        options.tell(leaseBody({ t: "log", job, attempt: token, line: line.slice(0, 4_000) }));
      },
    };
  }

  /** Null when the job will be paid: terms, chain and consumer agree to it. */
  async function coverage(frame: Run): Promise<string | null> {
    const { allowance } = frame;
    if (book.closing !== null) return "the lease's final usage is signed";
    if (allowance !== undefined && allowance.cumulative > (book.allowance?.cumulative ?? 0n)) {
      if (!(await isConsumersAllowance(terms, leaseId, allowance, house.hasher)))
        return "the allowance is not signed by the lease's consumer";
      options.record({ is: "allowance", allowance });
    }
    const reason = await options.refusal();
    if (reason !== null) return reason;
    return options.covers(book.allowance?.cumulative ?? 0n, frame.committed);
  }

  function cancel({ job, attempt }: Extract<ToLease, { t: "cancel" }>): void {
    const running = attempts.find(job, attempt);
    if (running !== undefined) {
      log({ level: "info", event: "job.cancel", text: job, facts: { job } });
      running.stop("canceled");
      return;
    }
    const ended = findEnded(book, job, attempt);
    if (ended === undefined) options.send(leaseBody({ t: "stopped", job, attempt, ms: 0, gpu }), true);
    else tellAgain(ended);
  }

  async function finish(frame: Run, attempt: Attempt, end: AttemptEnd): Promise<void> {
    // A fenced attempt is another's business by now; one that left with us or gave way runs again.
    const { stopReason } = attempt;
    if (stopReason === "fenced" || stopReason === "leaving" || stopReason === "yielded") return;
    const { job, attempt: token } = frame;
    const spec = { job, attempt: token, gpu, ms: end.ms };
    const body = leaseBody(
      end.t === "result"
        ? { ...spec, t: "result", outputs: end.outputs }
        : end.t === "failed"
          ? { ...spec, t: "failed", code: end.code, detail: end.detail.slice(0, 4_000) }
          : end.t === "yielded"
            ? { ...spec, t: "yielded", checkpoint: end.checkpoint }
            : { ...spec, t: "stopped" },
    );
    const rate = terms.ratePerHour;
    const affordableMs =
      rate === 0n || isDedicated(book)
        ? Number.MAX_SAFE_INTEGER
        : Number((frame.max_price * 3_600_000n) / rate);
    options.record({
      is: "ended",
      ended: {
        job: JobId.parse(job),
        attempt: token,
        inputHash: await inputHash(frame),
        payableMs: Math.min(frame.execution_ms, affordableMs),
        unheardMs: unheardMs(attempt, end.ms, performance.now()),
        body,
        ...(frame.ticket === undefined
          ? {}
          : { accepted: { function: frame.function, inputs: frame.inputs, ticket: frame.ticket } }),
      },
    });
    options.send(body, true);
    const text =
      end.t === "failed" ? `${job} failed: ${end.code}: ${end.detail}` : `${job} ${end.t} after ${end.ms} ms`;
    log({
      level: end.t === "failed" ? "warn" : "info",
      event: `job.${end.t}`,
      text,
      facts: { job, ms: end.ms },
    });
  }

  return {
    attempts,
    begin,
    cancel,
    tellAgain,
    close() {
      accepting = false;
    },
  };
}
