import { isTerminal } from "@gpux/durable-objects/lease/job-state";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { Address, Bytes32, LeaseId } from "@gpux/protocol/ids";
import type { Offer } from "@gpux/protocol/resources";
import { createHasher } from "@gpux/protocol/typed-data-encoder";
import { AccountObject } from "./account-object.ts";
import type { Actor } from "./actor.ts";
import { Adversary } from "./adversary.ts";
import { Agent } from "./agent.ts";
import { BookObject } from "./book-object.ts";
import { Chain } from "./chain.ts";
import { Consumer } from "./consumer.ts";
import { Escrow } from "./escrow.ts";
import { type Climate, climateOf, FAULTS, hurried, scattered, type Targets } from "./faults.ts";
import { Keyring } from "./keyring.ts";
import { LeaseObject } from "./lease-object.ts";
import type { Machines } from "./machines.ts";
import { Meter } from "./meter.ts";
import { CALM, Network } from "./network.ts";
import { NodeObject } from "./node-object.ts";
import { Payer } from "./payer.ts";
import { Purse } from "./purse.ts";
import { Random } from "./random.ts";
import { Relayer } from "./relayer.ts";
import { Schedule } from "./schedule.ts";
import { METER, PLACE, type Setting, START } from "./setting.ts";
import { Thief } from "./thief.ts";
import { Truth } from "./truth.ts";
import { Watch } from "./watch.ts";

/** Terms are hashed by everybody all the time, and never change. */
const HASHER = (() => {
  const hasher = createHasher(PLACE);
  const known = new WeakMap<LeaseTerms, Bytes32>();
  const leaseTerms = (terms: LeaseTerms): Bytes32 => {
    const before = known.get(terms);
    if (before !== undefined) return before;
    const hash = hasher.leaseTerms(terms);
    known.set(terms, hash);
    return hash;
  };
  return { ...hasher, leaseTerms };
})();

const address = (byte: number): Address => `0x${byte.toString(16).padStart(2, "0").repeat(20)}`;

const SPONSOR = address(0x91);

/** One market with all that is in it, from one seed. */
export class World implements Targets {
  readonly schedule = new Schedule(START);
  readonly truth = new Truth();
  readonly setting: Setting;
  readonly agents: readonly Agent[];
  readonly consumers: readonly Consumer[];
  readonly #adversary: Adversary;
  readonly #payers: Payer[] = [];
  readonly #thief: Thief;
  readonly watch: Watch;
  readonly climate: Climate;
  readonly #leases = new Map<LeaseId, LeaseObject>();
  readonly #nodes = new Map<Address, NodeObject>();
  readonly #books = new Map<string, BookObject>();
  readonly #accounts = new Map<Address, AccountObject>();
  readonly #faultRandom: Random;
  #isHealed = false;
  isOver = false;

  constructor(seed: number, machines: Machines) {
    const { schedule, truth } = this;
    // Streams apart, so that what one kind of actor chooses does not shift what another does.
    const setup = new Random(seed);
    const random = new Random(seed ^ 0x5eed_0001);
    this.#faultRandom = new Random(seed ^ 0x5eed_0002);
    const habits = new Random(seed ^ 0x5eed_0008);
    const isScattered = new Random(seed ^ 0x5eed_000a).chance(0.25);
    const hasSessions = habits.chance(0.4);
    const isHurried = hasSessions && habits.chance(0.5);
    const climate = isScattered ? scattered(climateOf(setup)) : climateOf(setup);
    // What a lease knows of a session counts when it dies while its jobs are under way.
    this.climate = isHurried ? hurried(climate) : climate;
    const keyring = new Keyring();
    const network = new Network(schedule, new Random(seed ^ 0x5eed_0003));
    const escrow = new Escrow(HASHER, keyring, machines.escrow);
    const chain = new Chain(schedule, new Random(seed ^ 0x5eed_0004), escrow);
    const relayer = new Relayer(chain, schedule, HASHER);
    relayer.isHasty = !machines.shell.waitsForFinality;
    const meter = new Meter(METER, machines, { schedule, hasher: HASHER, keyring });
    const watch = new Watch(schedule, truth);
    this.watch = watch;
    meter.onSigned = (attested) => watch.attested(attested);
    meter.onPromised = (promised) => watch.credit.promised(promised);
    chain.onChange = () => watch.chain(chain.escrow);
    watch.isHard = (lease) => chain.settledEscrow.leases.has(lease);

    const setting: Setting = {
      schedule,
      random,
      network,
      keyring,
      hasher: HASHER,
      machines,
      watch,
      chain,
      relayer,
      meter,
      behindMs: this.climate.behindMs,
      isSpot: this.climate.isSpot,
      isScattered,
      lease: (id) => found(this.#leases, id, () => new LeaseObject(id, setting)),
      node: (node) => found(this.#nodes, node, () => new NodeObject(node, setting)),
      book: (name) => found(this.#books, name, () => new BookObject(name, setting)),
      account: (account) => found(this.#accounts, account, () => new AccountObject(account, setting)),
    };
    this.setting = setting;
    const drawn = setup.int(1, 4);
    this.agents = Array.from({ length: isScattered ? 3 : drawn }, (_, at) => {
      const offer = offerOf(setup, this.climate.isSpot);
      const provider = {
        address: address(0xb1 + at),
        payout: address(0xd1 + at),
        offer: isScattered ? { ...offer, gpus: offer.gpus.slice(0, 1), concurrency: 1 } : offer,
        skewMs: setup.pick([0, 0, 600_000, -600_000]),
      };
      return new Agent(provider, setting, truth);
    });
    this.#adversary = new Adversary(setting, new Random(seed ^ 0x5eed_0005), () => this.leases());
    this.#thief = new Thief(setting, new Random(seed ^ 0x5eed_0006), () => this.leases());
    const credit = new Random(seed ^ 0x5eed_0007);
    const hasCredit = credit.chance(0.5);
    const hasRepeats = new Random(seed ^ 0x5eed_0009).chance(0.25);
    const drawnPauses = setup.pick([1_000, 5_000, 20_000]);
    const pauses = isScattered ? 1_000 : drawnPauses;
    const crowd = setup.int(1, 3);
    this.consumers = Array.from({ length: isScattered ? 1 : crowd }, (_, at) => {
      const payer = address(0xa1 + at);
      const wallet = BigInt(setup.pick([6_000_000, 60_000_000, 1_000_000_000]));
      const endow = (account: Address, amount: bigint) => {
        escrow.wallets.set(account, amount);
        watch.total += amount;
        watch.credit.begins(account, amount);
      };
      endow(payer, wallet);
      const purse = hasCredit && credit.chance(0.8) ? this.#purseOf(payer, credit, endow) : null;
      const sessions = hasSessions ? { random: new Random(seed ^ (0xc1_0000 + at)), isHurried } : null;
      const repeats = hasRepeats ? new Random(seed ^ (0xc2_0000 + at)) : null;
      const random = new Random(seed ^ (0xc0_0000 + at));
      return new Consumer(payer, setting, truth, random, pauses, { purse, sessions, repeats });
    });
  }

  /** By its own credit, or by that of a sponsor, who is the same for all that have one. */
  #purseOf(consumer: Address, random: Random, endow: (account: Address, amount: bigint) => void): Purse {
    const isSponsored = random.chance(0.5);
    const payer = isSponsored ? SPONSOR : consumer;
    if (isSponsored && !this.setting.chain.escrow.wallets.has(SPONSOR)) endow(SPONSOR, 100_000_000n);
    const stream = () => new Random(random.int(0, 0xffff_ffff));
    this.#payers.push(new Payer(payer, consumer, this.setting, stream()));
    return new Purse(payer, consumer, this.setting, stream());
  }

  leases(): LeaseObject[] {
    return [...this.#leases.values()];
  }

  nodes(): NodeObject[] {
    return [...this.#nodes.values()];
  }

  books(): BookObject[] {
    return [...this.#books.values()];
  }

  accounts(): AccountObject[] {
    return [...this.#accounts.values()];
  }

  objects(): Actor[] {
    return [
      ...this.leases(),
      ...this.nodes(),
      ...this.#accounts.values(),
      ...this.books(),
      this.setting.meter,
    ];
  }

  live(id: LeaseId) {
    return [...(this.#leases.get(id)?.state()?.jobs.values() ?? [])].flatMap((job) => {
      const attempt = isTerminal(job) ? undefined : job.attempts.at(-1)?.token;
      return attempt === undefined ? [] : [{ job: job.id, attempt }];
    });
  }

  start(): void {
    const { schedule, climate } = this;
    this.setting.network.weather = climate.weather;
    for (const agent of this.agents) agent.start();
    for (const consumer of this.consumers) consumer.start();
    this.#adversary.run(this.#adversary.live(), () => {});
    for (const payer of this.#payers) payer.start();
    if (this.#payers.length > 0) this.#thief.run(this.#thief.live(), () => {});
    // First there must be leases between which jobs can move.
    const calmMs = climate.isScattered ? 30_000 : 5_000;
    if (climate.faults.length > 0) schedule.at(schedule.now + calmMs, "faults begin", () => this.#strike());
  }

  #strike(): void {
    if (this.#isHealed) return;
    const name = this.#faultRandom.pick(this.climate.faults);
    FAULTS[name]?.(this, this.#faultRandom);
    this.#lastFault = name;
    const { schedule } = this;
    schedule.at(schedule.now + this.#faultRandom.wait(this.climate.meanPauseMs), "fault", () =>
      this.#strike(),
    );
  }

  #lastFault = "";

  /** The fault that struck last, for a trace. */
  get lastFault(): string {
    return this.#lastFault;
  }

  /** The machines leave for good: what is left is left to time and the chain. */
  end(): void {
    this.isOver = true;
    for (const agent of this.agents) agent.leave();
  }

  /** From here on nothing fails any more, and nobody wants anything new. */
  heal(): void {
    this.#isHealed = true;
    this.#adversary.isDone = true;
    this.#thief.isDone = true;
    for (const payer of this.#payers) payer.run(payer.leave(), () => {});
    const { network, meter, relayer, chain, schedule } = this.setting;
    chain.fullUntil = 0;
    network.weather = CALM;
    for (const each of [meter, relayer, ...this.agents]) each.downUntil = 0;
    for (const agent of this.agents) {
      agent.rpcDownUntil = 0;
      // One that starts now has said hello by then, and is not welcomed yet.
      schedule.at(schedule.now + 1_030, `${agent.name} is given back`, () => agent.claim(0));
    }
    for (const consumer of this.consumers) {
      consumer.isDone = true;
      schedule.at(schedule.now + 60_000, `${consumer.name} closes all`, () =>
        consumer.run(consumer.closeAll(), () => {}),
      );
    }
    // Again after the longest drain that may still be under way.
    for (const agent of this.agents)
      for (const after of [1_000, 70_000])
        schedule.at(schedule.now + after, `${agent.name} is back`, () => agent.start());
  }
}

function found<Key, Value>(map: Map<Key, Value>, key: Key, make: () => Value): Value {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  return made;
}

function offerOf(random: Random, isSpot: boolean): Offer {
  const gpus = random.pick([1, 2, 4]);
  const gpuHour = random.pick([3_600_000n, 7_777_777n, 360_000n]);
  return {
    gpus: Array.from({ length: gpus }, () => ({
      model: "RTX_4090",
      reported: "NVIDIA GeForce RTX 4090",
      vram_mb: 24_000,
      driver: "570",
      backend: "vulkan",
      software: false,
    })),
    cpu: 16,
    memory_gb: 64,
    region: "local",
    prices: { gpu_hour: gpuHour, core_hour: 0n, gb_hour: 0n },
    concurrency: gpus,
    yieldable: random.chance(isSpot ? 1 : 0.5)
      ? { gpu_hour: gpuHour / 3n, core_hour: 0n, gb_hour: 0n }
      : null,
    gpus_per_lease: 64,
    duration_s: { min: 60, max: 7 * 86_400 },
    features: [],
    isolation: "process",
    models: [],
    // Half of them, without a draw of its own.
    start_price: gpuHour % 2n === 0n ? gpuHour / 30n : 0n,
  };
}
