import { ToLease } from "@gpux/protocol/frames";
import type { JobId } from "@gpux/protocol/ids";
import { JobView, MOST_IN_BATCH, TERMINAL } from "@gpux/protocol/job";
import { type LeaseMode, LeaseView } from "@gpux/protocol/lease";
import { append, emptyFrontier, type Frontier, root } from "@gpux/protocol/merkle";
import { accrued, MAX_AMOUNT } from "@gpux/protocol/money";
import { sideBySide } from "@gpux/protocol/quote-text";
import { wireText } from "@gpux/protocol/wire";
import fc from "fast-check";
import { expect, it } from "vitest";
import { z } from "zod";
import { ceiling, committed, hasherOf } from "./billing.ts";
import { duties } from "./duties.ts";
import { attemptsOf, costOf, isLeaving, isQueued, isTerminal, Job, receiptsOf } from "./job-state.ts";
import { type Event, prune, type Step, step } from "./machine.ts";
import { mayMove } from "./moves.ts";
import { WITHDRAWN, YIELDED } from "./outcome.ts";
import { quotedLease } from "./quoted.ts";
import { edgeMs } from "./service.ts";
import { endsAt, isOver, Lease, pledged, type State, type Tick, unsignedReceipts } from "./state.ts";
import { FUNDED, holdOf, PLACE, START, termsOf } from "./testing/fixtures.ts";
import { answerTo, eventOf, type Move, noteDuties, sequences, surroundings, timeOf } from "./testing/play.ts";
import { isForgotten, wakeAt } from "./timers.ts";
import { jobView, leaseView } from "./view.ts";

/** Where else one may be found that its agent had before its turn, by what is heard of it (JOB-12). */
const TAKEN_UP: readonly Job["status"][] = ["running", "succeeded", "timed_out"];

/** Where a job may go from where it is. Back to the queue only by a lost attempt, which the test checks apart. */
const FORWARD: Readonly<Record<Job["status"], readonly Job["status"][]>> = {
  queued: ["starting", "canceled", "aborted", "failed"],
  starting: ["running", "queued", "succeeded", "failed", "canceled", "timed_out", "aborted"],
  running: ["queued", "starting", "succeeded", "failed", "canceled", "timed_out"],
  succeeded: [],
  failed: [],
  canceled: [],
  timed_out: [],
  aborted: [],
};

const LEASE_FORWARD: Readonly<Record<Lease["status"], readonly Lease["status"][]>> = {
  quoted: ["funding", "expired"],
  funding: ["active", "draining", "closing", "expired", "lost"],
  active: ["suspended", "draining", "closing", "lost", "closed"],
  suspended: ["active", "draining", "closing", "lost", "closed"],
  draining: ["closing", "lost", "closed"],
  closing: ["closed", "lost"],
  lost: ["closed"],
  closed: [],
  expired: [],
};

/** So that a step which writes to its input fails loudly. Values are shared between states: once is enough. */
function freeze(value: unknown): void {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return;
  if (value instanceof Map) {
    const refuse = () => {
      throw new Error("a step changed a map of its input");
    };
    Object.defineProperties(value, { set: { value: refuse }, delete: { value: refuse } });
    for (const item of value.values()) freeze(item);
  }
  Object.freeze(value);
  for (const item of Object.values(value)) freeze(item);
}

/** What the store would write; it also shows that the state fits its schema. */
function written(state: State): string {
  const jobs = [...state.jobs.values()].map((job) => z.encode(Job, job));
  return JSON.stringify([z.encode(Lease, state.lease), jobs]);
}

function outcome(result: Step): string {
  if (!result.ok)
    return JSON.stringify({
      ...result,
      ...("cumulative" in result ? { cumulative: String(result.cumulative) } : {}),
    });
  const { next, frames, journal, passing } = result;
  return JSON.stringify([written(next), frames.map((frame) => z.encode(ToLease, frame)), journal, passing]);
}

function isForgiven(before: State, after: State): boolean {
  const kept = new Set(after.lease.ticks.map(({ receipt }) => receipt.receipt.sequence));
  if (before.lease.ticks.some(({ receipt }) => !kept.has(receipt.receipt.sequence))) return true;
  return [...after.jobs.values()].some((job) => {
    const was = before.jobs.get(job.id);
    return was !== undefined && receiptsOf(job).length < receiptsOf(was).length;
  });
}

/** One lease through its whole life, watched: each step is checked against everything that must always hold. */
class Witness {
  state: State;
  now = START;
  readonly around = surroundings();
  /** The last that was seen of every job, also of those that left memory. */
  readonly #jobs = new Map<JobId, Job>();
  /** Every receipt of time, by its sequence. */
  readonly #ticks = new Map<number, Tick>();
  #frontier: Frontier = emptyFrontier();
  #receipts = 0;

  constructor(state: State) {
    this.state = state;
    this.tell({ t: "wake", connected: false });
  }

  play(move: Move): void {
    this.now = timeOf(move, this.state, this.now);
    const event = eventOf(move, this.state, this.around, this.now);
    if (event === null) return;
    // A job that left memory is known to the store, and the shell never tells the machine of it again.
    const job = event.t === "submit" ? event.job : event.t === "adopt" ? event.carried.job : null;
    if (job !== null && this.#jobs.has(job) && !this.state.jobs.has(job)) return;
    this.tell(event);
  }

  tell(event: Event): void {
    const before = this.state;
    freeze(before);
    const result = step(before, event, this.now);
    expect(outcome(step(before, event, this.now))).toBe(outcome(result));
    if (!result.ok) return;
    if (isForgiven(before, result.next)) this.#forgive(event, before, result.next);
    else expect(result.next.lease.spent).toBeGreaterThanOrEqual(before.lease.spent);
    this.#checkLease(before.lease, result.next);
    this.#checkFrames(before.lease, result);
    for (const job of result.next.jobs.values())
      if (job !== before.jobs.get(job.id)) this.#checkJob(job, result.next.lease);
    this.#checkMoney(result.next);
    this.#checkCapacity(before.lease, result.next);
    this.#checkTurns(before, result.next);
    this.#checkReadable(result.next);
    this.state = prune(result.next);
    noteDuties(this.around, duties(this.state, this.now));
  }

  /** MTR-6: only a refusal takes receipts back, only those that the node had not signed, and what they cost. */
  #forgive(event: Event, before: State, after: State): void {
    expect(event.t === "frame" ? event.frame.t : event.t).toMatch(/refused$/);
    for (const { job: was, asked } of unsignedReceipts(before)) {
      if (was === null) this.#ticks.delete(asked.receipt.sequence);
      const job = was === null ? undefined : after.jobs.get(was.id);
      if (was === null || job === undefined) continue;
      const left = receiptsOf(was).filter(
        (each) => !unsignedReceipts(before).some((un) => un.asked === each),
      );
      expect(receiptsOf(job)).toEqual(left);
      expect(job.price).toBe(left.reduce((sum, { receipt }) => sum + receipt.price, 0n));
      expect(job.billedMs).toBe(left.reduce((sum, { receipt }) => sum + Number(receipt.billedMs), 0));
      this.#jobs.set(was.id, job);
    }
    this.#frontier = emptyFrontier();
    this.#receipts = 0;
  }

  #checkLease(before: Lease, { lease, jobs }: State): void {
    if (lease.status !== before.status) expect(LEASE_FORWARD[before.status]).toContain(lease.status);
    expect(endsAt(lease)).toBeGreaterThanOrEqual(endsAt(before));
    expect(endsAt(lease)).toBeLessThanOrEqual(lease.terms.expiry * 1_000);
    expect(lease.epoch).toBeGreaterThanOrEqual(before.epoch);
    // What it takes for paid by a refusal (`nothing_due`) may be wrong; in the end the chain's word holds.
    if (lease.status === "closed" && before.status !== "closed")
      expect(lease.settled).toBe(this.around.chain.paid);
    else expect(lease.settled).toBeGreaterThanOrEqual(before.settled);
    expect(lease.voucher?.cumulative ?? 0n).toBeGreaterThanOrEqual(before.voucher?.cumulative ?? 0n);
    expect(lease.voucher?.cumulative ?? 0n).toBeLessThanOrEqual(lease.spent);
    if (lease.drainAt !== null)
      for (const job of jobs.values()) {
        const { status } = job;
        expect(status).not.toBe("starting");
        if (status === "queued" && job.move === null) {
          // JOB-11: what can go on elsewhere waits for that, not for long.
          expect(mayMove(lease, job)).toBe(true);
          expect(this.now).toBeLessThan(lease.drainAt + 10_000);
        }
        if (status === "running") expect(this.now).toBeLessThan(lease.drainAt);
      }
    if (isOver(lease)) {
      expect(lease.end).not.toBeNull();
      for (const job of jobs.values()) expect(isTerminal(job) || isLeaving(job)).toBe(true);
    }
  }

  #checkFrames(before: Lease, { frames, next }: Extract<Step, { ok: true }>): void {
    for (const frame of frames)
      expect(JSON.parse(wireText(frame))).toEqual(JSON.parse(JSON.stringify(z.encode(ToLease, frame))));
    const numbered = frames.map((frame) => frame.seq).filter((seq) => seq > 0);
    // An agent may know of frames that the edge forgot it sent; then its hello moves the numbers on.
    const from = next.lease.sent - numbered.length;
    expect(from).toBeGreaterThanOrEqual(before.sent);
    expect(numbered).toEqual(numbered.map((_, index) => from + index + 1));
    expect(next.lease.seen).toBeGreaterThanOrEqual(before.seen);
  }

  #checkJob(job: Job, lease: Lease): void {
    const before = this.#jobs.get(job.id);
    this.#jobs.set(job.id, job);
    if (before === undefined) return expect(["queued", "starting"]).toContain(job.status);
    if (isTerminal(before)) {
      const { receipt: _now, kept: _keptNow, ...now } = job;
      const { receipt: _then, kept: _keptThen, ...then } = before;
      return expect(now).toEqual(then);
    }
    expect(job.request).toEqual(before.request);
    const wasAhead = before.prefetched !== null;
    if (job.status !== before.status)
      expect([...FORWARD[before.status], ...(wasAhead ? TAKEN_UP : [])]).toContain(job.status);
    this.#checkPrefetched(before, job, lease);
    // A job goes back only over an attempt that is closed, and forward again only by another.
    const inFlight = job.status === "starting" || job.status === "running" ? 1 : 0;
    for (const lost of job.attempts.slice(0, job.attempts.length - inFlight))
      expect(lost.endedAt).not.toBeNull();
    if (before.status === "running" && job.status === "starting")
      expect(job.attempts.length).toBe(before.attempts.length + 1);
    // JOB-11: while the one that was asked had not answered nothing became of it here; what is back may end at once.
    if (before.move !== null && job.move === null) expect(job.been).toEqual([...before.been, before.move.to]);
    else if (before.move !== null)
      expect(job).toEqual({ ...before, move: { to: before.move.to, gone: job.move?.gone } });
    if (job.move !== null) expect(before.been).not.toContain(job.move.to);
    const first = (job.past?.attempts.length ?? 0) + 1;
    expect(job.attempts.map(({ token }) => token.n)).toEqual(job.attempts.map((_, i) => first + i));
    const spent = job.attempts.filter(
      ({ outcome }) => outcome !== YIELDED && outcome !== "node_draining" && outcome !== WITHDRAWN,
    );
    expect(spent.length).toBeLessThanOrEqual(job.request.retries + 1);
    expect(lease.epoch).toBeGreaterThanOrEqual(job.attempts.at(-1)?.token.epoch ?? 0);
    // CKP-2: over all attempts.
    expect(costOf(job).price).toBeLessThanOrEqual(job.request.max_price);
    expect(costOf(job).billedMs).toBeLessThanOrEqual(job.request.timeouts.execution_s * 1_000);
    const keptMs = job.kept.reduce((sum, { receipt }) => sum + Number(receipt.billedMs), 0);
    const keptPrice = job.kept.reduce((sum, { receipt }) => sum + receipt.price, 0n);
    if (job.request.checkpoint !== true) expect(job.kept).toEqual([]);
    for (const { receipt } of job.kept) expect(job.attempts[receipt.attempt - first]?.outcome).toBe(YIELDED);
    if (!TERMINAL.has(job.status)) {
      expect(job).toMatchObject({ price: keptPrice, billedMs: keptMs, receipt: null, endedAt: null });
      return;
    }
    const { startedAt, sentAt } = job.attempts.at(-1) ?? {};
    if (startedAt == null) expect(job).toMatchObject({ price: keptPrice, billedMs: keptMs, receipt: null });
    else {
      expect(startedAt).toBeGreaterThanOrEqual(sentAt ?? Number.NaN);
      if (job.receipt !== null) expect(job.billedMs - keptMs).toBeLessThanOrEqual(this.now - startedAt);
    }
    if (job.status === "aborted") expect(job.receipt).toBeNull();
  }

  /** JOB-12: it only waits, under a number of its own, and spends nothing when that comes to nothing. */
  #checkPrefetched(before: Job, job: Job, lease: Lease): void {
    for (const { outcome, startedAt } of job.attempts)
      if (outcome === WITHDRAWN) expect(startedAt).toBeNull();
    const { prefetched } = job;
    if (prefetched === null) return;
    expect(job).toMatchObject({ status: "queued", move: null, cancelAskedAt: null });
    expect(prefetched.token.n).toBe(attemptsOf(job) + 1);
    const { at, freedAt } = prefetched.turn ?? { at: this.now, freedAt: this.now };
    expect(at).toBeGreaterThanOrEqual(prefetched.sentAt);
    expect(at).toBeLessThanOrEqual(this.now);
    expect(freedAt).toBeLessThanOrEqual(at);
    expect(job.attempts.filter(({ endedAt }) => endedAt === null)).toEqual([]);
    if (before.prefetched === null) expect(lease.prefetches).toBe(true);
  }

  /** JOB-12: as many turns are given as there is room for, and none where nothing is begun. */
  #checkRoom({ lease, jobs }: State, busy: number): void {
    const ahead = [...jobs.values()].flatMap(({ prefetched }) => (prefetched === null ? [] : [prefetched]));
    const turns = ahead.filter(({ turn }) => turn !== null).length;
    expect(turns).toBeLessThanOrEqual(Math.max(0, sideBySide(lease.text) - busy));
    expect(ahead.length).toBeLessThanOrEqual(2 * MOST_IN_BATCH);
    if (ahead.length === 0) return;
    expect(["active", "draining"]).toContain(lease.status);
    expect(lease).toMatchObject({ drainAt: null, capacity: { state: "held", yieldAt: null } });
    if (lease.awayAt !== null) expect(this.now).toBeLessThan(lease.awayAt + 120_000);
    else expect(turns).toBe(Math.min(ahead.length, sideBySide(lease.text) - busy));
  }

  #checkMoney(state: State): void {
    const { lease } = state;
    const ended = [...this.#jobs.values()];
    const isDedicated = lease.text.mode === "dedicated";
    for (const tick of lease.ticks) this.#ticks.set(tick.receipt.receipt.sequence, tick);
    const ticks = [...this.#ticks.values()].map(({ receipt }) => receipt);
    const served = ticks.reduce((sum, { receipt }) => sum + Number(receipt.billedMs), 0);
    const ran = ended.reduce((sum, job) => sum + job.billedMs, 0);
    const paid = ended.reduce((sum, job) => sum + job.price, 0n);
    expect(lease.billedMs).toBe(isDedicated ? served : ran);
    expect(lease.spent).toBe(paid + ticks.reduce((sum, { receipt }) => sum + receipt.price, 0n));
    if (isDedicated) expect(paid).toBe(0n);
    else expect(ticks).toEqual([]);
    const gpus = isDedicated ? 1 : lease.text.resources.gpus;
    expect(lease.spent).toBe(accrued(lease.terms.ratePerHour, lease.billedMs, gpus));
    this.#checkTime(state, served);
    const funded = pledged(lease);
    expect(committed(state)).toBeLessThanOrEqual(funded);
    expect(committed(state)).toBeLessThanOrEqual(ceiling(lease));
    const busy = ended.filter((job) => job.status === "starting" || job.status === "running").length;
    expect(busy).toBeLessThanOrEqual(sideBySide(lease.text));
    this.#checkRoom(state, busy);
    // MTR-1: whatever an agent says that ran, no place is paid for twice.
    if (!isDedicated) expect(lease.billedMs).toBeLessThanOrEqual(sideBySide(lease.text) * (this.now - START));

    const hasher = hasherOf(lease.place);
    const receipts = [...ticks, ...ended.flatMap(receiptsOf)].sort(
      (a, b) => a.receipt.sequence - b.receipt.sequence,
    );
    for (const { receipt, evidence } of receipts.slice(this.#receipts)) {
      expect(receipt.sequence).toBe(this.#receipts + 1);
      const last = receipts[this.#receipts - 1]?.receipt.cumulative ?? 0n;
      expect(receipt.cumulative).toBe(last + receipt.price);
      this.#frontier = append(this.#frontier, hasher.receipt(receipt));
      this.#receipts += 1;
      expect(evidence).toBe(root(this.#frontier));
    }
    expect(lease.frontier).toEqual(this.#frontier);
    expect(receipts.at(-1)?.receipt.cumulative ?? 0n).toBe(lease.spent);
    const { voucher } = lease;
    if (voucher !== null) {
      const covered = receipts[voucher.sequence - 1];
      expect(voucher).toMatchObject({ cumulative: covered?.receipt.cumulative, evidence: covered?.evidence });
      // The play's agent writes into the signature which receipt it closes.
      expect(voucher.provider).toBe(`0x01${voucher.sequence.toString(16).padStart(2, "0")}`);
    }
  }

  /** MTR-9: no time is billed but while the lease was there to be used, by either clock, and none twice. */
  #checkTime({ lease, jobs }: State, served: number): void {
    const { service, status, awayAt } = lease;
    expect(served).toBeLessThanOrEqual(service.agentMs);
    expect(served).toBeLessThanOrEqual(edgeMs(lease, this.now));
    expect(edgeMs(lease, this.now)).toBeLessThanOrEqual(this.now - (service.servingAt ?? this.now));
    if (service.since === null) return;
    expect([awayAt, lease.text.mode, service.isFinal]).toEqual([null, "dedicated", false]);
    expect(["active", "draining"]).toContain(status);
    if (status === "draining") expect([...jobs.values()].some((job) => !isTerminal(job))).toBe(true);
  }

  /** JOB-3: none that waits has precedence over one that was sent just now. */
  #checkTurns(before: State, { jobs }: State): void {
    const precedes = (a: Job, b: Job) =>
      a.request.priority === b.request.priority ? a.n < b.n : a.request.priority > b.request.priority;
    for (const job of jobs.values()) {
      const was = before.jobs.get(job.id);
      const isSent = job.prefetched !== null && (was?.prefetched ?? null) === null;
      const isBegun = job.attempts.length > (was?.attempts.length ?? 0) && (was?.prefetched ?? null) === null;
      // What its agent has it begins by itself, and may have done so before it had one of more precedence.
      if (!isSent && !isBegun) continue;
      const passedOver = [...jobs.values()].filter(
        (each) => isQueued(each) && each.prefetched === null && precedes(each, job),
      );
      expect(passedOver).toEqual([]);
    }
  }

  /** LSE-9: nothing is under way on GPUs that others may have, and no question to the node bears an older number. */
  #checkCapacity(before: Lease, { lease, jobs }: State): void {
    const { capacity } = lease;
    expect(capacity.turn).toBeGreaterThanOrEqual(before.capacity.turn);
    if (capacity.state === "held" && before.capacity.state !== "held")
      expect(capacity.turn).toBe(before.capacity.turn);
    else if (capacity.state !== before.capacity.state) expect(capacity.turn).toBe(before.capacity.turn + 1);
    if (capacity.state !== "held")
      for (const job of jobs.values()) expect(["starting", "running"]).not.toContain(job.status);
    if (lease.text.tier === "firm") expect(capacity.yieldAt).toBeNull();
    if (capacity.yieldAt !== null && this.now >= capacity.yieldAt)
      for (const job of jobs.values()) expect(["starting", "running"]).not.toContain(job.status);
    if (capacity.state === "asking" && (lease.status === "active" || lease.status === "draining"))
      expect([...jobs.values()].some((job) => job.status === "queued")).toBe(true);
  }

  #checkReadable(state: State): void {
    expect(JSON.parse(wireText(state.lease))).toEqual(z.encode(Lease, state.lease));
    for (const job of state.jobs.values()) expect(JSON.parse(wireText(job))).toEqual(z.encode(Job, job));
    for (const job of state.jobs.values()) {
      const view = jobView(state, job, this.now);
      const wire = JSON.parse(JSON.stringify(z.encode(JobView, view)));
      expect(
        JSON.parse(JSON.stringify(view, (_, each) => (typeof each === "bigint" ? `${each}` : each))),
      ).toEqual(wire);
    }
    z.encode(LeaseView, leaseView(state));
  }

  /** An alarm that is set must bring something about, or it would ring without end. */
  checkAlarm(): void {
    const at = Math.max(this.now, wakeAt(this.state, this.now));
    if (!Number.isFinite(at)) return;
    this.now = at;
    this.tell({ t: "tick" });
    if (!isForgotten(this.state, this.now)) expect(wakeAt(this.state, this.now)).toBeGreaterThan(this.now);
  }

  /** From here on everybody answers and time passes: the lease ends, its duties are done, and it is forgotten. */
  windUp(): void {
    this.around.node.isFree = true;
    for (let round = 0; round < 400; round++) {
      if (isForgotten(this.state, this.now)) return;
      for (const duty of duties(this.state, this.now)) {
        const event = answerTo(duty, this.state, this.around, null);
        if (event !== null) this.tell(event);
      }
      if (duties(this.state, this.now).length > 0) continue;
      const at = wakeAt(this.state, this.now);
      expect(at).toBeGreaterThan(this.now);
      expect(Number.isFinite(at)).toBe(true);
      this.now = at;
      this.tell({ t: "tick" });
    }
    expect.unreachable(`a ${this.state.lease.status} lease is never forgotten`);
  }
}

const leases = fc.record({
  gpus: fc.integer({ min: 1, max: 2 }),
  ratePerHour: fc.constantFrom(3_600_000n, 0n, 7_777n, 1_000_000_000_000n),
  unattended: fc.constantFrom(0n, 500_000n, FUNDED),
  keepWarmS: fc.constantFrom(0, 60, 300, 3_600),
  tier: fc.constantFrom("firm", "yieldable"),
  mode: fc.constantFrom("serverless", "dedicated"),
  tickS: fc.constantFrom(60, 300),
  extendableS: fc.constantFrom(0, 7_200),
  concurrency: fc.constantFrom(1, 3),
});

interface Sold {
  readonly gpus: number;
  readonly ratePerHour: bigint;
  readonly unattended: bigint;
  readonly keepWarmS: number;
  readonly tier: "firm" | "yieldable";
  readonly mode: LeaseMode;
  readonly tickS: number;
  readonly extendableS: number;
  readonly concurrency: number;
}

function quoted({ gpus, keepWarmS, tier, mode, tickS, extendableS, concurrency, ...overrides }: Sold): State {
  const unattended = mode === "dedicated" ? MAX_AMOUNT : overrides.unattended;
  const hold = holdOf(termsOf({ ...overrides, unattended, expiry: START / 1_000 + 14_400 }));
  const resources = { ...hold.text.resources, gpus };
  const side = mode === "dedicated" ? { concurrency } : {};
  return quotedLease(
    {
      ...hold,
      text: {
        ...hold.text,
        resources,
        keep_warm_s: keepWarmS,
        tier,
        mode,
        tick_s: tickS,
        extendable_s: extendableS,
        ...side,
      },
    },
    PLACE,
    START,
  );
}

it("a lease keeps its promises whatever anybody does, and every alarm of it brings something about", () => {
  fc.assert(
    fc.property(leases, sequences, (terms, moves) => {
      const witness = new Witness(quoted(terms));
      for (const move of moves) witness.play(move);
      for (let alarm = 0; alarm < 4; alarm++) witness.checkAlarm();
    }),
    { numRuns: 250 },
  );
}, 180_000);

it("a lease ends, pays out and is forgotten once everybody answers, whatever happened before", () => {
  fc.assert(
    fc.property(leases, sequences, (terms, moves) => {
      const witness = new Witness(quoted(terms));
      for (const move of moves) witness.play(move);
      if (isForgotten(witness.state, witness.now)) return;
      witness.windUp();
      const { lease } = witness.state;
      expect(lease.end).not.toBeNull();
      if (lease.funded > 0n) expect(lease.status).toBe("closed");
    }),
    { numRuns: 120 },
  );
}, 180_000);
