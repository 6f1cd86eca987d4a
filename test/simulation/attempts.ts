import { unheardMs } from "@gpux/agent/leases/attempts";
import {
  type Book,
  type BookEntry,
  type Ended,
  placesOf,
  sameAttempt,
  untoldEnds,
} from "@gpux/agent/leases/book";
import type { FrameBody } from "@gpux/agent/link/frames";
import { leaseBody } from "@gpux/agent/link/frames";
import type { ToLease } from "@gpux/protocol/frames";
import type { JobId, LeaseId } from "@gpux/protocol/ids";
import type { AttemptToken, Checkpoint } from "@gpux/protocol/job";
import type { Flow } from "./actor.ts";
import { Bell } from "./bell.ts";
import { type Setting, sleep } from "./setting.ts";
import { Slots } from "./slots.ts";
import { inputHashOf, numberOf } from "./truth.ts";
import type { Workshop } from "./workshop.ts";

export type Run = Extract<ToLease, { t: "runs" }>["runs"][number];

type End =
  | { readonly t: "result"; readonly ms: number; readonly output: string }
  | { readonly t: "failed"; readonly ms: number; readonly code: string }
  | { readonly t: "yielded"; readonly ms: number; readonly checkpoint: Checkpoint }
  | { readonly t: "stopped"; readonly ms: number };

type StopReason = "canceled" | "fenced" | "leaving" | "yielded";

export class Attempt {
  readonly job: JobId;
  readonly attempt: AttemptToken;
  /** Its turn has not come. */
  waits = true;
  executing = false;
  /** What it ran, once it has: then only its outputs are under way. */
  ms = 0;
  /** As in agent/leases/attempts.ts. */
  start: { readonly seq: number; readonly at: number; heardAt: number | null } | null = null;
  stopReason: StopReason | null = null;
  readonly #pausing: (() => void)[] = [];
  readonly #listeners: (() => void)[] = [];

  constructor(job: JobId, attempt: AttemptToken) {
    this.job = job;
    this.attempt = attempt;
  }

  stop(reason: StopReason): void {
    if (this.stopReason !== null) return;
    this.stopReason = reason;
    for (const tell of this.#listeners) tell();
  }

  /** It is to end where it can go on from. */
  pause(): void {
    for (const tell of this.#pausing) tell();
  }

  onPause(tell: () => void): void {
    this.#pausing.push(tell);
  }

  onStop(tell: () => void): void {
    this.#listeners.push(tell);
  }
}

export interface AttemptsOptions {
  readonly setting: Setting;
  readonly machine: Workshop;
  readonly lease: LeaseId;
  readonly book: Book;
  readonly record: (entry: BookEntry) => void;
  readonly send: (body: FrameBody, durable: boolean) => number;
  readonly coverage: (frame: Run) => Flow<string | null>;
}

/** The shell of agent/leases/jobs.ts: the attempts of one lease on this machine, from `run` to the frame of their end. */
export class Attempts {
  readonly #options: AttemptsOptions;
  readonly #all = new Set<Attempt>();
  #accepting = true;
  readonly #ended: Bell;
  readonly #places: Slots;

  constructor(options: AttemptsOptions) {
    this.#options = options;
    const { keepsPlaces } = options.setting.machines.shell;
    this.#places = new Slots(keepsPlaces ? placesOf(options.book) : Number.POSITIVE_INFINITY);
    this.#ended = new Bell(options.setting.schedule);
  }

  list(): Attempt[] {
    return [...this.#all];
  }

  close(): void {
    this.#accepting = false;
  }

  /** The edge has dealt with all frames up to `seq`. */
  heard(seq: number): void {
    const { now } = this.#options.setting.schedule;
    for (const { start } of this.#all) if (start !== null && start.seq <= seq) start.heardAt ??= now;
  }

  begin(frame: Run): void {
    const { book, setting, machine, send } = this.#options;
    if (!this.#accepting || this.#find(frame) !== undefined) return;
    const ended = setting.machines.agent.findEnded(book, frame.job, frame.attempt);
    if (ended !== undefined) return this.tellAgain(ended);
    for (const older of this.#all) if (older.job === frame.job) older.stop("fenced");
    const attempt = new Attempt(frame.job, frame.attempt);
    this.#all.add(attempt);
    const place = { giveBack: () => {} };
    machine.actor.run(this.#inTurn(frame, attempt, place), (settled) => {
      if (settled.ok) this.#finish(frame, attempt, settled.value, send);
      place.giveBack();
      this.#all.delete(attempt);
      this.#ended.ring();
    });
  }

  cancel(frame: Extract<ToLease, { t: "cancel" }>): void {
    const { book, setting, machine } = this.#options;
    const { job, attempt } = frame;
    const running = this.#find(frame);
    if (running !== undefined) return running.stop("canceled");
    const ended = setting.machines.agent.findEnded(book, job, attempt);
    if (ended !== undefined) return this.tellAgain(ended);
    this.#options.send(leaseBody({ t: "stopped", job, attempt, ms: 0, gpu: machine.gpu }), true);
  }

  tellAgain(ended: Ended): void {
    const onItsWay = untoldEnds(this.#options.book).some(
      (each) => each.job === ended.job && sameAttempt(each.attempt, ended.attempt),
    );
    if (!onItsWay) this.#options.send(ended.body, true);
  }

  /** Pauses until none of such jobs is under way any more, or for `ms`. */
  *endedAmong(isSuch: (job: JobId) => boolean, ms: number): Flow<void> {
    const { schedule } = this.#options.setting;
    const until = schedule.now + ms;
    while (this.list().some((each) => isSuch(each.job)) && schedule.now < until)
      yield* this.#ended.wait(until);
  }

  #find({ job, attempt }: { readonly job: JobId; readonly attempt: AttemptToken }): Attempt | undefined {
    return this.list().find((each) => each.job === job && sameAttempt(each.attempt, attempt));
  }

  *#inTurn(frame: Run, attempt: Attempt, place: { giveBack: () => void }): Flow<End> {
    const giveBack = yield* this.#places.take(
      (tell) => attempt.onStop(tell),
      () => attempt.stopReason !== null,
      frame.turn,
    );
    if (giveBack === null) return { t: "stopped", ms: 0 };
    place.giveBack = giveBack;
    attempt.waits = false;
    return yield* this.#work(frame, attempt);
  }

  *#work(frame: Run, attempt: Attempt): Flow<End> {
    const { setting, machine, lease } = this.#options;
    const { schedule, random } = setting;
    const missing = yield* this.#options.coverage(frame);
    if (attempt.stopReason !== null) return { t: "stopped", ms: 0 };
    if (missing !== null) {
      setting.watch.agentRefused(lease, `run: ${missing}`);
      return { t: "failed", ms: 0, code: "terms_refused" };
    }
    yield* sleep(schedule, random.wait(100), "fetches inputs");
    if (attempt.stopReason !== null) return { t: "stopped", ms: 0 };
    const giveBack = yield* machine.slots.take(
      (tell) => attempt.onStop(tell),
      () => attempt.stopReason !== null,
    );
    if (giveBack === null) return { t: "stopped", ms: 0 };
    const { job, attempt: token } = frame;
    const from = schedule.now;
    const number = numberOf(frame);
    const state = machine.truth.checkpoints.get(frame.checkpoint?.sha256 ?? "");
    // A checkpoint of anything else is none: it begins at the beginning.
    const resumed = state?.number === number ? (frame.checkpoint?.sha256 ?? null) : null;
    const doneMs = resumed === null ? 0 : (state?.doneMs ?? 0);
    const run = machine.truth.began({ node: machine.address, lease, job, attempt: token, from, resumed });
    attempt.executing = true;
    setting.watch.executing(machine.address, machine.slots);
    setting.watch.executingOf(lease, this.list().filter((each) => each.executing).length);
    const seq = this.#options.send(leaseBody({ t: "started", job, attempt: token }), false);
    attempt.start = { seq, at: from, heardAt: null };
    const work = machine.truth.work.get(number) ?? { runMs: 1_000, ends: "well" };
    const leftMs = work.runMs - doneMs;
    const ms = Math.min(leftMs, frame.execution_ms);
    // Some are in the middle of a long dispatch when they should pause.
    const mayPause = frame.checkpoint !== undefined && number % 5 !== 0;
    yield (resume) => {
      let isOver = false;
      const once = () => {
        if (isOver) return;
        isOver = true;
        timer.cancel();
        resume();
      };
      const timer = schedule.at(schedule.now + ms, `${machine.actor.name} ran`, once);
      attempt.onStop(once);
      if (mayPause) attempt.onPause(() => schedule.now > from && once());
    };
    const ran = schedule.now - from;
    attempt.executing = false;
    attempt.ms = ran;
    run.to = schedule.now;
    giveBack();
    if (attempt.stopReason !== null) return { t: "stopped", ms: ran };
    if (ran < ms) {
      // The store may be slow, or out of reach.
      yield* sleep(schedule, random.wait(random.chance(0.2) ? 8_000 : 500), "keeps its work");
      if (attempt.stopReason === null && random.chance(0.1)) attempt.stop("yielded");
      if (attempt.stopReason !== null) return { t: "stopped", ms: ran };
      const sha256 = machine.truth.output();
      machine.truth.checkpoints.set(sha256, { number, doneMs: doneMs + ran });
      run.kept = { sha256, ms: ran };
      return { t: "yielded", ms: ran, checkpoint: { sha256, bytes: 8 } };
    }
    if (leftMs > frame.execution_ms) return { t: "failed", ms: ran, code: "execution_timeout" };
    if (work.ends === "tenant") return { t: "failed", ms: ran, code: "limit_exceeded" };
    if (work.ends === "provider") return { t: "failed", ms: ran, code: "device_lost" };
    run.output = machine.truth.output();
    yield* sleep(schedule, random.wait(100), "uploads");
    if (attempt.stopReason !== null) return { t: "stopped", ms: ran };
    return { t: "result", ms: ran, output: run.output };
  }

  #finish(frame: Run, attempt: Attempt, end: End, send: AttemptsOptions["send"]): void {
    const { stopReason } = attempt;
    if (stopReason === "fenced" || stopReason === "leaving" || stopReason === "yielded") return;
    const { book, machine } = this.#options;
    const { job, attempt: token } = frame;
    const spec = { job, attempt: token, gpu: machine.gpu, ms: end.ms };
    const body = leaseBody(
      end.t === "result"
        ? {
            ...spec,
            t: "result",
            outputs: [
              { name: "out", content_type: "application/octet-stream", bytes: 1, sha256: end.output },
            ],
          }
        : end.t === "failed"
          ? { ...spec, t: "failed", code: end.code }
          : end.t === "yielded"
            ? { ...spec, t: "yielded", checkpoint: end.checkpoint }
            : { ...spec, t: "stopped" },
    );
    const rate = book.terms.ratePerHour;
    const affordableMs =
      rate === 0n ? Number.MAX_SAFE_INTEGER : Number((frame.max_price * 3_600_000n) / rate);
    const payableMs = Math.min(frame.execution_ms, affordableMs);
    this.#options.record({
      is: "ended",
      ended: {
        job,
        attempt: token,
        inputHash: inputHashOf(frame),
        payableMs,
        unheardMs: unheardMs(attempt, end.ms, this.#options.setting.schedule.now),
        body,
        ...(frame.ticket === undefined
          ? {}
          : { accepted: { function: frame.function, inputs: frame.inputs, ticket: frame.ticket } }),
      },
    });
    send(body, true);
  }
}
