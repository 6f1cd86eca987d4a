import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { AttestRequest } from "@gpux/protocol/attestation";
import { LeaseTerms } from "@gpux/protocol/eip712";
import { FromLease } from "@gpux/protocol/frames";
import { fundingKey, type LeaseFunding } from "@gpux/protocol/funding";
import { Address, type Bytes32, type HexBytes, type JobId } from "@gpux/protocol/ids";
import type { IntentAnswer } from "@gpux/protocol/intent";
import { inputHash, type JobRequest } from "@gpux/protocol/job";
import { MAX_AMOUNT } from "@gpux/protocol/money";
import fc from "fast-check";
import { privateKeyToAccount } from "viem/accounts";
import { afterEach, beforeAll, beforeEach, expect, it, vi } from "vitest";
import { z } from "zod";
import { hasherOf } from "./billing.ts";
import type { Entry } from "./draft.ts";
import { type Duty, duties } from "./duties.ts";
import { answeredBy, rousedBy, watchedBy } from "./errands.ts";
import { isTerminal, Job } from "./job-state.ts";
import { type Event, prune, type Step, step } from "./machine.ts";
import { quotedLease } from "./quoted.ts";
import { claimsOf } from "./signatures.ts";
import { isSettled, Lease, type State } from "./state.ts";
import { LeaseStore } from "./store.ts";
import { CONSUMER_KEY, holdOf, NODE_KEY, PLACE, termsOf } from "./testing/fixtures.ts";
import { Neighbours, upgradeBy } from "./testing/neighbours.ts";
import { answerTo, eventOf, type Move, noteDuties, sequences, surroundings, timeOf } from "./testing/play.ts";
import { isForgotten } from "./timers.ts";

const consumer = privateKeyToAccount(CONSUMER_KEY);
const node = privateKeyToAccount(NODE_KEY);

/** Far ahead of the clock that alarms go by, so that only the plays ring them. */
const BASE = (Math.floor(Date.now() / 1_000) + 31_536_000) * 1_000;

/** A lease that is to be played, whose terms no other play has. */
function holdFor(play: number) {
  const terms = termsOf({
    consumerSigner: Address.parse(consumer.address),
    providerSigner: Address.parse(node.address),
    meter: Address.parse(env.METER_ADDRESS),
    upfront: MAX_AMOUNT,
    // Every other lease is paid by the clock.
    unattended: play % 2 === 1 ? MAX_AMOUNT : 0n,
    expiry: BASE / 1_000 + 14_400,
    quote: `0x${play.toString(16).padStart(64, "0")}`,
  });
  const hold = holdOf(terms);
  const mode = play % 2 === 1 ? ("dedicated" as const) : ("serverless" as const);
  const tier = play % 4 < 2 ? ("firm" as const) : ("yieldable" as const);
  return { ...hold, text: { ...hold.text, mode, tier }, expiresAt: BASE + 30_000 };
}

interface Kept {
  readonly state: string;
  readonly journal: readonly string[];
}

function written(state: State | null, jobs: readonly Job[]): string {
  if (state === null) return "forgotten";
  const byId = (a: Job, b: Job) => (a.id < b.id ? -1 : 1);
  return JSON.stringify(
    // The secret is each lease's own.
    [
      z.encode(Lease, { ...state.lease, secret: null }),
      [...jobs].sort(byId).map((job) => z.encode(Job, job)),
    ],
    null,
    1,
  );
}

/** The machine alone, told that it slept wherever the object was evicted: what the object must come to. */
class Expectation {
  state: State;
  connected = false;
  readonly jobs = new Map<JobId, Job>();
  readonly journal: Entry[] = [];
  #asleep = true;
  readonly #tried = new Set<string>();
  readonly #neighbours: Neighbours;

  constructor(state: State, neighbours: Neighbours) {
    this.state = state;
    this.#neighbours = neighbours;
  }

  evict(): void {
    this.#asleep = true;
    this.#tried.clear();
  }

  tell(event: Event, now: number): Step {
    const wake: Event = { t: "wake", connected: this.connected };
    const woken = this.#asleep ? step(this.state, wake, now) : null;
    const result = step(woken?.ok ? woken.next : this.state, event, now);
    if (!result.ok) return result;
    this.#asleep = false;
    if (woken?.ok) this.journal.push(...woken.journal);
    this.journal.push(...result.journal);
    for (const [id, job] of result.next.jobs) this.jobs.set(id, job);
    this.state = prune(result.next);
    return result;
  }

  /** Each duty is tried once in a life; its answer may bring the next. */
  async settle(now: number): Promise<void> {
    // An object that nothing was told since its eviction does not see to its duties.
    if (this.#asleep) return;
    for (;;) {
      const due = duties(this.state, now);
      for (const key of this.#tried) if (due.every((duty) => duty.key !== key)) this.#tried.delete(key);
      const duty = due.find(({ key }) => !this.#tried.has(key));
      if (duty === undefined) return;
      this.#tried.add(duty.key);
      const event = await this.#answered(duty);
      if (event !== null) this.tell(event, now);
    }
  }

  async #answered(duty: Duty): Promise<Event | null> {
    const { meter, relayed } = this.#neighbours;
    switch (duty.t) {
      case "relay": {
        const answer = relayed.get(duty.intent.kind);
        return answer === undefined ? null : answeredBy(duty.intent, answer);
      }
      case "watch":
        return watchedBy(
          duty.intent,
          relayed.get("fund") ?? { status: "pending", key: "fund:x", txHash: null },
        );
      case "meter_open": {
        const terms = z.encode(LeaseTerms, this.state.lease.terms);
        const answer = await meter.open({ terms, openedAt: duty.openedAt });
        return answer.ok ? { t: "errand", done: "metered" } : null;
      }
      case "attest": {
        // The real meter gives the same signatures for the same request.
        const answer = await meter.attest(z.encode(AttestRequest, duty.request));
        if (!answer.ok) return null;
        const { usageSignature: usage, closeSignature: close = null } = answer;
        return { t: "attested", sequence: duty.sequence, usage, close };
      }
      // From credit nothing is played here.
      case "allocate":
        return null;
      case "hold":
        return { t: "held", cumulative: duty.voucher.cumulative };
      case "node_open":
        return { t: "errand", done: "opened" };
      case "node_rest":
        return { t: "capacity", turn: duty.turn, blocker: null };
      case "node_rouse":
        return rousedBy(duty.turn, this.#neighbours.roused);
      case "node_dial":
        return null;
      case "node_release":
        return { t: "errand", done: "released" };
      // The account of this play has no other lease.
      case "places":
        return { t: "places", leases: [], awaited: [] };
      case "move":
        return null;
    }
  }

  /** What is still owed outlives the retention. */
  isForgotten(now: number): boolean {
    return isForgotten(this.state, now) && duties(this.state, now).length === 0;
  }

  kept(now: number): Kept {
    const forgotten = this.isForgotten(now);
    const journal = this.journal.map(({ job, type, data }) => JSON.stringify([job, type, data]));
    return {
      state: written(forgotten ? null : this.state, [...this.jobs.values()]),
      journal: forgotten ? [] : journal.sort(),
    };
  }
}

/** The same lease as a real object, evicted before everything that happens to it. */
class Reality {
  readonly #stub;
  #socket: WebSocket | null = null;
  #heard: PromiseWithResolvers<void> = Promise.withResolvers();

  constructor(lease: string) {
    this.#stub = env.LEASE.getByName(lease);
  }

  get rpc() {
    return this.#stub;
  }

  async evict(webSockets: "close" | "hibernate"): Promise<void> {
    await evictDurableObject(this.#stub, { webSockets });
    if (webSockets === "close") this.#socket = null;
  }

  alarm(): Promise<boolean> {
    return runDurableObjectAlarm(this.#stub);
  }

  get connected(): boolean {
    return this.#socket !== null;
  }

  /** The lease is over and hung up. */
  wasEnded(): void {
    this.#socket = null;
  }

  /** Whether the lease took the call. */
  async dial(): Promise<boolean> {
    const { webSocket } = await this.#stub.fetch(upgradeBy(Address.parse(node.address)));
    if (webSocket === null) return false;
    webSocket.accept();
    webSocket.addEventListener("message", () => this.#heard.resolve());
    webSocket.addEventListener("close", () => this.#heard.resolve());
    this.#socket = webSocket;
    return true;
  }

  /** Resolves when the lease has dealt with the frame: it answers each, if only with an acknowledgement. */
  async send(frame: FromLease): Promise<void> {
    this.#heard = Promise.withResolvers();
    this.#socket?.send(JSON.stringify(z.encode(FromLease, frame)));
    await this.#heard.promise;
  }

  async hangUp(): Promise<void> {
    this.#heard = Promise.withResolvers();
    this.#socket?.close(1000, "bye");
    await this.#heard.promise;
    this.#socket = null;
  }

  kept(jobs: Iterable<JobId>): Promise<Kept> {
    return runInDurableObject(this.#stub, (_, ctx) => {
      const store = new LeaseStore(ctx.storage.sql);
      const known = [...jobs];
      const journal = known.flatMap((id) => store.events(id, 0, 100_000));
      return {
        state: written(
          store.load(),
          known.flatMap((id) => store.job(id) ?? []),
        ),
        journal: journal.map(({ job, type, data }) => JSON.stringify([job, type, data])).sort(),
      };
    });
  }
}

async function signedBy(account: typeof node, hash: Bytes32): Promise<HexBytes> {
  return account.sign({ hash });
}

/** Real signatures in place of the play's. */
async function signedEvent(event: Event, state: State, now: number): Promise<Event> {
  const { lease } = state;
  if (event.t === "submit") {
    const { allowance, ...rest } = event.request;
    const inputs = event.inputHash.startsWith("e") ? { n: { number: 99 } } : rest.inputs;
    const hash = hasherOf(lease.place).allowance({
      leaseId: lease.hash,
      cumulative: allowance?.cumulative ?? 0n,
    });
    const request: JobRequest = {
      ...rest,
      inputs,
      ...(allowance === undefined
        ? {}
        : { allowance: { ...allowance, signature: await signedBy(consumer, hash) } }),
    };
    return { ...event, request, inputHash: await inputHash(request) };
  }
  if (event.t === "fund" || event.t === "top_up") {
    const valid_before = Math.floor(now / 1_000) + 600;
    return { ...event, funding: { ...event.funding, valid_before } };
  }
  if (event.t !== "frame") return event;
  const { frame } = event;
  const [claim] = claimsOf(state, frame);
  if (claim === undefined) return event;
  const signature = await signedBy(node, claim.digest);
  if (frame.t === "close_signed") return { t: "frame", frame: { ...frame, signature } };
  if (frame.t !== "signed") return event;
  return { t: "frame", frame: { ...frame, usage: { ...frame.usage, signature } } };
}

/** Plays moves on both, and compares what both kept after each. */
class Duel {
  readonly expected: Expectation;
  readonly real: Reality;
  readonly #around = surroundings();
  readonly #neighbours: Neighbours;
  #now = BASE;

  private constructor(expected: Expectation, real: Reality, neighbours: Neighbours) {
    this.expected = expected;
    this.real = real;
    this.#neighbours = neighbours;
  }

  static async begin(play: number, neighbours: Neighbours): Promise<Duel> {
    vi.setSystemTime(BASE);
    const hold = holdFor(play);
    const real = new Reality(hold.lease);
    expect(await real.rpc.quote({ ...hold, amount: 0n })).toEqual({ ok: true });
    return new Duel(new Expectation(quotedLease(hold, PLACE, BASE), neighbours), real, neighbours);
  }

  async play(move: Move): Promise<void> {
    const { expected, real } = this;
    if (expected.isForgotten(this.#now)) return;
    const lost = move.t === "wake" && !move.connected;
    await real.evict(lost ? "close" : "hibernate");
    expected.evict();
    if (lost) expected.connected = false;
    this.#now = timeOf(move, expected.state, this.#now);
    vi.setSystemTime(this.#now);
    const event = eventOf(move, expected.state, this.#around, this.#now);
    this.#neighbours.roused = this.#around.node.isFree ? { ok: true } : { ok: false, code: "no_capacity" };
    if (event !== null) await this.#happen(move, await signedEvent(event, expected.state, this.#now));
    await this.#neighbours.quiet();
    await expected.settle(this.#now);
    noteDuties(this.#around, duties(expected.state, this.#now));
    const jobs = [...expected.jobs.keys()];
    await expect.poll(() => real.kept(jobs)).toEqual(expected.kept(this.#now));
    this.#neighbours.relayed.clear();
    if (!isSettled(expected.state.lease)) return;
    expected.connected = false;
    real.wasEnded();
  }

  async #happen(move: Move, event: Event): Promise<void> {
    const { expected, real } = this;
    const now = this.#now;
    const as = expected.state.lease.terms.consumerSigner;
    const told = () => codeOf(expected.tell(event, now));
    switch (event.t) {
      case "fund":
        this.#answerFunding();
        return expect(codeOf(await real.rpc.fund(event.funding))).toBe(told());
      case "top_up":
        this.#answerTopUp(event.funding);
        return expect(codeOf(await real.rpc.topUp(as, event.funding))).toBe(told());
      case "submit": {
        const { job, request, clientId } = event;
        const code = codeOf(await real.rpc.submit(as, job, request, clientId, 0));
        const known = expected.jobs.get(job);
        if (known === undefined) return expect(code).toBe(told());
        return expect(code).toBe(known.inputHash === event.inputHash ? "ok" : "idempotency_key_reused");
      }
      case "cancel": {
        const code = codeOf(await real.rpc.cancel(as, event.job));
        const known = expected.jobs.get(event.job);
        if (known === undefined) return expect(code).toBe("job_unknown");
        if (known.status === "canceled") return expect(code).toBe("ok");
        return expect(code).toBe(isTerminal(known) ? "job_ended" : told());
      }
      case "close":
        return expect(codeOf(await real.rpc.close(as))).toBe(told());
      case "frame":
        if (event.frame.t === "hello" && !real.connected) {
          if (!(await real.dial())) return expect(isSettled(expected.state.lease)).toBe(true);
          expected.connected = true;
          await real.evict("hibernate");
        }
        if (!real.connected) return;
        told();
        return real.send(event.frame);
      case "gone":
        if (!real.connected) return;
        expected.connected = false;
        told();
        return real.hangUp();
      case "tick":
        if (await real.alarm()) told();
        return;
      case "relayed":
      case "relay_refused":
        this.#neighbours.relayed.set(event.kind, answerOf(event));
        if (await real.alarm()) expected.tell({ t: "tick" }, now);
        return;
      case "capacity":
        // The node is asked again when the alarm rings.
        if (await real.alarm()) expected.tell({ t: "tick" }, now);
        return;
      case "errand":
      case "held":
      case "attested":
      case "node_refused":
      case "wake":
        // What the neighbours answer by themselves, and the eviction before every move.
        return expect(["answer", "wake"]).toContain(move.t);
    }
  }

  /** The chain is quick: a funding that had to wait for it would hold the call for seconds. */
  #answerFunding(): void {
    const { state } = this.expected;
    const { funding, status } = state.lease;
    if (funding !== null || status !== "quoted") return;
    const total = { ...state, lease: { ...state.lease, funding: FUNDED_BY } };
    const duty = duties({ ...total, lease: { ...total.lease, status: "funding" } }, this.#now)[0];
    const event = duty === undefined ? null : answerTo(duty, total, this.#around, null);
    if (event?.t === "relayed") this.#neighbours.relayed.set("fund", event.answer);
  }

  /** As {@link #answerFunding}. */
  #answerTopUp(funding: LeaseFunding): void {
    const taken = step(this.expected.state, { t: "top_up", funding }, this.#now);
    if (!taken.ok) return;
    const key = `relay:fund:${fundingKey(funding)}`;
    const duty = duties(taken.next, this.#now).find((each) => each.key === key);
    const event = duty === undefined ? null : answerTo(duty, taken.next, this.#around, null);
    if (event?.t === "relayed") this.#neighbours.relayed.set("fund", event.answer);
  }
}

const FUNDED_BY = {
  amount: 10_000_000n,
  salt: `0x${"00".repeat(32)}`,
  valid_after: 0,
  valid_before: 0,
  signature: "0x00",
} as const;

function answerOf(event: Extract<Event, { t: "relayed" | "relay_refused" }>): IntentAnswer {
  if (event.t === "relayed") return event.answer;
  return { status: "rejected", key: null, code: event.code, detail: event.detail };
}

function codeOf(result: { ok: true } | { ok: false; code: string }): string {
  return result.ok ? "ok" : result.code;
}

let neighbours: Neighbours;
beforeAll(async () => {
  neighbours = await Neighbours.meet();
});
beforeEach(() => {
  vi.useFakeTimers({ toFake: ["Date"] });
});
afterEach(() => {
  vi.useRealTimers();
});

const SEED = 20_261_122;
/** What is paid from credit a real object takes by a real signature only. */
const plays = fc
  .sample(sequences, { numRuns: 24, seed: SEED })
  .map((moves) => moves.filter(({ t }) => t !== "allocate" && t !== "auto_top_up").slice(0, 40));

it.each(plays.map((moves, play) => ({ play, moves })))(
  "play $play: an object evicted before everything that happens keeps what the machine says",
  async ({ play, moves }) => {
    const duel = await Duel.begin(play, neighbours);
    for (const move of moves) await duel.play(move);
  },
  60_000,
);
