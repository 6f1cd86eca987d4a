import type { Share } from "@gpux/protocol/capacity";
import type { ToLease } from "@gpux/protocol/frames";
import { type Bytes32, type LeaseId, leaseIdOf } from "@gpux/protocol/ids";
import type { Journal } from "../journal.ts";
import { socketUrl, upgradeHeaders } from "../link/credentials.ts";
import { dueBy, leaseBody, ownClock, parseToLease } from "../link/frames.ts";
import type { LinkEnd } from "../link/machine.ts";
import { createLink, type Link } from "../link/socket.ts";
import type { Log } from "../log.ts";
import {
  acceptanceOf,
  type Book,
  type BookEntry,
  countedMs,
  enter,
  entriesOf,
  findEnded,
  isDedicated,
  jobName,
  sameAttempt,
  untoldEnds,
} from "./book.ts";
import { createFunding } from "./funding.ts";
import { createLeaseJobs } from "./jobs.ts";
import { pauseAfter } from "./notice.ts";
import type { Signer } from "./receipts.ts";
import { createServiceClock } from "./service-clock.ts";
import { answerClose, answerSettle, type SigningDesk } from "./signing.ts";
import { putAside, voucherOf } from "./vouchers.ts";
import type { Workshop } from "./workshop.ts";

export interface LeaseOptions {
  readonly workshop: Workshop;
  readonly id: LeaseId;
  readonly book: Book;
  readonly journal: Journal<BookEntry>;
  /** The link is over for good; after `gone` the lease is to be forgotten. */
  readonly onEnd: (end: LinkEnd) => void;
  readonly onFault: (error: unknown) => void;
  /** A job began or ended. */
  readonly onChange: (what: "began" | "ended") => void;
}

/** A lease that this node serves. */
export interface ServedLease extends Share {
  readonly id: LeaseId;
  start(): void;
  /** Others may have its resources: it is here for its last signatures alone. */
  isResting(): boolean;
  /** Whether an attempt has begun and is not being broken off. */
  isWorking(): boolean;
  /** Its resources are its own again. Resolves when a restart would know it too. */
  rouse(): Promise<void>;
  /** Others may have its resources: leaves, and the next start will know why. */
  rest(): Promise<void>;
  /** LSE-11: its GPUs are taken back in so long: says so, tells the executor, and stops what runs then. */
  yield(noticeS: number): void;
  /** Attempts on the executor now. */
  executing(): number;
  /**
   * LSE-10: says so, starts nothing more, waits so long for what runs, then a little for the lease's close to be asked
   * for, and until the edge has all that was said.
   */
  drain(deadlineS: number): Promise<void>;
  /** Leaves at once; the journal stays for the next start. */
  stop(): Promise<void>;
  /** The lease is over: nothing of it stays but a voucher that could still pay. */
  forget(): Promise<void>;
}

/** A journal shorter than this is not worth rewriting. */
export const COMPACT_LINES = 512;
const FLUSH_MS = 5_000;
/** From the last job's end until the edge has asked for its receipt's and the lease's last signature. */
const CLOSE_MS = 5_000;
/** The executor ends an aborted job at once; more than this is a hung one. */
const CUT_OFF_MS = 10_000;
const SYNC_MS = 25;
/** A hello must fit into one frame; the edge has far fewer open on one lease. */
const HELLO_ATTEMPTS = 400;

/** Serves one lease over its data socket: runs its jobs, signs its vouchers, and writes down what must not be lost. */
export function serveLease(options: LeaseOptions): ServedLease {
  const { workshop, id, book, journal } = options;
  const { house, credentials } = workshop;
  const { hasher } = house;
  const { terms } = book;
  const { chain_id: chainId, escrow } = house.config;
  const leaseId: Bytes32 = hasher.leaseTerms(terms);
  const self: Signer = { address: house.address, leaseId, hasher };
  const log: Log = (entry) => workshop.log({ ...entry, facts: { lease: id, ...entry.facts } });
  const leaving = new AbortController();
  const funding = createFunding({
    chain: workshop.chain,
    leaseId,
    safeAbove: house.config.safe_above,
    log,
    signal: leaving.signal,
  });
  const clock = createServiceClock(countedMs(book));
  let welcomed = false;
  let isUp = false;
  /** The final usage was asked for, and is answered; or nobody will ask any more. */
  const closed = Promise.withResolvers<void>();
  let { refusal } = book;
  /** Its notice is over: what the edge sent before it heard of that is not begun. */
  let hasGivenWay = false;

  const record = (entry: BookEntry) => {
    enter(book, entry);
    journal.append(entry);
    if (entry.is === "voucher") workshop.exposure.secured();
  };
  workshop.exposure.add(id, book);
  const compact = () => {
    if (journal.length < COMPACT_LINES) return;
    const entries = entriesOf(book);
    if (journal.length > 4 * entries.length) journal.rewrite(entries).catch(options.onFault);
  };
  // An end leaves when a kill cannot take it any more; a loss of power takes this much of what is unsigned.
  let isSyncing = false;
  const syncSoon = () => {
    if (isSyncing) return;
    isSyncing = true;
    setTimeout(() => {
      isSyncing = false;
      journal.sync().catch(options.onFault);
    }, SYNC_MS);
  };
  const desk: SigningDesk = {
    book,
    self,
    account: credentials.account,
    funded: () => funding.funded(),
    persist: (entry) => {
      record(entry);
      return journal.sync();
    },
  };

  const jobs = createLeaseJobs({
    workshop,
    book,
    leaseId,
    log,
    record,
    send: (body, durable) => link.send(body, durable),
    tell: (body) => link.tell(body),
    refusal: async () => refusal ?? (await funding.verified()),
    covers: (allowed, committed) => funding.covers(terms, allowed, committed),
    onFault: options.onFault,
    onChange: options.onChange,
  });
  const { attempts } = jobs;

  const url = socketUrl(house.config.edge, `/v1/agent/leases/${id}`);
  const link: Link = createLink<ToLease>({
    url,
    headers: () => upgradeHeaders(credentials, url),
    onUnsigned: credentials.clock.refusedAt,
    parse: parseToLease,
    hello: () =>
      leaseBody({
        t: "hello",
        attempts: openAttempts(),
        last_seq: book.dealt,
        checkpoints: true,
        prefetches: true,
      }),
    onWelcome,
    preface: (body) => acceptanceOf(book, body),
    onFrame,
    onState: (state, detail) => {
      if (isUp && state.state !== "up") clock.cut(link.heardAt());
      isUp = state.state === "up";
      if (state.state === "up") log({ level: "info", event: "lease.online", text: `${id} is connected` });
      if (state.state === "waiting" && detail !== "")
        log({ level: "warn", event: "lease.offline", text: `${id} lost its socket: ${detail}` });
    },
    onEnd: (end) => {
      closed.resolve();
      options.onEnd(end);
    },
    onFault: options.onFault,
    resume: { frames: [...book.frames], nextSeq: book.nextSeq, dealt: book.dealt },
    store: {
      sent: (seq, body) => record({ is: "sent", seq, body }),
      acknowledged: (seq) => {
        attempts.heard(seq, performance.now());
        record({ is: "acknowledged", seq });
        compact();
      },
      dealt: (seq) => record({ is: "dealt", seq }),
      written: () => {
        syncSoon();
        return journal.written();
      },
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
      if (ended !== undefined) jobs.tellAgain(ended);
    }
    if (welcomed) return;
    welcomed = true;
    if (refusal !== null) {
      refuse(refusal);
      return;
    }
    funding.verified().then((reason) => {
      if (reason !== null) return refuse(reason);
      log({ level: "info", event: "lease.verified", text: `${id} is open and funded on chain` });
      if (isDedicated(book)) link.send(leaseBody({ t: "serving" }), true);
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
        if (!hasGivenWay) jobs.begin(frame);
        return;
      case "runs":
        if (!hasGivenWay) for (const run of frame.runs) jobs.begin(run);
        return;
      case "cancel":
        jobs.cancel(frame);
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
        closed.resolve();
        return;
      }
      case "tick": {
        clock.run(frame.runs);
        const { n } = frame;
        const ms = clock.total();
        await desk.persist({ is: "served", n, ms });
        link.tell(leaseBody({ t: "served", n, ms }));
        return;
      }
      case "voucher":
        await keepVoucher(frame);
        return;
    }
  }

  /** LNK-7: the edge says it again after every hello, so most are known. */
  async function keepVoucher(frame: Extract<ToLease, { t: "voucher" }>): Promise<void> {
    if (frame.meter_signature === book.voucher?.meter) return;
    const voucher = await voucherOf(desk, frame);
    if (voucher !== null) await desk.persist({ is: "voucher", voucher });
    else
      log({ level: "warn", event: "voucher.refused", text: `${id}: a voucher that is none was passed over` });
  }

  function tellSigning(body: Awaited<ReturnType<typeof answerSettle>>): void {
    if (body.t === "refused")
      log({ level: "error", event: `${body.what}.refused`, text: `${id}: not signed: ${body.reason}` });
    else log({ level: "info", event: body.t, text: `${id}: usage ${book.signed.cumulative} base units` });
  }

  function leave(): void {
    workshop.exposure.remove(id);
    jobs.close();
    for (const attempt of attempts.list()) attempt.stop("leaving");
    leaving.abort(new Error("the lease is left"));
    link.stop();
  }

  return {
    id,
    gpus: book.gpus,
    resources: book.resources,
    start: () => link.start(),
    isResting: () => book.resting,
    isWorking: () => attempts.list().some((each) => each.stopReason === null),
    async rouse() {
      hasGivenWay = false;
      if (book.resting) await desk.persist({ is: "resting", resting: false });
    },
    async rest() {
      await desk.persist({ is: "resting", resting: true });
      leave();
      await journal.close();
    },
    yield(noticeS) {
      link.send(dueBy(leaseBody({ t: "yield", notice_s: noticeS }), ownClock() + noticeS * 1_000), true);
      // Nothing is begun in a notice: the edge gives these to another attempt.
      for (const attempt of attempts.list()) if (attempt.waits) attempt.stop("yielded");
      if (attempts.list().length > 0) workshop.executor.yieldSoon?.(noticeS * 1_000);
      const timers = [
        setTimeout(
          () => {
            for (const attempt of attempts.list()) attempt.pause();
          },
          pauseAfter(noticeS * 1_000),
        ),
        setTimeout(() => {
          hasGivenWay = true;
          for (const attempt of attempts.list()) attempt.stop("yielded");
        }, noticeS * 1_000),
      ];
      leaving.signal.addEventListener("abort", () => timers.forEach(clearTimeout));
    },
    executing: () => attempts.list().filter((each) => each.executing).length,
    async drain(deadlineS) {
      jobs.close();
      const until = ownClock() + deadlineS * 1_000;
      link.send(dueBy(leaseBody({ t: "drain", deadline_s: deadlineS }), until), true);
      for (const attempt of attempts.list())
        if (!attempt.executing && attempt.ms === 0) attempt.stop("leaving");
      await Promise.race([attempts.ended(), after(deadlineS * 1_000)]);
      for (const attempt of attempts.list()) attempt.stop("leaving");
      if (isUp && !book.resting) await Promise.race([closed.promise, after(CLOSE_MS)]);
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
      await putAside(workshop.paths, { chainId, escrow }, { id, book }, workshop.chain);
      await journal.remove();
    },
  };
}

function after(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref();
  });
}
