import type { ToLease } from "@gpux/protocol/frames";
import { type Bytes32, JobId, type LeaseId, leaseIdOf } from "@gpux/protocol/ids";
import { inputHash } from "@gpux/protocol/job";
import type { Resources } from "@gpux/protocol/resources";
import type { House } from "../control/admission.ts";
import type { Executor, FunctionJob } from "../executors/executor.ts";
import type { Journal } from "../journal.ts";
import { type Credentials, socketUrl, upgradeHeaders } from "../link/credentials.ts";
import { leaseBody, parseToLease } from "../link/frames.ts";
import type { LinkEnd } from "../link/machine.ts";
import { createLink, type Link } from "../link/socket.ts";
import type { Log } from "../log.ts";
import { isConsumersAllowance } from "./allowance.ts";
import { type Attempt, Attempts } from "./attempts.ts";
import {
  type Book,
  type BookEntry,
  type Ended,
  enter,
  entriesOf,
  findEnded,
  jobName,
  sameAttempt,
  untoldEnds,
} from "./book.ts";
import type { Chain } from "./chain.ts";
import { createFunding } from "./funding.ts";
import { type AttemptEnd, execute, prepare, type RunFrame, upload } from "./job.ts";
import type { Objects } from "./objects.ts";
import type { Signer } from "./receipts.ts";
import { answerClose, answerSettle, type SigningDesk } from "./signing.ts";
import type { Slots } from "./slots.ts";

/** What all leases of a node share. */
export interface Workshop {
  readonly house: House;
  readonly credentials: Credentials;
  readonly chain: Chain;
  readonly objects: Objects;
  readonly executor: Executor<FunctionJob>;
  readonly slots: Slots;
  /** How results and receipts name the GPU. */
  readonly gpu: string;
  readonly log: Log;
}

export interface LeaseOptions {
  readonly workshop: Workshop;
  readonly id: LeaseId;
  readonly book: Book;
  readonly journal: Journal<BookEntry>;
  /** The link is over for good; after `gone` the lease is to be forgotten. */
  readonly onEnd: (end: LinkEnd) => void;
  readonly onFault: (error: unknown) => void;
  readonly onChange: () => void;
}

/** A lease that this node serves. */
export interface ServedLease {
  readonly id: LeaseId;
  readonly resources: Resources;
  start(): void;
  /** Attempts on the executor now. */
  executing(): number;
  /** Starts nothing more, waits at most `ms` for what runs, and at most as long again as a flush takes. */
  drain(ms: number): Promise<void>;
  /** Leaves at once; the journal stays for the next start. */
  stop(): Promise<void>;
  /** The lease is over: nothing of it stays. */
  forget(): Promise<void>;
}

/** A journal shorter than this is not worth rewriting. */
const COMPACT_LINES = 512;
const FLUSH_MS = 5_000;
const PROGRESS_EVERY_MS = 200;
const LOG_LINES = 1_000;
/** The executor ends an aborted job at once; more than this is a hung one. */
const CUT_OFF_MS = 10_000;
/** As many as one hello may name. */
const HELLO_ATTEMPTS = 1_024;

/** Serves one lease over its data socket: runs its jobs, signs its vouchers, and writes down what must not be lost. */
export function serveLease(options: LeaseOptions): ServedLease {
  const { workshop, id, book, journal } = options;
  const { house, credentials, objects, executor, slots, gpu } = workshop;
  const { hasher } = house;
  const { terms } = book;
  const leaseId: Bytes32 = hasher.leaseTerms(terms);
  const self: Signer = { address: house.address, leaseId, hasher };
  const log: Log = (entry) => workshop.log({ ...entry, facts: { lease: id, ...entry.facts } });
  const leaving = new AbortController();
  const funding = createFunding(workshop.chain, leaseId, log, leaving.signal);
  const attempts = new Attempts();
  let welcomed = false;
  let { refusal } = book;
  let accepting = true;

  const record = (entry: BookEntry) => {
    enter(book, entry);
    journal.append(entry);
  };
  const compact = () => {
    if (journal.length < COMPACT_LINES) return;
    const entries = entriesOf(book);
    if (journal.length > 4 * entries.length) journal.rewrite(entries).catch(options.onFault);
  };
  const desk: SigningDesk = {
    book,
    self,
    account: credentials.account,
    persist: (entry) => {
      record(entry);
      return journal.sync();
    },
  };

  const url = socketUrl(house.config.edge, `/v1/agent/leases/${id}`);
  const link: Link = createLink<ToLease>({
    url,
    headers: () => upgradeHeaders(credentials, url),
    parse: parseToLease,
    hello: () => leaseBody({ t: "hello", attempts: openAttempts(), last_seq: book.dealt }),
    onWelcome,
    onFrame,
    onState: (state, detail) => {
      if (state.state === "up") log({ level: "info", event: "lease.online", text: `${id} is connected` });
      if (state.state === "waiting" && detail !== "")
        log({ level: "warn", event: "lease.offline", text: `${id} lost its socket: ${detail}` });
    },
    onEnd: options.onEnd,
    onFault: options.onFault,
    resume: { frames: book.frames, nextSeq: book.nextSeq, dealt: book.dealt },
    store: {
      sent: (seq, body) => record({ is: "sent", seq, body }),
      acknowledged: (seq) => {
        record({ is: "acknowledged", seq });
        compact();
      },
      dealt: (seq) => record({ is: "dealt", seq }),
      sync: () => journal.sync(),
    },
  });

  /**
   * Also those whose end the edge has acknowledged, until their receipt is signed: an edge that lost what it had
   * acknowledged then asks for the result instead of having the job run again.
   */
  function openAttempts() {
    const running = attempts.list().filter((each) => each.stopReason === null);
    const all = [...untoldEnds(book), ...running, ...[...book.ended.values()].flat()];
    const named = new Map(
      all.map(({ job, attempt }) => [`${job} ${attempt.epoch} ${attempt.n}`, { job, attempt }]),
    );
    return [...named.values()].slice(0, HELLO_ATTEMPTS);
  }

  /** Tells the end of an attempt again, unless it is on its way as it is. */
  function tellAgain(ended: Ended): void {
    const onItsWay = untoldEnds(book).some(
      (each) => each.job === ended.job && sameAttempt(each.attempt, ended.attempt),
    );
    if (!onItsWay) link.send(ended.body, true);
  }

  function onWelcome(frame: Extract<ToLease, { t: "welcome" }>): void {
    if (leaseIdOf(hasher.leaseTerms(frame.terms)) !== id) refuse("the welcome's terms are not this lease's");
    for (const attempt of attempts.list()) {
      const wanted = frame.attempts.some(
        (each) => each.job === attempt.job && sameAttempt(each.attempt, attempt.attempt),
      );
      if (!wanted) attempt.stop("fenced");
    }
    for (const { job, attempt } of frame.attempts) {
      const ended = findEnded(book, job, attempt);
      if (ended !== undefined) tellAgain(ended);
    }
    if (welcomed) return;
    welcomed = true;
    if (refusal !== null) {
      refuse(refusal);
      return;
    }
    funding.verified().then((reason) => {
      if (reason !== null) refuse(reason);
      else log({ level: "info", event: "lease.verified", text: `${id} is open and funded on chain` });
    }, ignoreLeaving);
  }

  /** Waits that end because the lease does are no faults. */
  function ignoreLeaving(error: unknown): void {
    if (!leaving.signal.aborted) options.onFault(error);
  }

  function refuse(reason: string): void {
    refusal = reason;
    log({ level: "error", event: "lease.refused", text: `${id} is refused: ${reason}` });
    link.send(leaseBody({ t: "refused", what: "lease", reason: reason.slice(0, 400) }), true);
  }

  async function onFrame(frame: Exclude<ToLease, { t: "welcome" | "ack" }>): Promise<void> {
    switch (frame.t) {
      case "run":
        begin(frame);
        return;
      case "cancel":
        cancel(frame);
        return;
      case "settle": {
        // A job that was cut off is billed when its cancel is sent: let it end here too before judging the bill.
        const billed = new Set(frame.receipts.map((receipt) => receipt.job));
        await attempts.endedAmong((job) => billed.has(jobName(job)), CUT_OFF_MS);
        const body = await answerSettle(desk, { usage: frame.usage, receipts: frame.receipts });
        tellSigning(body);
        link.send(leaseBody(body), true);
        return;
      }
      case "close": {
        const { cumulative, evidence, valid_before } = frame;
        const nowS = Math.floor(Date.now() / 1_000);
        const body = await answerClose(desk, { cumulative, evidence, valid_before }, nowS);
        tellSigning(body);
        link.send(leaseBody(body), true);
        return;
      }
    }
  }

  function tellSigning(body: Awaited<ReturnType<typeof answerSettle>>): void {
    if (body.t === "refused")
      log({ level: "error", event: `${body.what}.refused`, text: `${id}: not signed: ${body.reason}` });
    else log({ level: "info", event: body.t, text: `${id}: usage ${book.signed.cumulative} base units` });
  }

  function begin(frame: RunFrame): void {
    // What a leaving agent does not begin is not in its next hello, so the edge gives it to another attempt.
    if (!accepting || attempts.find(frame.job, frame.attempt) !== undefined) return;
    const ended = findEnded(book, frame.job, frame.attempt);
    if (ended !== undefined) {
      tellAgain(ended);
      return;
    }
    for (const older of attempts.list()) if (older.job === frame.job) older.stop("fenced");
    const attempt = attempts.begin(frame.job, frame.attempt);
    void work(frame, attempt)
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
        attempts.end(attempt);
        options.onChange();
      });
  }

  async function work(frame: RunFrame, attempt: Attempt): Promise<AttemptEnd> {
    const [missing, prepared] = await Promise.all([
      coverage(frame),
      prepare(frame, objects, house.config.limits, attempt.signal),
    ]);
    attempt.signal.throwIfAborted();
    if (missing !== null) return { t: "failed", ms: 0, code: "terms_refused", detail: missing };
    if (!prepared.ok) return { t: "failed", ms: 0, code: prepared.code, detail: prepared.detail };
    const giveBack = await slots.take(attempt.signal);
    try {
      const executed = await execute(executor, prepared.job, listener(frame, attempt), attempt.signal);
      attempt.ms = executed.ms;
      attempt.executing = false;
      if (executed.t !== "done") return executed;
      // The GPU is free for the next job while this one's outputs travel.
      giveBack();
      return await upload(objects, executed.ms, executed.outputs, attempt.signal);
    } finally {
      attempt.executing = false;
      giveBack();
    }
  }

  function listener(frame: RunFrame, attempt: Attempt) {
    const { job, attempt: token } = frame;
    let told = 0;
    let lines = 0;
    return {
      started() {
        attempt.executing = true;
        options.onChange();
        if (attempt.stopReason !== null) return;
        log({ level: "info", event: "job.started", text: job, facts: { job } });
        link.send(leaseBody({ t: "started", job, attempt: token }));
      },
      progress(fraction: number, note: string | undefined) {
        const now = performance.now();
        if (attempt.stopReason !== null || (now - told < PROGRESS_EVERY_MS && fraction < 1)) return;
        told = now;
        const text = note === undefined ? {} : { note: note.slice(0, 200) };
        link.tell(leaseBody({ t: "progress", job, attempt: token, fraction, ...text }));
      },
      log(line: string) {
        lines += 1;
        if (attempt.stopReason !== null || lines > LOG_LINES) return;
        link.tell(leaseBody({ t: "log", job, attempt: token, line: line.slice(0, 4_000) }));
      },
    };
  }

  /** Null when the job will be paid: terms, chain and consumer agree to it. */
  async function coverage(frame: RunFrame): Promise<string | null> {
    const { allowance } = frame;
    if (book.closing !== null) return "the lease's final usage is signed";
    if (allowance !== undefined && allowance.cumulative > (book.allowance?.cumulative ?? 0n)) {
      if (!(await isConsumersAllowance(terms, leaseId, allowance, hasher)))
        return "the allowance is not signed by the lease's consumer";
      record({ is: "allowance", allowance });
    }
    const reason = refusal ?? (await funding.verified());
    if (reason !== null) return reason;
    return funding.covers(terms, book.allowance?.cumulative ?? 0n, frame.committed);
  }

  function cancel({ job, attempt }: Extract<ToLease, { t: "cancel" }>): void {
    const running = attempts.find(job, attempt);
    if (running !== undefined) {
      log({ level: "info", event: "job.cancel", text: job, facts: { job } });
      running.stop("canceled");
      return;
    }
    const ended = findEnded(book, job, attempt);
    if (ended === undefined) link.send(leaseBody({ t: "stopped", job, attempt, ms: 0, gpu }), true);
    else tellAgain(ended);
  }

  async function finish(frame: RunFrame, attempt: Attempt, end: AttemptEnd): Promise<void> {
    // A fenced attempt is another's business by now, and one that left with us runs again.
    if (attempt.stopReason === "fenced" || attempt.stopReason === "leaving") return;
    const { job, attempt: token } = frame;
    const spec = { job, attempt: token, gpu, ms: end.ms };
    const body = leaseBody(
      end.t === "result"
        ? { ...spec, t: "result", outputs: end.outputs }
        : end.t === "failed"
          ? { ...spec, t: "failed", code: end.code, detail: end.detail.slice(0, 4_000) }
          : { ...spec, t: "stopped" },
    );
    const rate = terms.ratePerHour;
    const affordableMs =
      rate === 0n ? Number.MAX_SAFE_INTEGER : Number((frame.max_price * 3_600_000n) / rate);
    record({
      is: "ended",
      ended: {
        job: JobId.parse(job),
        attempt: token,
        inputHash: await inputHash(frame),
        payableMs: Math.min(frame.execution_ms, affordableMs),
        body,
      },
    });
    link.send(body, true);
    const text =
      end.t === "failed" ? `${job} failed: ${end.code}: ${end.detail}` : `${job} ${end.t} after ${end.ms} ms`;
    log({
      level: end.t === "failed" ? "warn" : "info",
      event: `job.${end.t}`,
      text,
      facts: { job, ms: end.ms },
    });
  }

  function leave(): void {
    accepting = false;
    for (const attempt of attempts.list()) attempt.stop("leaving");
    leaving.abort(new Error("the lease is left"));
    link.stop();
  }

  return {
    id,
    resources: book.resources,
    start: () => link.start(),
    executing: () => attempts.list().filter((each) => each.executing).length,
    async drain(ms) {
      accepting = false;
      for (const attempt of attempts.list())
        if (!attempt.executing && attempt.ms === 0) attempt.stop("leaving");
      await Promise.race([attempts.ended(), after(ms)]);
      await link.flushed(FLUSH_MS);
    },
    async stop() {
      leave();
      await attempts.ended();
      await journal.close();
    },
    async forget() {
      leave();
      await attempts.ended();
      await journal.remove();
    },
  };
}

function after(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref();
  });
}
