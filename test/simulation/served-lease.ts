import {
  acceptanceOf,
  type Book,
  type BookEntry,
  countedMs,
  enter,
  entriesOf,
  isDedicated,
  jobName,
  sameAttempt,
} from "@gpux/agent/leases/book";
import { pauseAfter } from "@gpux/agent/leases/notice";
import { createServiceClock, type ServiceClock } from "@gpux/agent/leases/service-clock";
import { dueBy, leaseBody } from "@gpux/agent/link/frames";
import type { LinkEnd } from "@gpux/agent/link/machine";
import { type FromLease, FromLease as FromLeaseFrame, type ToLease } from "@gpux/protocol/frames";
import { type Bytes32, type JobId, type LeaseId, leaseIdOf } from "@gpux/protocol/ids";
import type { SettleIntent } from "@gpux/protocol/intent";
import type { AttemptToken } from "@gpux/protocol/job";
import type { z } from "zod";
import type { Flow } from "./actor.ts";
import { Attempts, type Run } from "./attempts.ts";
import type { Journal } from "./journal.ts";
import { Link } from "./link.ts";
import { type Setting, sleep } from "./setting.ts";
import type { Workshop } from "./workshop.ts";

/** As in agent/leases. */
const NOT_YET_MS = 60_000;
const CUT_OFF_MS = 10_000;
const TOP_UP_READS = 4;

export interface ServedOptions {
  readonly setting: Setting;
  readonly machine: Workshop;
  readonly id: LeaseId;
  readonly book: Book;
  readonly journal: Journal<BookEntry>;
  readonly onEnd: (end: LinkEnd) => void;
}

/** More attempts than any job has: a lie about the very next would be the truth by the time it is heard. */
const NEVER = 100;

/** The shell of agent/leases/lease.ts and signing.ts over the same book and checks, in virtual time. */
export class ServedLease {
  readonly id: LeaseId;
  readonly hash: Bytes32;
  readonly book: Book;
  readonly attempts: Attempts;
  readonly link: Link<FromLease, ToLease>;
  readonly #options: ServedOptions;
  readonly #clock: ServiceClock;
  #welcomed = false;
  #refusal: string | null;
  #left = false;
  #hasGivenWay = false;
  /** What the escrow held when it was last read. */
  #funded: bigint | null = null;
  #verifying: { done: boolean; reason: string | null } | null = null;

  constructor(options: ServedOptions) {
    this.#options = options;
    this.id = options.id;
    const { setting, machine, book, journal } = options;
    this.book = book;
    this.#refusal = book.refusal;
    this.#clock = createServiceClock(countedMs(book), () => setting.schedule.now);
    this.hash = setting.hasher.leaseTerms(book.terms);
    this.attempts = new Attempts({
      setting,
      machine,
      lease: this.id,
      book,
      record: (entry) => this.#record(entry),
      send: (body, durable) => this.link.send(body, durable),
      coverage: (frame) => this.#coverage(frame),
    });
    const lease = setting.lease(this.id);
    this.link = new Link<FromLease, ToLease>({
      agent: machine.actor,
      setting,
      name: `${machine.actor.name} ${lease.name}`,
      dial: (end) => ({ actor: lease, upgrade: () => lease.accept(machine.address, end) }),
      parse: (wire) => FromLeaseFrame.parse(wire),
      hello: () =>
        leaseBody({
          t: "hello",
          attempts: this.#openAttempts(),
          last_seq: book.dealt,
          ...(machine.keeps ? { checkpoints: true } : {}),
          ...(machine.prefetches ? { prefetches: true } : {}),
        }),
      onWelcome: (frame) => this.#onWelcome(frame),
      preface: (body) => acceptanceOf(book, body),
      onFrame: (frame) => this.#onFrame(frame),
      onEnd: options.onEnd,
      onDown: (heardAt) => this.#clock.cut(heardAt),
      resume: { frames: [...book.frames], nextSeq: book.nextSeq, dealt: book.dealt },
      store: {
        sent: (seq, body) => this.#record({ is: "sent", seq, body }),
        acknowledged: (seq) => {
          this.attempts.heard(seq);
          this.#record({ is: "acknowledged", seq });
          if (journal.entries.length > 60) journal.rewrite(entriesOf(book));
        },
        dealt: (seq) => this.#record({ is: "dealt", seq }),
        synced: (then) => journal.synced(machine.actor, then),
      },
    });
  }

  /** Leaves at once; what runs is broken off. */
  leave(): void {
    this.#left = true;
    this.attempts.close();
    for (const attempt of this.attempts.list()) attempt.stop("leaving");
    this.link.stop();
  }

  /** Its resources are its own again. */
  *rouse(): Flow<void> {
    this.#hasGivenWay = false;
    if (this.book.resting) yield* this.#persist({ is: "resting", resting: false });
  }

  /** Others may have its resources; the next start will know why it is not served. */
  *rest(): Flow<void> {
    yield* this.#persist({ is: "resting", resting: true });
    this.leave();
  }

  /** LSE-10: says that the machine stops, and starts nothing more. */
  drain(ms: number): void {
    const body = leaseBody({ t: "drain", deadline_s: Math.floor(ms / 1_000) });
    this.link.send(dueBy(body, this.#options.setting.schedule.now + ms), true);
    this.attempts.close();
    for (const attempt of this.attempts.list())
      if (!attempt.executing && attempt.ms === 0) attempt.stop("leaving");
  }

  /** LSE-11: its GPUs are taken back in so long: says so, and stops what runs then. */
  giveWayIn(ms: number): void {
    const { schedule } = this.#options.setting;
    const until = schedule.now + ms;
    const body = leaseBody({ t: "yield", notice_s: Math.floor(ms / 1_000) });
    this.link.send(dueBy(body, until), true);
    for (const attempt of this.attempts.list()) if (attempt.waits) attempt.stop("yielded");
    schedule.at(schedule.now + pauseAfter(ms), `${this.id.slice(0, 9)} pauses`, () => {
      if (!this.#left) for (const attempt of this.attempts.list()) attempt.pause();
    });
    schedule.at(until, `${this.id.slice(0, 9)} gives way`, () => {
      this.#hasGivenWay = true;
      if (!this.#left) for (const attempt of this.attempts.list()) attempt.stop("yielded");
    });
  }

  /** Claims the end of another attempt than the one that was asked for: an older one, or one that never comes. */
  lie({ job, attempt }: { readonly job: JobId; readonly attempt: AttemptToken }): void {
    const { gpu } = this.#options.machine;
    const other = { epoch: attempt.epoch, n: attempt.n > 1 ? attempt.n - 1 : attempt.n + NEVER };
    const output = { name: "out", content_type: "text/plain", bytes: 1, sha256: "0".repeat(64) };
    this.link.send(leaseBody({ t: "result", job, attempt: other, ms: 1, gpu, outputs: [output] }), true);
  }

  #record(entry: BookEntry): void {
    enter(this.book, entry);
    this.#options.journal.append(entry);
  }

  #openAttempts() {
    const running = this.attempts.list().filter((each) => each.stopReason === null);
    const all = [...this.#options.setting.machines.agent.endedAttempts(this.book), ...running];
    const named = new Map(
      all.map(({ job, attempt }) => [`${job} ${attempt.epoch} ${attempt.n}`, { job, attempt }]),
    );
    return [...named.values()];
  }

  #onWelcome(frame: Extract<ToLease, { t: "welcome" }>): void {
    const { setting, machine } = this.#options;
    if (leaseIdOf(setting.hasher.leaseTerms(frame.terms)) !== this.id)
      this.#refuse("the terms are not this lease's");
    for (const attempt of this.attempts.list())
      if (
        !frame.attempts.some((each) => each.job === attempt.job && sameAttempt(each.attempt, attempt.attempt))
      )
        attempt.stop("fenced");
    for (const { job, attempt } of frame.attempts) {
      const ended = setting.machines.agent.findEnded(this.book, job, attempt);
      if (ended !== undefined) this.attempts.tellAgain(ended);
    }
    if (this.#welcomed) return;
    this.#welcomed = true;
    if (this.#refusal !== null) return this.#refuse(this.#refusal);
    machine.actor.run(this.#verified(), (settled) => {
      if (!settled.ok || this.#left) return;
      if (settled.value !== null) this.#refuse(settled.value);
      else if (isDedicated(this.book)) this.link.send(leaseBody({ t: "serving" }), true);
    });
  }

  #refuse(reason: string): void {
    this.#refusal = reason;
    this.#options.setting.watch.agentRefused(this.id, reason);
    this.link.send(leaseBody({ t: "refused", what: "lease", reason }), true);
  }

  *#onFrame(frame: Exclude<ToLease, { t: "welcome" | "ack" }>): Flow<void> {
    const { setting, machine } = this.#options;
    switch (frame.t) {
      case "run":
        if (!this.#hasGivenWay) this.attempts.begin(frame);
        return;
      case "runs":
        if (!this.#hasGivenWay) for (const run of frame.runs) this.attempts.begin(run);
        return;
      case "cancel":
        return this.attempts.cancel(frame);
      case "settle": {
        const billed = new Set(frame.receipts.map((receipt) => receipt.job));
        yield* this.attempts.endedAmong((job) => billed.has(jobName(job)), CUT_OFF_MS);
        this.link.send(leaseBody(yield* this.#answerSettle(frame)), true);
        return;
      }
      case "close": {
        const nowS = Math.floor((setting.schedule.now + machine.skewMs) / 1_000);
        const check = setting.machines.agent.checkClose(this.book, this.hash, frame, nowS);
        if (!check.ok) {
          setting.watch.agentRefused(this.id, `close: ${check.detail}`);
          this.link.send(leaseBody({ t: "refused", what: "close", reason: check.detail }), true);
          return;
        }
        const { cumulative, evidence, validBefore } = check.close;
        yield* this.#persist({ is: "closing", cumulative, evidence });
        const signature = setting.keyring.sign(machine.address, setting.hasher.close(check.close));
        this.link.send(
          leaseBody({ t: "close_signed", cumulative, valid_before: validBefore, signature }),
          true,
        );
        return;
      }
      case "tick": {
        const { n, runs } = frame;
        this.#clock.run(runs);
        const ms = this.#clock.total();
        yield* this.#persist({ is: "served", n, ms });
        return this.link.tell(leaseBody({ t: "served", n, ms }));
      }
      case "voucher": {
        const { cumulative, evidence, meter_signature: meter } = frame;
        if (meter === this.book.voucher?.meter) return;
        const signed = [this.book.signed, ...this.book.receipted.values()].some(
          (usage) => usage.cumulative === cumulative && usage.evidence === evidence,
        );
        const digest = setting.hasher.usage({ leaseId: this.hash, cumulative, evidence });
        if (!signed || !setting.keyring.isSigned(this.book.terms.meter, digest, meter)) return;
        const provider = setting.keyring.sign(machine.address, digest);
        yield* this.#persist({ is: "voucher", voucher: { cumulative, evidence, provider, meter } });
      }
    }
  }

  *#persist(entry: BookEntry): Flow<void> {
    this.#record(entry);
    if (this.#options.setting.machines.shell.syncsBeforeSigning) yield* this.#options.journal.sync();
  }

  *#answerSettle(frame: Extract<ToLease, { t: "settle" }>): Flow<Parameters<typeof leaseBody>[0]> {
    const { setting, machine } = this.#options;
    const { keyring, hasher } = setting;
    const self = { address: machine.address, leaseId: this.hash, hasher };
    const check = setting.machines.agent.checkSettle(this.book, self, frame, this.#funded);
    if (!check.ok) {
      setting.watch.agentRefused(this.id, `settle: ${check.detail}`);
      return { t: "refused", what: "settle", reason: check.detail.slice(0, 400) };
    }
    if (check.signed.receipts.length > 0) yield* this.#persist({ is: "signed", signed: check.signed });
    setting.watch.providerSigned(this.id, check.signed.receipts);
    return {
      t: "signed",
      usage: {
        cumulative: check.usage.cumulative,
        evidence: check.usage.evidence,
        signature: keyring.sign(machine.address, hasher.usage(check.usage)),
      },
    };
  }

  /** Null when the job will be paid: terms, chain and consumer agree to it. */
  *#coverage(frame: Run): Flow<string | null> {
    const { setting } = this.#options;
    const { allowance } = frame;
    const { book } = this;
    if (book.closing !== null) return "the lease's final usage is signed";
    if (allowance !== undefined && allowance.cumulative > (book.allowance?.cumulative ?? 0n)) {
      const digest = setting.hasher.allowance({ leaseId: this.hash, cumulative: allowance.cumulative });
      if (!setting.keyring.isSigned(book.terms.consumerSigner, digest, allowance.signature))
        return "the allowance is not signed by the lease's consumer";
      this.#record({ is: "allowance", allowance });
    }
    const reason = this.#refusal ?? (yield* this.#verified());
    if (reason !== null) return reason;
    for (let reads = 0; ; reads += 1) {
      const { status, funded } = yield* this.#read();
      if (status !== "open") return `on chain the lease is ${status}`;
      const missing = setting.machines.agent.uncovered(
        book.terms,
        book.allowance?.cumulative ?? 0n,
        funded,
        frame.committed,
      );
      if (missing === null || frame.committed <= funded || reads >= TOP_UP_READS) return missing;
      yield* sleep(setting.schedule, 1_000, "waits for a top-up");
    }
  }

  *#read(): Flow<{ status: string; funded: bigint }> {
    const { setting, machine } = this.#options;
    while (setting.schedule.now < machine.rpcDownUntil())
      yield* sleep(setting.schedule, 5_000, "waits for the chain");
    yield* sleep(setting.schedule, setting.random.wait(30), "reads the chain");
    const lease = setting.chain.escrow.leases.get(this.hash);
    this.#funded = lease?.funded ?? null;
    return { status: lease?.status ?? "none", funded: lease?.funded ?? 0n };
  }

  /** Read once, however many ask. */
  *#verified(): Flow<string | null> {
    const { setting } = this.#options;
    const first = this.#verifying === null;
    this.#verifying ??= { done: false, reason: null };
    const verifying = this.#verifying;
    if (!first) {
      while (!verifying.done) yield* sleep(setting.schedule, 500, "is being verified");
      return verifying.reason;
    }
    const since = setting.schedule.now;
    for (;;) {
      const { status, funded } = yield* this.#read();
      if (status === "open" && funded > 0n) break;
      if (status !== "none") verifying.reason = `on chain the lease is ${status}`;
      else if (setting.schedule.now - since > NOT_YET_MS)
        verifying.reason = "on chain the lease is not funded";
      if (verifying.reason !== null) break;
      yield* sleep(setting.schedule, 2_000, "waits for the funding");
    }
    verifying.done = true;
    return verifying.reason;
  }
}

/** What pays the provider with nobody's help; null when nothing was countersigned. */
export function settlementOf({ voucher, terms, allowance }: Book): z.output<typeof SettleIntent> | null {
  if (voucher === null) return null;
  const { cumulative, evidence, provider, meter } = voucher;
  const by = allowance === null ? {} : { allowance };
  return { kind: "settle", terms, cumulative, evidence, signatures: { provider, meter }, ...by };
}
