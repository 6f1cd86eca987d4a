import type { HoldEntry } from "@gpux/agent/control/holds";
import { type BookEntry, enter, newBook, readBook } from "@gpux/agent/leases/book";
import { dueBy, type NodeBody, nodeBody } from "@gpux/agent/link/frames";
import type { LinkEnd } from "@gpux/agent/link/machine";
import type { Share } from "@gpux/protocol/capacity";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import { type FromNode, FromNode as FromNodeFrame, type ToNode } from "@gpux/protocol/frames";
import type { LeaseId } from "@gpux/protocol/ids";
import type { SettleIntent } from "@gpux/protocol/intent";
import type { Resources } from "@gpux/protocol/resources";
import type { z } from "zod";
import { Actor, type Flow } from "./actor.ts";
import { Journal } from "./journal.ts";
import { Link } from "./link.ts";
import { type Occupied, type Provider, Reservations } from "./reservations.ts";
import { ServedLease, settlementOf } from "./served-lease.ts";
import type { Setting } from "./setting.ts";
import { Slots } from "./slots.ts";
import type { Truth } from "./truth.ts";

/** How long a draining machine waits for its leases to be closed. */
const CLOSE_MS = 5_000;
/** As in agent/control/control.ts, for a lease whose hold is forgotten. */
const LEAST: Share = { gpus: [], resources: { gpus: 1, cpu: 0, memory_gb: 0 } };

/** The shell of agent/agent.ts and agent/leases/roster.ts over the same books, in virtual time. */
export class Agent extends Actor {
  readonly provider: Provider;
  readonly leases = new Map<LeaseId, ServedLease>();
  readonly #resting = new Map<LeaseId, Resources>();
  readonly #overdue = new Set<LeaseId>();
  /** Vouchers of leases that are forgotten, kept until they are worth nothing. */
  readonly aside = new Map<LeaseId, z.output<typeof SettleIntent>>();
  readonly #setting: Setting;
  readonly #truth: Truth;
  readonly #reservations: Reservations;
  readonly #books = new Map<LeaseId, Journal<BookEntry>>();
  #control: Link<FromNode, ToNode> | null = null;
  #slots: Slots;
  #draining = false;
  /** It has read some of its journals, and not all. */
  #starting = false;
  rpcDownUntil = 0;
  /** GPUs that the owner uses for himself. */
  #claimed = 0;
  /** The highest frame of its node that any process of it has dealt with. */
  #dealtWith = 0;
  /** It hears what an earlier process heard, of how things were then: where it stands it knows when that is over. */
  #isToldAgain = false;

  constructor(provider: Provider, setting: Setting, truth: Truth) {
    super(`agent ${provider.address.slice(2, 4)}`);
    this.provider = provider;
    this.#setting = setting;
    this.#truth = truth;
    this.#reservations = new Reservations(provider, setting);
    this.#slots = new Slots(provider.offer.concurrency);
  }

  get isRunning(): boolean {
    return this.#control !== null;
  }

  start(): void {
    if (this.isRunning) return;
    const { schedule } = this.#setting;
    this.#draining = false;
    this.#slots = new Slots(this.provider.offer.concurrency);
    this.#reservations.remember();
    this.#control = this.#dialNode();
    this.#starting = true;
    for (const [id, journal] of this.#books) {
      const book = readBook(journal.entries);
      if (book === null) this.#books.delete(id);
      else if (book.resting) this.#resting.set(id, book.resources);
      else this.#serve(id, book, journal);
    }
    this.#starting = false;
    this.#checkCapacity();
    const control = this.#control;
    schedule.at(schedule.now + 1, `${this.name} starts`, () => {
      if (this.#control === control) control.start();
    });
  }

  /** The process dies; `power`: and takes what had not reached the disk. The edge hears of it late or never. */
  die(power: boolean): void {
    const { random } = this.#setting;
    const heardAfter = power && random.chance(0.5) ? random.int(30_000, 300_000) : random.int(5, 500);
    for (const lease of this.leases.values()) lease.link.die(heardAfter);
    this.#control?.die(heardAfter);
    this.#control = null;
    this.leases.clear();
    this.#resting.clear();
    this.#overdue.clear();
    this.#truth.lost(this.provider.address, this.#setting.schedule.now);
    this.crash();
    this.#reservations.crash(power);
    for (const journal of this.#books.values()) journal.crash(power);
  }

  /** The owner stops it: no more holds, what runs may end within `ms`, then it is gone until it is started again. */
  drain(ms: number): void {
    if (!this.isRunning) return;
    this.#draining = true;
    const body = nodeBody({ t: "drain", deadline_s: Math.floor(ms / 1_000) });
    this.#control?.send(dueBy(body, this.#setting.schedule.now + ms));
    for (const lease of this.leases.values()) lease.drain(ms);
    const { life } = this;
    const { schedule } = this.#setting;
    const stillDraining = () => this.life === life && this.#draining;
    schedule.at(schedule.now + ms, `${this.name} breaks off`, () => {
      if (!stillDraining()) return;
      for (const lease of this.leases.values())
        for (const attempt of lease.attempts.list()) attempt.stop("leaving");
    });
    schedule.at(schedule.now + ms + CLOSE_MS, `${this.name} leaves`, () => {
      if (stillDraining()) this.leave();
    });
  }

  /** Whether a lease that must give way has something on the executor. */
  hasYieldableWork(): boolean {
    return [...this.leases.values()].some(
      ({ book, attempts }) =>
        book.text?.tier === "yieldable" && attempts.list().some(({ executing }) => executing),
    );
  }

  get claimed(): number {
    return this.#claimed;
  }

  /** The owner uses so many GPUs for himself from now on. */
  claim(gpus: number): void {
    this.#claimed = gpus;
    this.#say({ t: "claim", gpus });
  }

  /** Ends all links with a goodbye and the process with them. */
  leave(): void {
    for (const lease of this.leases.values()) lease.leave();
    this.#control?.stop();
    this.die(false);
  }

  cut(agentAfter: number | null, objectAfter: number | null): void {
    this.#control?.cut(agentAfter, objectAfter);
    for (const lease of this.leases.values()) lease.link.cut(agentAfter, objectAfter);
  }

  /** What it holds and serves now by its own word. */
  taken(): readonly Resources[] {
    const held = this.#reservations.current().filter((hold) => !this.#list().includes(hold.lease));
    return [...this.#working(), ...held].map((each) =>
      "book" in each ? each.book.resources : each.resources,
    );
  }

  #checkCapacity(): void {
    if (!this.#starting && !this.#isToldAgain)
      this.#setting.watch.agentCapacity(this.provider.offer, this.name, this.taken());
  }

  /** Those that are not over, whether they are served now or not. */
  #list(): LeaseId[] {
    return [...this.leases.keys(), ...this.#resting.keys()];
  }

  #working(): ServedLease[] {
    return [...this.leases.values()].filter(({ id, book }) => !book.resting && !this.#overdue.has(id));
  }

  #occupied(claimed: number): Occupied {
    const served = [...this.leases.values()].map(({ id, book }) => ({
      id,
      isResting: book.resting || this.#overdue.has(id),
      gpus: book.gpus,
      resources: book.resources,
    }));
    const resting = [...this.#resting].map(([id, resources]) => ({
      id,
      isResting: true,
      gpus: [],
      resources,
    }));
    return { leases: [...served, ...resting], claimed };
  }

  #dialNode(): Link<FromNode, ToNode> {
    const node = this.#setting.node(this.provider.address);
    return new Link<FromNode, ToNode>({
      agent: this,
      setting: this.#setting,
      name: this.name,
      dial: (end) => ({ actor: node, upgrade: () => node.accept(end) }),
      parse: (wire) => FromNodeFrame.parse(wire),
      hello: () =>
        nodeBody({
          t: "hello",
          agent_version: "0.1.0",
          provider: this.provider.payout,
          offer: this.provider.offer,
          leases: this.#list().slice(0, 64),
          draining: this.#draining,
          claimed: this.#claimed,
        }),
      onWelcome: (frame) => {
        for (const id of this.#list()) if (!frame.leases.includes(id)) this.#forget(id, true);
      },
      onFrame: (frame) => this.#onFrame(frame),
      onEnd: (end) => this.#setting.watch.controlEnded(this.name, end),
    });
  }

  #say(body: NodeBody): void {
    this.#control?.send(nodeBody(body));
  }

  *#onFrame(frame: Exclude<ToNode, { t: "welcome" | "ack" }>): Flow<void> {
    this.#isToldAgain = frame.seq <= this.#dealtWith;
    this.#dealtWith = Math.max(this.#dealtWith, frame.seq);
    switch (frame.t) {
      case "hold": {
        const { hold: lease, terms, resources } = frame;
        const admission = this.#draining
          ? { ok: false as const, code: "draining", detail: "The node is about to stop." }
          : this.#reservations.admit(frame, this.#occupied(this.#claimed));
        if (!admission.ok)
          return this.#say({
            t: "declined",
            hold: lease,
            reason: `${admission.code}: ${admission.detail}`.slice(0, 200),
          });
        this.#enter({
          is: "held",
          hold: {
            lease,
            terms,
            resources,
            gpus: frame.text?.gpus ?? [],
            text: frame.text,
            expiresAt: Date.parse(frame.expires_at),
          },
        });
        yield* this.#reservations.sync();
        return this.#say({ t: "held", hold: lease });
      }
      case "release":
        this.#enter({ is: "released", lease: frame.hold });
        yield* this.#reservations.sync();
        return this.#forget(frame.hold, true);
      case "open":
        return yield* this.#open(frame.lease, frame.terms);
      case "rest": {
        const lease = this.leases.get(frame.lease);
        const isWorking = lease?.attempts.list().some((each) => each.stopReason === null) === true;
        if (!isWorking) return yield* this.#rest(frame.lease);
        this.#overdue.add(frame.lease);
        return;
      }
      case "yield":
        return this.leases.get(frame.lease)?.giveWayIn(frame.notice_s * 1_000);
      case "dial": {
        const journal = this.#books.get(frame.lease);
        if (!this.#resting.has(frame.lease) || journal === undefined) return;
        const book = readBook(journal.entries);
        if (book !== null) this.#serve(frame.lease, book, journal);
      }
    }
  }

  *#rest(id: LeaseId): Flow<void> {
    this.#overdue.delete(id);
    const lease = this.leases.get(id);
    if (lease === undefined) return;
    this.leases.delete(id);
    this.#resting.set(id, lease.book.resources);
    yield* lease.rest();
  }

  #enter(entry: HoldEntry): void {
    this.#reservations.enter(entry);
    this.#checkCapacity();
  }

  *#open(id: LeaseId, terms: LeaseTerms): Flow<void> {
    this.#overdue.delete(id);
    const served = this.leases.get(id);
    if (served !== undefined) return yield* served.rouse();
    for (const each of this.#overdue) yield* this.#rest(each);
    const journal =
      this.#books.get(id) ?? new Journal<BookEntry>(this.#setting.schedule, this.#setting.random);
    const known = readBook(journal.entries);
    if (known !== null) {
      if (known.resting) {
        const awake = { is: "resting", resting: false } as const;
        journal.append(awake);
        enter(known, awake);
      }
      yield* journal.sync();
      return this.#serveOpened(id, known, journal);
    }
    const held = this.#reservations.get(id);
    const { gpus, resources } = held ?? LEAST;
    const text = held?.text;
    const admission = this.#reservations.agree(id, terms, { gpus, resources }, this.#occupied(0));
    const refusal = admission.ok ? null : `${admission.code}: ${admission.detail}`;
    this.#books.set(id, journal);
    journal.append({ is: "lease", terms, gpus: [...gpus], resources, text, refusal });
    yield* journal.sync();
    this.#serveOpened(id, newBook(terms, { gpus, resources, text }, refusal), journal);
    this.#enter({ is: "released", lease: id });
  }

  /** LSE-10: one that is opened while the machine drains is told so at once. */
  #serveOpened(id: LeaseId, book: ReturnType<typeof newBook>, journal: Journal<BookEntry>): void {
    this.#serve(id, book, journal);
    if (this.#draining) this.leases.get(id)?.drain(0);
  }

  #serve(id: LeaseId, book: ReturnType<typeof newBook>, journal: Journal<BookEntry>): void {
    const lease = new ServedLease({
      setting: this.#setting,
      machine: {
        actor: this,
        address: this.provider.address,
        slots: this.#slots,
        truth: this.#truth,
        gpu: this.provider.offer.gpus[0]?.model ?? "UNKNOWN_GPU",
        skewMs: this.provider.skewMs,
        keeps: Number.parseInt(this.provider.address.slice(2, 4), 16) % 4 !== 0,
        prefetches: Number.parseInt(this.provider.address.slice(2, 4), 16) % 4 !== 1,
        rpcDownUntil: () => this.rpcDownUntil,
      },
      id,
      book,
      journal,
      onEnd: (end: LinkEnd) => {
        if (end.reason !== "stopped") this.#forget(id, end.reason === "gone");
      },
    });
    this.#resting.delete(id);
    this.leases.set(id, lease);
    lease.link.start();
    this.#checkCapacity();
  }

  /** `over`: the edge said that the lease has ended; else its journal stays for a later start. */
  #forget(id: LeaseId, over: boolean): void {
    const lease = this.leases.get(id);
    const journal = this.#books.get(id);
    this.#overdue.delete(id);
    const isResting = this.#resting.delete(id);
    if (lease === undefined && !isResting) return;
    this.leases.delete(id);
    lease?.leave();
    if (!over) return;
    this.#books.delete(id);
    const book = lease?.book ?? (journal === undefined ? null : readBook(journal.entries));
    const settlement = book === null ? null : settlementOf(book);
    if (book === null || settlement === null) return;
    const onChain = this.#setting.chain.escrow.leases.get(this.#setting.hasher.leaseTerms(book.terms));
    if (onChain?.status !== "closed") this.aside.set(id, settlement);
  }
}
