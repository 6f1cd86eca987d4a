import type { FromLease } from "@gpux/protocol/frames";
import type { CreditAuthorization } from "@gpux/protocol/funding";
import { type Bytes32, type JobId, jobIdOf, LeaseId } from "@gpux/protocol/ids";
import type { IntentRefusalCode, IntentResult } from "@gpux/protocol/intent";
import type { AttemptToken } from "@gpux/protocol/job";
import { EMPTY_ROOT } from "@gpux/protocol/merkle";
import fc from "fast-check";
import type { Carried } from "../../interfaces.ts";
import type { Duty } from "../duties.ts";
import { currentAttempt, inOrder, isTerminal, type Job } from "../job-state.ts";
import type { Event } from "../machine.ts";
import { edgeMs } from "../service.ts";
import type { State } from "../state.ts";
import { wakeAt } from "../timers.ts";
import { done, FUND, jobId, START, said, submission } from "./fixtures.ts";

/**
 * What the lease's property tests play: sequences of moves of a consumer, an agent, a relayer and a clock, honest and
 * hostile. A move says what somebody does in terms of what is there ("the present attempt of the second job"), so a
 * shrunk sequence still makes sense; {@link eventOf} makes it the event of one lease.
 */

/** Jobs that a consumer names, and of those in flight the one that an agent speaks of; past the last, any at all. */
const anyJob = fc.integer({ min: 1, max: 6 });
const inFlight = fc.constantFrom(0, 0, 0, 1, 2);
const anyMs = fc.constantFrom(0, 1, 999, 2_000, 30_000, 10_000_000);
const attempt = {
  job: inFlight,
  token: fc.constantFrom("present", "present", "present", "older", "newer", "other_life"),
  order: fc.constantFrom("next", "next", "next", "again", "jump"),
} as const;

const consumer = {
  fund: fc.record({ t: fc.constant("fund"), salt: fc.constantFrom(1, 1, 2) }),
  topUp: fc.record({
    t: fc.constant("top_up"),
    salt: fc.constantFrom(1, 3, 3, 4),
    amount: fc.constantFrom(1n, 5_000_000n),
  }),
  /** To a target, from credit. */
  allocate: fc.record({
    t: fc.constant("allocate"),
    target: fc.constantFrom(1n, 10_000_000n, 12_000_000n, 20_000_000n),
  }),
  autoTopUp: fc.record({
    t: fc.constant("auto_top_up"),
    below: fc.constantFrom(0n, 1_000_000n, 11_000_000n),
    targets: fc.constantFrom([], [12_000_000n], [11_000_000n, 15_000_000n, 20_000_000n]),
  }),
  submit: fc.record({
    t: fc.constant("submit"),
    job: anyJob,
    otherInput: fc.integer({ min: 0, max: 19 }).map((n) => n === 0),
    maxPrice: fc.constantFrom(0n, 1n, 5_000n, 100_000n, 100_000n, 9_000_000n),
    allow: fc.constantFrom(0n, 100_000n, 10_000_000n, 10_000_000n),
    queueS: fc.constantFrom(5, 600, 86_400),
    startS: fc.constantFrom(5, 60),
    executionS: fc.constantFrom(1, 10, 120, 3_600),
    retries: fc.integer({ min: 0, max: 2 }),
    priority: fc.constantFrom(-10, 0, 0, 10),
    checkpoint: fc.boolean(),
  }),
  /** A job of another lease comes here. */
  adopt: fc.record({
    t: fc.constant("adopt"),
    job: anyJob,
    maxPrice: fc.constantFrom(6_000n, 100_000n, 9_000_000n),
  }),
  cancel: fc.record({ t: fc.constant("cancel"), job: anyJob }),
  /** Somebody waits for a receipt. */
  settle: fc.record({ t: fc.constant("settle") }),
  close: fc.record({ t: fc.constant("close") }),
  extend: fc.record({ t: fc.constant("extend"), extendedS: fc.constantFrom(1, 3_600, 7_200, 7_201) }),
} as const;

const agent = {
  hello: fc.record({
    t: fc.constant("hello"),
    attempts: fc.constantFrom("all", "all", "none", "odd", "made_up"),
    ahead: fc.constantFrom(0, 0, 0, 5),
    checkpoints: fc.constantFrom(true, true, false),
    prefetches: fc.constantFrom(true, true, false),
  }),
  started: fc.record({ t: fc.constant("started"), ...attempt }),
  result: fc.record({ t: fc.constant("result"), ...attempt, ms: anyMs }),
  failed: fc.record({
    t: fc.constant("failed"),
    ...attempt,
    ms: anyMs,
    code: fc.constantFrom("wgsl_invalid", "limit_exceeded", "execution_timeout", "device_lost", "made_up"),
  }),
  stopped: fc.record({ t: fc.constant("stopped"), ...attempt, ms: anyMs }),
  yielded: fc.record({ t: fc.constant("yielded"), ...attempt, ms: anyMs }),
  log: fc.record({ t: fc.constant("log"), ...attempt }),
  signed: fc.record({
    t: fc.constant("signed"),
    which: fc.constantFrom("asked", "asked", "asked", "made_up", "older"),
    amount: fc.constantFrom("asked", "asked", "asked", "other"),
  }),
  closeSigned: fc.record({
    t: fc.constant("close_signed"),
    amount: fc.constantFrom("asked", "asked", "other"),
    until: fc.constantFrom("asked", "asked", "other"),
  }),
  refused: fc.record({ t: fc.constant("refused"), what: fc.constantFrom("lease", "settle", "close") }),
  serving: fc.record({ t: fc.constant("serving") }),
  served: fc.record({
    t: fc.constant("served"),
    which: fc.constantFrom("asked", "asked", "asked", "older", "made_up"),
    /** What its clock is ahead of the edge's, in milliseconds. */
    ahead: fc.constantFrom(0, 0, 0, -1_500, -60_000, 25, 10_000_000),
  }),
  drain: fc.record({ t: fc.constant("drain"), deadlineS: fc.constantFrom(0, 5, 600) }),
  yield: fc.record({ t: fc.constant("yield"), noticeS: fc.constantFrom(0, 5, 30) }),
  gone: fc.record({ t: fc.constant("gone") }),
} as const;

const world = {
  /** One of the duties that the lease had at any time is answered, perhaps late, perhaps again. */
  answer: fc.record({
    t: fc.constant("answer"),
    duty: fc.nat({ max: 5 }),
    refusal: fc.constantFrom<(IntentRefusalCode | null)[]>(
      null,
      null,
      null,
      null,
      "relayer_low_balance",
      "nothing_due",
      "insufficient_balance",
    ),
    /** Of a funding: whether it is as hard on chain as its amount asks. */
    enough: fc.constantFrom(true, true, true, false),
  }),
  /** Whether the node has its GPUs free for a lease that wants them again. */
  node: fc.record({ t: fc.constant("node"), isFree: fc.boolean() }),
  wake: fc.record({ t: fc.constant("wake"), connected: fc.constantFrom(true, true, true, false) }),
  tick: fc.record({ t: fc.constant("tick"), after: fc.constantFrom(0, 1, 250, 2_000, 5_000, 20_000) }),
  longTick: fc.record({
    t: fc.constant("tick"),
    after: fc.constantFrom(60_000, 130_000, 900_000, 3_600_000),
  }),
  alarm: fc.record({ t: fc.constant("alarm") }),
} as const;

/** Seldom the moves that end a lease, or most sequences would be over before they become interesting. */
const single = fc.oneof(
  { weight: 1, arbitrary: consumer.fund },
  { weight: 2, arbitrary: consumer.topUp },
  { weight: 2, arbitrary: consumer.allocate },
  { weight: 1, arbitrary: consumer.autoTopUp },
  { weight: 8, arbitrary: consumer.submit },
  { weight: 2, arbitrary: consumer.adopt },
  { weight: 4, arbitrary: consumer.cancel },
  { weight: 4, arbitrary: consumer.settle },
  { weight: 1, arbitrary: consumer.close },
  { weight: 1, arbitrary: consumer.extend },
  { weight: 6, arbitrary: agent.hello },
  { weight: 8, arbitrary: agent.started },
  { weight: 6, arbitrary: agent.result },
  { weight: 4, arbitrary: agent.failed },
  { weight: 3, arbitrary: agent.stopped },
  { weight: 3, arbitrary: agent.yielded },
  { weight: 1, arbitrary: agent.log },
  { weight: 8, arbitrary: agent.signed },
  { weight: 4, arbitrary: agent.closeSigned },
  { weight: 1, arbitrary: agent.refused },
  { weight: 2, arbitrary: agent.serving },
  { weight: 8, arbitrary: agent.served },
  { weight: 1, arbitrary: agent.drain },
  { weight: 2, arbitrary: agent.yield },
  { weight: 3, arbitrary: agent.gone },
  { weight: 8, arbitrary: world.answer },
  { weight: 1, arbitrary: world.node },
  { weight: 4, arbitrary: world.wake },
  { weight: 8, arbitrary: world.tick },
  { weight: 1, arbitrary: world.longTick },
  { weight: 2, arbitrary: world.alarm },
);

export type Move = typeof single extends fc.Arbitrary<infer M> ? M : never;

const opening: Move[] = [
  { t: "fund", salt: 1 },
  { t: "answer", duty: 0, refusal: null, enough: true },
  { t: "wake", connected: false },
  { t: "hello", attempts: "none", ahead: 0, checkpoints: true, prefetches: true },
  { t: "serving" },
];

/** A job's whole way as it should be, for a lease to have something to lose. */
const good = fc
  .tuple(consumer.submit, world.tick, agent.result)
  .map(([submit, tick, result]): Move[] => [
    { ...submit, otherInput: false, allow: 10_000_000n },
    { t: "started", job: 0, token: "present", order: "next" },
    tick,
    { ...result, job: 0, token: "present", order: "next" },
  ]);

/** More jobs than there is room for, of which an agent has some before their turn and works them off. */
const line = fc
  .tuple(fc.array(consumer.submit, { minLength: 3, maxLength: 6 }), world.tick, agent.result, agent.started)
  .map(([submits, tick, result, started]): Move[] => [
    { t: "hello", attempts: "all", ahead: 0, checkpoints: true, prefetches: true },
    ...submits.map(
      (submit, n): Move => ({
        ...submit,
        job: n + 1,
        otherInput: false,
        allow: 10_000_000n,
        maxPrice: 100_000n,
      }),
    ),
    tick,
    { ...result, job: 0, token: "present", order: "next" },
    { ...result, job: 0, token: "present", order: "next" },
    { ...started, token: "present", order: "next" },
  ]);

/** Nothing is done for so long that the GPUs fall back to the node, and then something is to be done again. */
const nap = fc
  .tuple(consumer.submit, world.node)
  .map(([submit, node]): Move[] => [
    { t: "tick", after: 900_000 },
    { t: "answer", duty: 0, refusal: null, enough: true },
    node,
    { ...submit, otherInput: false, allow: 10_000_000n, maxPrice: 100_000n },
    { t: "answer", duty: 0, refusal: null, enough: true },
  ]);

/** A job gives way with what it has done, its receipt is signed, and it is begun again where the node has its GPUs free. */
const pause = fc
  .tuple(consumer.submit, world.tick, agent.yielded)
  .map(([submit, tick, yielded]): Move[] => [
    { ...submit, otherInput: false, allow: 10_000_000n, maxPrice: 100_000n, checkpoint: true },
    { t: "started", job: 0, token: "present", order: "next" },
    { t: "yield", noticeS: 30 },
    tick,
    { ...yielded, job: 0, token: "present", order: "next" },
    { t: "signed", which: "asked", amount: "asked" },
    { t: "answer", duty: 0, refusal: null, enough: true },
    { t: "answer", duty: 0, refusal: null, enough: true },
    { t: "answer", duty: 0, refusal: null, enough: true },
    { t: "hello", attempts: "none", ahead: 0, checkpoints: true, prefetches: true },
  ]);

const moves = fc
  .array(
    fc.oneof(
      { weight: 12, arbitrary: single.map((move) => [move]) },
      { weight: 2, arbitrary: good },
      { weight: 1, arbitrary: line },
      { weight: 1, arbitrary: nap },
      { weight: 1, arbitrary: pause },
    ),
    { maxLength: 40, size: "max" },
  )
  .map((parts) => parts.flat());

/** The consumer closes, and the others do their part. */
const ending: Move[] = [
  { t: "close" },
  { t: "served", which: "asked", ahead: 0 },
  { t: "signed", which: "asked", amount: "asked" },
  { t: "close_signed", amount: "asked", until: "asked" },
  { t: "answer", duty: 0, refusal: null, enough: true },
  { t: "answer", duty: 0, refusal: null, enough: true },
];

/** Any moves at all, or more often any moves on a lease that is funded and has its agent. */
export const sequences: fc.Arbitrary<Move[]> = fc.oneof(
  { weight: 1, arbitrary: moves },
  { weight: 4, arbitrary: moves.map((rest) => [...opening, ...rest]) },
  { weight: 2, arbitrary: moves.map((rest) => [...opening, ...rest, ...ending]) },
);

/** Other leases of the account. */
const OTHERS = ["a", "b", "c"].map((letter) => LeaseId.parse(`lse_${letter.repeat(32)}`));

/** A job of one of them that was to be moved here: its number tells what it has cost there. */
function brought(state: State, n: number, maxPrice: bigint): Carried {
  const from = OTHERS[n % OTHERS.length] ?? state.lease.id;
  const { payer, consumerSigner } = state.lease.terms;
  const submitted = submission(state, n, { max_price: maxPrice });
  return {
    job: jobIdOf(from, new Uint8Array(16).fill(n)),
    clientId: null,
    retryOf: null,
    request: submitted.request,
    inputHash: submitted.inputHash,
    session: null,
    createdAt: START,
    queuedAt: START,
    checkpoint: null,
    been: [from],
    past: {
      attempts: [
        {
          n: 1,
          node: state.lease.terms.providerSigner,
          lease_id: from,
          outcome: "yielded",
          paid: BigInt(n) * 1_000n,
        },
      ],
      price: BigInt(n) * 1_000n,
      billedMs: n,
    },
    billableMs: n % 2 === 0 ? 1 : 10_000_000,
    payer,
    consumerSigner,
  };
}

/** The lease as its surroundings know it: every duty that it ever had, and what became of its money on the chain. */
export interface Surroundings {
  readonly known: Duty[];
  readonly node: { isFree: boolean };
  /** Which jobs other leases have taken over or declined; by lease and job. */
  readonly others: Map<string, boolean>;
  readonly chain: { over: boolean; paid: bigint; readonly fundings: Map<string, bigint> };
}

export function surroundings(): Surroundings {
  const chain = { over: false, paid: 0n, fundings: new Map() };
  return { known: [], node: { isFree: true }, others: new Map(), chain };
}

/** Notes the duties of a state; one that changed is another duty, because an old answer to it may still come. */
export function noteDuties(around: Surroundings, list: readonly Duty[]): void {
  for (const duty of list) {
    const text = textOf(duty);
    if (!around.known.some((known) => textOf(known) === text)) around.known.push(duty);
  }
}

function textOf(duty: Duty): string {
  return JSON.stringify(duty, (_, value) => (typeof value === "bigint" ? value.toString() : value));
}

function allocationTo(funded_to: bigint): CreditAuthorization {
  const valid_before = START / 1_000 + 3_600;
  return { kind: "credit", funded_to, valid_before, signature: `0x${"00".repeat(65)}` };
}

function saltOf(n: number): Bytes32 {
  return `0x${n.toString().padStart(64, "0")}`;
}

/** The event that a move is now; `null` when nobody could do that (nothing was asked, no such job). */
export function eventOf(move: Move, state: State, around: Surroundings, now: number): Event | null {
  const { lease } = state;
  switch (move.t) {
    case "fund":
      return { t: "fund", funding: { ...FUND.funding, salt: saltOf(move.salt) } };
    case "top_up":
      return { t: "top_up", funding: { ...FUND.funding, amount: move.amount, salt: saltOf(move.salt) } };
    case "allocate":
      return { t: "top_up", funding: allocationTo(move.target) };
    case "auto_top_up": {
      const { below, targets } = move;
      const auto = targets.length === 0 ? null : { below, allocations: targets.map(allocationTo) };
      return { t: "auto_top_up", auto };
    }
    case "submit": {
      const event = submission(state, move.job, {
        max_price: move.maxPrice,
        timeouts: { queue_s: move.queueS, start_s: move.startS, execution_s: move.executionS },
        retries: move.retries,
        priority: move.priority,
        checkpoint: move.checkpoint,
        ...(move.allow === 0n ? {} : { allowance: { cumulative: move.allow, signature: "0x00" } }),
      });
      return move.otherInput ? { ...event, inputHash: "e".repeat(64) } : event;
    }
    case "adopt":
      return { t: "adopt", carried: brought(state, move.job, move.maxPrice) };
    case "cancel":
      return { t: "cancel", job: jobId(state, move.job) };
    case "close":
    case "extend":
    case "settle":
    case "gone":
    case "wake":
      return move;
    case "tick":
    case "alarm":
      return { t: "tick" };
    case "node":
      around.node.isFree = move.isFree;
      return null;
    case "hello":
      return said({
        t: "hello",
        seq: 0,
        attempts: reported(state, move.attempts),
        last_seq: move.ahead === 0 ? 0 : lease.sent + move.ahead,
        checkpoints: move.checkpoints,
        prefetches: move.prefetches,
      });
    case "started":
    case "log":
    case "result":
    case "failed":
    case "stopped":
    case "yielded":
      return said(aboutJob(move, state));
    case "signed":
      return signatures(move, state);
    case "close_signed": {
      if (lease.closing === null) return null;
      return said({
        t: "close_signed",
        seq: lease.seen + 1,
        cumulative: lease.spent + (move.amount === "asked" ? 0n : 1n),
        valid_before: lease.closing.validBefore + (move.until === "asked" ? 0 : 1),
        signature: "0x03",
      });
    }
    case "refused":
      return said({ t: "refused", seq: lease.seen + 1, what: move.what, reason: "it does not suit me" });
    case "serving":
      return said({ t: "serving", seq: lease.seen + 1 });
    case "served": {
      const n = { asked: 0, older: -1, made_up: 1 }[move.which] + lease.service.asked;
      const ms = Math.max(0, edgeMs(lease, now) + move.ahead);
      return n < 1 ? null : said({ t: "served", seq: 0, n, ms });
    }
    case "drain":
      return said({ t: "drain", seq: lease.seen + 1, deadline_s: move.deadlineS });
    case "yield":
      return said({ t: "yield", seq: lease.seen + 1, notice_s: move.noticeS });
    case "answer": {
      const duty = around.known.at(-1 - move.duty) ?? around.known.at(-1);
      return duty === undefined ? null : answerTo(duty, state, around, move.refusal, move.enough);
    }
  }
}

/** When the move is made, counted from the one before. */
export function timeOf(move: Move, state: State, now: number): number {
  if (move.t === "tick") return now + move.after;
  const at = wakeAt(state, now);
  return move.t === "alarm" && Number.isFinite(at) ? Math.max(now, at) : now;
}

type Working = Extract<Move, { t: "started" | "result" | "failed" | "stopped" | "yielded" | "log" }>;
type Body<F> = F extends FromLease ? Omit<F, "v" | "ack"> : never;

function aboutJob(move: Working, state: State): Body<FromLease> {
  const flying = inOrder(state.jobs.values()).filter((job) => !isTerminal(job));
  const id = flying[move.job]?.id ?? jobId(state, move.job + 1);
  const seq = {
    next: state.lease.seen + 1,
    again: Math.max(1, state.lease.seen),
    jump: state.lease.seen + 7,
  }[move.order];
  const about = { seq, job: id, attempt: tokenOf(move.token, state.jobs.get(id)) };
  const gpu = "SWIFTSHADER";
  switch (move.t) {
    case "started":
      return { t: "started", ...about };
    case "log":
      return { t: "log", ...about, line: "a line" };
    case "result": {
      const output = { name: "out", content_type: "image/png", bytes: 1, sha256: "0".repeat(64) };
      return { t: "result", ...about, ms: move.ms, gpu, outputs: [output] };
    }
    case "failed":
      return { t: "failed", ...about, ms: move.ms, gpu, code: move.code, detail: "because" };
    case "stopped":
      return { t: "stopped", ...about, ms: move.ms, gpu };
    case "yielded":
      return { t: "yielded", ...about, ms: move.ms, gpu, checkpoint: { sha256: "c".repeat(64), bytes: 8 } };
  }
}

function lastToken(job: Job): AttemptToken | undefined {
  return job.prefetched?.token ?? currentAttempt(job)?.token;
}

function tokenOf(which: Working["token"], job: Job | undefined): AttemptToken {
  const present = (job === undefined ? undefined : lastToken(job)) ?? { epoch: 1, n: 1 };
  switch (which) {
    case "present":
      return present;
    case "older":
      return { ...present, n: Math.max(1, present.n - 1) };
    case "newer":
      return { ...present, n: present.n + 1 };
    case "other_life":
      return { ...present, epoch: present.epoch + 1 };
  }
}

function reported(state: State, which: Extract<Move, { t: "hello" }>["attempts"]) {
  const attempts = inOrder(state.jobs.values()).flatMap((job) => {
    const token = lastToken(job);
    return token === undefined || isTerminal(job) ? [] : [{ job: job.id, attempt: token }];
  });
  switch (which) {
    case "all":
      return attempts;
    case "none":
      return [];
    case "odd":
      return attempts.filter((_, index) => index % 2 === 1);
    case "made_up": {
      const nobody: JobId = jobIdOf(state.lease.id, new Uint8Array(16));
      return [{ job: nobody, attempt: { epoch: 1, n: 1 } }, ...attempts.slice(0, 1)];
    }
  }
}

function signatures(move: Extract<Move, { t: "signed" }>, state: State): Event | null {
  const { block, seen } = state.lease;
  if (block === null) return null;
  const evidence = move.which === "asked" ? block.evidence : EMPTY_ROOT;
  return said({
    t: "signed",
    seq: seen + 1,
    usage: {
      cumulative: block.cumulative + (move.amount === "asked" ? 0n : 1n),
      ...(move.which === "older" ? {} : { evidence }),
      signature: `0x01${block.sequence.toString(16).padStart(2, "0")}`,
    },
  });
}

/** As the contract: what a target is above the funding so far is added, and one that is reached moves nothing. */
function allocated(
  { funding, request }: Extract<Duty, { t: "allocate" }>,
  state: State,
  chain: Surroundings["chain"],
  refusal: IntentRefusalCode | null,
  enough: boolean,
): Event {
  const before = totalOf(chain);
  const target = request.fundedTo[0] ?? 0n;
  const kind = "allocate";
  if (target > before && (refusal !== null || chain.over))
    return { t: "relay_refused", kind, funding, code: refusal ?? "lease_closed", detail: "no" };
  if (target > before) chain.fundings.set(funding, target - before);
  const openedAt = Math.floor(state.lease.createdAt / 1_000);
  const leases = [{ leaseId: state.lease.hash, funded: totalOf(chain).toString(), openedAt }];
  const answer = { ...done(kind, { kind, leases, amount: null }), enough };
  return { t: "relayed", kind, funding, answer };
}

function totalOf(chain: Surroundings["chain"]): bigint {
  return [...chain.fundings.values()].reduce((sum, each) => sum + each, 0n);
}

/** What the relayer, the meter or the node answers; the chain never contradicts itself. */
export function answerTo(
  duty: Duty,
  state: State,
  { chain, node, known, others }: Surroundings,
  refusal: IntentRefusalCode | null,
  enough = true,
): Event | null {
  switch (duty.t) {
    case "meter_open":
      return { t: "errand", done: "metered" };
    case "watch": {
      if (refusal !== null || !chain.fundings.has(duty.intent.salt)) return { t: "unfunded" };
      const landing: Duty = { key: "relay:fund", t: "relay", intent: duty.intent };
      const event = answerTo(landing, state, { chain, node, known, others }, null);
      if (event?.t !== "relayed") return event;
      return { ...event, answer: { ...event.answer, confirmation: enough ? "safe" : "included" } };
    }
    case "hold":
      return { t: "held", cumulative: duty.voucher.cumulative };
    case "node_open":
      return { t: "errand", done: "opened" };
    case "node_release":
      return { t: "errand", done: "released" };
    case "node_rest":
      return { t: "capacity", turn: duty.turn, blocker: null };
    case "node_rouse":
      return { t: "capacity", turn: duty.turn, blocker: node.isFree ? null : "gpus" };
    case "node_dial":
      return said({ t: "hello", seq: 0, attempts: [], last_seq: 0 });
    case "attest": {
      const close = duty.request.close === undefined ? null : ("0x06" as const);
      return { t: "attested", sequence: duty.sequence, usage: "0x04", close };
    }
    case "allocate":
      return allocated(duty, state, chain, refusal, enough);
    case "places":
      return { t: "places", leases: refusal === null ? OTHERS : [], awaited: [] };
    case "move": {
      const takes = (job: Job) => {
        const name = `${duty.to} ${job.id}`;
        // As it has answered once, whatever it would say now.
        if (!others.has(name)) others.set(name, enough);
        return others.get(name) === true;
      };
      const ids = (answer: boolean) => duty.jobs.filter((job) => takes(job) === answer).map(({ id }) => id);
      return { t: "moved", to: duty.to, taken: ids(true), declined: ids(false) };
    }
    case "relay":
      break;
  }
  const { intent } = duty;
  const { kind } = intent;
  const leaseId = state.lease.hash;
  const which = intent.kind === "fund" ? { funding: intent.salt } : {};
  const refused = (code: IntentRefusalCode): Event => ({
    t: "relay_refused",
    kind,
    ...which,
    code,
    detail: "no",
  });
  switch (intent.kind) {
    case "fund": {
      const isNew = !chain.fundings.has(intent.salt);
      if (isNew && (refusal !== null || chain.over)) return refused(refusal ?? "lease_closed");
      chain.fundings.set(intent.salt, intent.amounts[0] ?? 0n);
      const opened = {
        leaseId,
        funded: totalOf(chain).toString(),
        openedAt: Math.floor(state.lease.createdAt / 1_000),
      };
      return {
        t: "relayed",
        kind,
        ...which,
        answer: { ...done("fund", { kind: "fund", leases: [opened] }), enough },
      };
    }
    case "settle":
      if (refusal !== null || chain.over) return refused(refusal ?? "lease_closed");
      if (intent.cumulative <= chain.paid) return refused("stale");
      chain.paid = intent.cumulative;
      return {
        t: "relayed",
        kind,
        answer: done("settle", { kind: "settle", leaseId, paid: chain.paid.toString(), fee: "0" }),
      };
    case "close":
    case "reclaim": {
      if (refusal !== null || chain.over) return refused(refusal ?? "lease_closed");
      chain.over = true;
      if (intent.kind === "close") chain.paid = intent.cumulative;
      const end = {
        leaseId,
        paid: chain.paid.toString(),
        refunded: (totalOf(chain) - chain.paid).toString(),
      };
      const result: IntentResult =
        intent.kind === "close" ? { kind: "close", ...end, fee: "0" } : { kind: "reclaim", ...end };
      return { t: "relayed", kind, answer: done(kind, result) };
    }
    case "withdraw": {
      if (refusal !== null) return refused(refusal);
      const { account } = intent;
      return {
        t: "relayed",
        kind,
        answer: done("withdraw", { kind: "withdraw", account, amount: "1" }),
      };
    }
    default:
      return null;
  }
}
