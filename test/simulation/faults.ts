import { BEHIND_MS } from "@gpux/durable-objects/lease/deferral";
import type { JobId, LeaseId } from "@gpux/protocol/ids";
import type { AttemptToken } from "@gpux/protocol/job";
import type { Actor } from "./actor.ts";
import type { Agent } from "./agent.ts";
import type { BookObject } from "./book-object.ts";
import type { Consumer } from "./consumer.ts";
import type { LeaseObject } from "./lease-object.ts";
import type { Weather } from "./network.ts";
import type { NodeObject } from "./node-object.ts";
import type { Random } from "./random.ts";
import type { Setting } from "./setting.ts";

/** Whom faults can strike. */
export interface Targets {
  readonly setting: Setting;
  readonly agents: readonly Agent[];
  readonly consumers: readonly Consumer[];
  /** Attempts of a lease that the edge waits for. */
  live(lease: LeaseId): readonly { readonly job: JobId; readonly attempt: AttemptToken }[];
  /** The machines are gone for good. */
  readonly isOver: boolean;
  leases(): readonly LeaseObject[];
  nodes(): readonly NodeObject[];
  books(): readonly BookObject[];
  objects(): readonly Actor[];
}

type Fault = (targets: Targets, random: Random) => void;

const pick = <T>(random: Random, items: readonly T[]): T | null =>
  items.length === 0 ? null : random.pick(items);

function reviveLater(agent: Agent, targets: Targets, ms: number): void {
  const { schedule } = targets.setting;
  schedule.at(schedule.now + ms, `${agent.name} comes back`, () => {
    if (!targets.isOver) agent.start();
  });
}

/** Each by its name, so that a seed can say which of them it knows. */
export const FAULTS: Readonly<Record<string, Fault>> = {
  /** An object is put to sleep: its memory goes, its sockets stay. */
  evict(targets, random) {
    const lease = pick(random, targets.leases());
    lease?.crash(true);
    if (random.chance(0.3)) pick(random, targets.nodes())?.crash(true);
  },
  /** An object dies between two events, or right after what it wrote; its sockets die with it. */
  crash(targets, random) {
    const behind = random.chance(0.5)
      ? pick(
          random,
          targets.leases().filter((each) => each.isBehind),
        )
      : null;
    if (behind !== null) return behind.crash();
    const object = pick(random, targets.objects());
    if (object === null) return;
    if (random.chance(0.5)) return object.crash();
    const { life } = object;
    object.doomed = true;
    const { schedule } = targets.setting;
    schedule.at(
      schedule.now + random.int(1, 500),
      `${object.name} dies`,
      () => object.life === life && object.crash(),
    );
  },
  /** A lease dies between its answer and the write behind it. */
  forget(targets) {
    for (const lease of targets.leases()) lease.trap();
  },
  /** A deploy: every object of the edge at once. */
  deploy(targets) {
    for (const object of targets.objects()) object.crash();
  },
  /** A wire breaks; each side hears of it in its own time. */
  cut(targets, random) {
    const agent = pick(random, targets.agents);
    const slow = random.chance(0.3);
    agent?.cut(
      random.int(5, slow ? 60_000 : 500),
      random.chance(0.1) ? null : random.int(5, slow ? 120_000 : 500),
    );
  },
  /** A provider is away for a while, its machine running on. */
  offline(targets, random) {
    const agent = pick(random, targets.agents);
    if (agent === null) return;
    agent.downUntil = targets.setting.schedule.now + random.pick([10_000, 150_000, 250_000, 1_000_000]);
    agent.cut(random.int(5, 60_000), random.int(5, 60_000));
  },
  kill(targets, random) {
    const agent = pick(random, targets.agents);
    if (agent === null || !agent.isRunning) return;
    agent.die(false);
    reviveLater(agent, targets, random.pick([500, 5_000, 60_000, 400_000]));
  },
  power(targets, random) {
    const agent = pick(random, targets.agents);
    if (agent === null || !agent.isRunning) return;
    agent.die(true);
    reviveLater(agent, targets, random.pick([20_000, 150_000, 1_200_000]));
  },
  drain(targets, random) {
    const agent = pick(random, targets.agents);
    if (agent === null || !agent.isRunning) return;
    const ms = random.int(1_000, 60_000);
    agent.drain(ms);
    reviveLater(agent, targets, ms + random.int(1_000, 100_000));
  },
  /** An owner wants GPUs for himself, most of all where somebody else's work runs on them, or gives them back. */
  claim(targets, random) {
    const asked = pick(
      random,
      targets.agents.filter((agent) => agent.hasYieldableWork()),
    );
    if (asked !== null && random.chance(0.7)) return asked.claim(asked.provider.offer.gpus.length);
    const agent = pick(random, targets.agents);
    agent?.claim(random.int(0, agent.provider.offer.gpus.length));
  },
  /** A provider tells the result of an attempt that nobody asked it for. */
  lie(targets, random) {
    const agent = pick(random, targets.agents);
    const lease = agent === null ? null : pick(random, [...agent.leases.values()]);
    const of = lease === null ? [] : targets.live(lease.id);
    if (lease !== null && of.length > 0) lease.lie(random.pick(of));
  },
  /** A service is not reached for a while. */
  outage({ setting, agents }, random) {
    const until = setting.schedule.now + random.pick([2_000, 20_000, 120_000]);
    const dice = random.next();
    if (dice < 0.4) setting.meter.downUntil = until;
    else if (dice < 0.8) setting.relayer.downUntil = until;
    else for (const agent of agents) agent.rpcDownUntil = Math.min(until, setting.schedule.now + 20_000);
  },
  reorganisation({ setting }) {
    setting.chain.reorganise();
  },
  /** Blocks are full for a while: what is sent lands late, or too late. */
  congestion({ setting }, random) {
    setting.chain.fullUntil = setting.schedule.now + random.pick([10_000, 60_000, 300_000]);
  },
  /** Somebody else lands an intent that the relayer was asked for. */
  stranger({ setting }, random) {
    setting.relayer.supersede((intents) => random.pick(intents));
  },
  /** A shard of the Book is lost with its rows. */
  book(targets, random) {
    pick(random, targets.books())?.lose();
  },
  client(targets, random) {
    pick(random, targets.consumers)?.restart();
  },
};

/** What a seed's world suffers from: some worlds know few faults and often, others all of them now and then. */
export interface Climate {
  readonly weather: Weather;
  readonly faults: readonly string[];
  readonly meanPauseMs: number;
  /** As in setting.ts: a disk that is slow shows what a moment hides. */
  readonly behindMs: number;
  /** Yieldable leases, long jobs, and owners who want their machines back all the time. */
  readonly isSpot: boolean;
  /** Leases of one account on many nodes, which are there now and then: what waits on one moves to another. */
  readonly isScattered: boolean;
}

export function climateOf(random: Random): Climate {
  const isRough = random.chance(0.7);
  const isSpot = random.chance(0.2);
  const faults = Object.keys(FAULTS).filter(() => random.chance(0.5));
  return {
    weather: {
      meanDelay: random.pick([2, 10, 50]),
      slow: isRough ? random.pick([0, 0.02, 0.1]) : 0,
      stall: isRough ? random.pick([0, 0, 0.002, 0.02]) : 0,
      loseRequest: isRough ? random.pick([0, 0.01, 0.08]) : 0,
      loseReply: isRough ? random.pick([0, 0.01, 0.08]) : 0,
      repeat: isRough ? random.pick([0, 0.02, 0.15]) : 0,
    },
    faults: isSpot ? [...faults, ...faults.map(() => "claim"), "claim"] : faults,
    meanPauseMs: random.pick([2_000, 8_000, 30_000]),
    behindMs: random.pick([BEHIND_MS, 4_000]),
    isSpot,
    isScattered: false,
  };
}

/** What a chain may do to money is seen in the other worlds: here it is about nodes. */
const OF_CHAIN: ReadonlySet<string> = new Set(["reorganisation", "congestion", "stranger"]);

/** Nodes of one GPU each go for long, stop and give way all the time, and whoever has a lease has one on another node too. */
export function scattered(climate: Climate): Climate {
  const known = climate.faults.filter((name) => !OF_CHAIN.has(name));
  const faults = [...known, "drain", "drain", "claim", "offline", "kill", "evict"];
  return { ...climate, faults, meanPauseMs: Math.min(climate.meanPauseMs, 8_000), isScattered: true };
}

/** For those who ask for job after job: disks are slow, and objects die with what they have not written. */
export function hurried(climate: Climate): Climate {
  const faults = [...climate.faults, "crash", "crash", "crash"];
  return { ...climate, faults, meanPauseMs: Math.min(climate.meanPauseMs, 8_000), behindMs: 4_000 };
}
