import type { LinkEnd } from "@gpux/agent/link/machine";
import type { Outcome } from "@gpux/durable-objects/interfaces";
import type { Job } from "@gpux/durable-objects/lease/job-state";
import { isOver, type Lease, type State } from "@gpux/durable-objects/lease/state";
import { isOpen } from "@gpux/durable-objects/node/allocation";
import type { NodeEvent } from "@gpux/durable-objects/node/event";
import type { NodeState } from "@gpux/durable-objects/node/state";
import { fundingAmount } from "@gpux/protocol/funding";
import type { Address, Bytes32, JobId, LeaseId } from "@gpux/protocol/ids";
import { sideBySide } from "@gpux/protocol/quote-text";
import type { Offer, Resources } from "@gpux/protocol/resources";
import { CreditWatch } from "./credit-watch.ts";
import type { Disk } from "./disk.ts";
import { type Escrow, INCLUDED_UP_TO } from "./escrow.ts";
import { LeaseLedger, type Observed } from "./lease-ledger.ts";
import type { Attested } from "./meter.ts";
import { MoveWatch } from "./move-watch.ts";
import type { Schedule } from "./schedule.ts";
import type { JobSeen, Line } from "./seen.ts";
import { SessionWatch } from "./session-watch.ts";
import type { Slots } from "./slots.ts";
import type { Truth } from "./truth.ts";
import { hold, Violation } from "./violation.ts";

/** At once, by durable-objects/account/machine.ts. */
const MAX_QUOTES = 8;

/** Refusals of the meter that an honest lease may meet: time alone mends them. */
const PATIENCE: ReadonlySet<string> = new Set(["above_terms"]);

/** What a machine has of, each counted by itself. */
const KINDS = ["gpus", "cpu", "memory_gb"] as const satisfies readonly (keyof Resources)[];

/** Sees everything, says nothing, and stops the simulation at the first thing that must not be. */
export class Watch {
  readonly ledgers = new Map<LeaseId, LeaseLedger>();
  readonly credit = new CreditWatch();
  readonly sessions = new SessionWatch();
  readonly moves = new MoveWatch(this.ledgers);
  readonly #schedule: Schedule;
  readonly #truth: Truth;
  readonly #allowances = new Map<Bytes32, bigint>();
  readonly #attested = new Map<Bytes32, bigint>();
  /** What the chain has for each lease, and the most that it ever had. */
  readonly #funded = new Map<Bytes32, { readonly most: bigint; readonly now: bigint }>();
  readonly #keys = new Map<string, JobId>();
  /** Jobs that a crash took from the only life that knew them. */
  readonly #taken = new Set<JobId>();
  /** What payers have signed over to each lease, landed or not. */
  readonly authorized = new Map<Bytes32, bigint>();
  readonly #nodes = new Map<Address, NodeState>();
  /** Whether no reorganisation can take the lease's opening back any more. */
  isHard: (lease: Bytes32) => boolean = () => true;
  /** All the money there is. */
  total = 0n;

  constructor(schedule: Schedule, truth: Truth) {
    this.#schedule = schedule;
    this.#truth = truth;
  }

  leaseQuoted(state: State): void {
    if (!this.ledgers.has(state.lease.id))
      this.ledgers.set(state.lease.id, new LeaseLedger(state, this.#truth));
  }

  leaseStepped(id: LeaseId, observed: Observed): void {
    this.ledgers.get(id)?.step(observed, this.#schedule.now);
    this.credit.step(observed, this.#schedule.now);
    this.sessions.step(observed);
    this.moves.step(id, observed);
    const { event, before, after } = observed;
    const asked = event.t === "submit" ? [event] : event.t === "submit_all" ? event.arrivals : [];
    for (const { job } of asked) {
      if (!this.#taken.has(job) || after.jobs.get(job)?.createdAt !== this.#schedule.now) continue;
      this.#truth.begunAgain.set(job, this.#schedule.now);
      this.#truth.toldEnds.delete(job);
    }
    const numbers = asked.map(({ job }) => after.jobs.get(job)?.n ?? -1);
    hold(
      numbers.every((n, i) => n > (numbers[i - 1] ?? -1)),
      "JOB-10 an array is taken whole and in its order, or not at all",
      () => `${id}: ${numbers}`,
    );
    if (before.lease.status === "funding" && after.lease.status === "active")
      hold(
        fundingAmount(after.lease.funding) <= INCLUDED_UP_TO || this.isHard(after.lease.hash),
        "LSE-3 no work is begun for money that may be taken back",
        () => id,
      );
    if (event.t === "errand" && event.done === "released")
      hold(
        this.#nodes.get(after.lease.terms.providerSigner)?.allocations.has(id) !== true,
        "C7 what a lease gives back is free",
        () => id,
      );
    // An answer may come long after the end of who asked.
    if (event.t === "node_refused" && !isOver(before.lease))
      throw new Violation("C4 a funded lease keeps its reservation", `${id}: ${event.detail}`);
  }

  /** A crash took what was not on its disk. */
  leaseRewound(id: LeaseId, disk: Disk): void {
    const ledger = this.ledgers.get(id);
    if (ledger !== undefined) this.sessions.rewound(id, ledger.jobs.values(), disk.jobs);
    for (const job of ledger?.jobs.keys() ?? []) if (!disk.jobs.has(job)) this.#taken.add(job);
    ledger?.rewind(disk);
  }

  journal(id: LeaseId, disk: Disk): void {
    this.ledgers.get(id)?.journal(disk);
    this.moves.journal(id, disk.journal);
  }

  leaseForgotten(id: LeaseId, jobs: Iterable<Job>): void {
    hold([...jobs].length === 0 || this.#schedule.now > 0, "J1 results are kept for their time", () => id);
  }

  nodeStepped(before: NodeState, event: NodeEvent, after: NodeState): void {
    this.#nodes.set(after.node, after);
    // What time takes back is what nobody paid for; what comes after an end is there for leases that were lost themselves.
    if (event.t === "tick")
      for (const [lease, allocation] of before.allocations)
        hold(
          !isOpen(allocation) || after.allocations.has(lease),
          "C7 a lease that is over gives its GPUs back itself",
          () => lease,
        );
    for (const [lease, { yielding, tier }] of after.allocations)
      hold(!yielding || tier === "yieldable", "LSE-11 a firm lease never gives way", () => lease);
    const offer = after.inventory?.offer;
    if (offer === undefined || event.t === "frame") return;
    const taken = [...after.allocations.values()].flatMap(({ phase, resources }) =>
      phase === "resting" ? [] : [resources],
    );
    this.#capacity(offer, `node ${after.node.slice(2, 4)}`, taken);
  }

  agentCapacity(offer: Offer, name: string, taken: readonly Resources[]): void {
    this.#capacity(offer, name, taken);
  }

  #capacity(offer: Offer, name: string, taken: readonly Resources[]): void {
    for (const kind of KINDS) {
      const sum = taken.reduce((total, each) => total + each[kind], 0);
      const all = kind === "gpus" ? offer.gpus.length : offer[kind];
      hold(sum <= all, "C1 capacity is never oversold", () => `${name}: ${sum} of ${all} ${kind}`);
    }
  }

  executing(node: Address, slots: Slots): void {
    hold(slots.taken <= slots.size, "C2 no more jobs run than the machine takes", () => node);
  }

  executingOf(id: LeaseId, jobs: number): void {
    const text = this.ledgers.get(id)?.state.lease.text;
    hold(text === undefined || jobs <= sideBySide(text), "C3 a lease runs no more than it may", () => id);
  }

  attestAnswered(lease: Lease, refusal: string | null): void {
    if (refusal === null || PATIENCE.has(refusal)) return;
    throw new Violation("MTR-5 the meter signs what honest parties ask", `${lease.id}: ${refusal}`);
  }

  /** Every signature of the meter: never beyond what the consumer allowed, never back. */
  attested({ lease, terms, cumulative, isClose }: Attested): void {
    if (isClose) this.credit.closes(lease);
    const allowed = this.#allowances.get(lease) ?? 0n;
    const most = allowed > terms.unattended ? allowed : terms.unattended;
    hold(cumulative <= most, "M5 the meter signs within the allowance", () => `${cumulative} of ${most}`);
    const before = this.#attested.get(lease) ?? 0n;
    hold(cumulative >= before, "M5 the meter never signs backwards", () => `${cumulative} after ${before}`);
    this.#attested.set(lease, cumulative);
  }

  allowed(lease: Bytes32, cumulative: bigint): void {
    const before = this.#allowances.get(lease) ?? 0n;
    if (cumulative > before) this.#allowances.set(lease, cumulative);
  }

  agentRefused(lease: LeaseId, reason: string): void {
    // A reorganisation, or an end that others reached first, may be all that the chain shows.
    if (reason.includes("on chain the lease is")) return;
    // So may less money than was there, as long as it has not landed again (docs/simulation.md).
    if (reason.startsWith("run: the escrow holds") && this.#isShort(lease)) return;
    throw new Violation("MTR-4 an honest provider signs what an honest edge asks", `${lease}: ${reason}`);
  }

  /** Whether a reorganisation took from the lease what one block was enough for. */
  #isShort(lease: LeaseId): boolean {
    const ledger = this.ledgers.get(lease);
    if (ledger === undefined) return false;
    const { most, now } = this.#funded.get(ledger.state.lease.hash) ?? { most: 0n, now: 0n };
    return now < most;
  }

  providerSigned(
    lease: LeaseId,
    digests: readonly { readonly sequence: number; readonly digest: string }[],
  ): void {
    this.ledgers.get(lease)?.providerSigned(digests);
  }

  controlEnded(agent: string, end: LinkEnd): void {
    if (end.reason === "stopped") return;
    throw new Violation("LNK-4 an honest agent is never shut out", `${agent}: ${end.reason}`);
  }

  quotes(account: string, open: number): void {
    hold(open <= MAX_QUOTES, "C5 an account holds few quotes at once", () => `${account}: ${open}`);
  }

  authorizes(lease: Bytes32, amount: bigint): void {
    this.authorized.set(lease, (this.authorized.get(lease) ?? 0n) + amount);
  }

  /** J2: whoever asks with one key is told of one job, and no other job does its work. */
  acknowledged(by: Address, key: string, before: JobId | null, job: JobSeen): void {
    const scope = `${by} ${key}`;
    const known = this.#keys.get(scope) ?? before ?? job.id;
    hold(known === job.id, "J2 one key is one job", () => `${scope} is ${known} and ${job.id}`);
    this.#keys.set(scope, job.id);
  }

  reused(key: string, job: JobId, answer: Outcome): void {
    // Nobody but the agent knows of one that a crash took, until it is back (docs/simulation.md).
    hold(
      !answer.ok || this.#taken.has(job),
      "J2 a key with another body is refused",
      () => `${key} was taken twice`,
    );
  }

  /** J6, for one who reads in pieces. */
  read(job: JobId, after: number, events: readonly Line[]): void {
    let last = after;
    for (const line of events) {
      hold(
        line.id > last && line.job === job,
        "J6 readers see lines in order",
        () => `${job} ${line.id} after ${last}`,
      );
      last = line.id;
    }
  }

  /** M1, M3: after every block and every reorganisation. */
  chain(escrow: Escrow): void {
    let due = 0n;
    for (const [id, { most }] of this.#funded) this.#funded.set(id, { most, now: 0n });
    for (const [id, { funded: now }] of escrow.leases) {
      const { most } = this.#funded.get(id) ?? { most: 0n };
      this.#funded.set(id, { most: now > most ? now : most, now });
    }
    for (const lease of escrow.leases.values()) {
      hold(lease.paid <= lease.funded, "M3 no lease pays more than it has", () => lease.terms.quote);
      if (lease.status === "open") due += lease.funded - lease.paid;
      hold(
        lease.status === "open" || lease.funded === lease.paid + lease.refunded,
        "M2 what was funded was paid or refunded",
        () => `${lease.funded} = ${lease.paid} + ${lease.refunded}`,
      );
    }
    for (const amount of escrow.owed.values()) due += amount;
    for (const { amount } of escrow.credits.list()) due += amount;
    hold(escrow.held === due, "M1 the escrow has what it owes", () => `${escrow.held} for ${due}`);
    let all = escrow.held;
    for (const [account, amount] of escrow.wallets) {
      hold(amount >= 0n, "M3 no account is below zero", () => account);
      all += amount;
    }
    hold(all === this.total, "M1 no money is made or lost", () => `${all} of ${this.total}`);
    this.credit.chain(escrow, this.authorized);
  }
}
