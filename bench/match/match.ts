import { Book } from "@gpux/durable-objects/book/machine";
import type { BookEntry } from "@gpux/durable-objects/interfaces";
import type { Demand } from "@gpux/protocol/resources";
import type { Bench, BenchSettings } from "../bench.ts";
import type { Goal, Report } from "../report.ts";
import { median, type Round, rotated, rowsOf } from "../rounds.ts";
import { impossibleDemand, NOW, population, seeded, typicalDemand } from "./population.ts";
import { openSqlMarket, type SqlMarket } from "./sql-market.ts";

/** Different demands in turn, so that no branch and no cache line is always the same one. */
const DEMANDS = 512;
/** Answers of both that are compared before anything is measured. */
const CHECKED = 200;
const BATCH = 512;

export const match: Bench = {
  run: (settings) => measureMatch([1_000, 100_000, 1_000_000], settings),
};

/** A market of one size in both forms, and what is asked of it. */
interface Scene {
  readonly name: string;
  readonly book: Book;
  readonly sql: SqlMarket;
  readonly typical: readonly Demand[];
  readonly impossible: readonly Demand[];
  /** Nodes with a free GPU, to be held and released. */
  readonly holdable: readonly Hold[];
}

/** A node's publications when one of its GPUs is taken, and when it is free again. */
interface Hold {
  readonly taken: BookEntry;
  readonly free: BookEntry;
}

export async function measureMatch(sizes: readonly number[], settings: BenchSettings): Promise<Report> {
  const { rounds, seconds, say } = settings;
  const done: Map<string, Record<string, number>>[] = Array.from({ length: rounds }, () => new Map());
  const notes: string[] = [];
  // One size after another: a million offers in both forms are all that memory should have to hold.
  for (const size of sizes) {
    say(`${nameOf(size)} offers`);
    const started = performance.now();
    const scene = sceneOf(size);
    notes.push(
      `${scene.name}: both hold the same ${size.toLocaleString("en-US")} offers, and gave the same answers to ${CHECKED} typical demands and ${CHECKED} that nothing fits; built in ${Math.round((performance.now() - started) / 1_000)} s.`,
    );
    for (const [index, round] of done.entries()) {
      for (const variant of rotated(["sqlite", "book"] as const, index)) {
        const figures = round.get(variant) ?? {};
        round.set(variant, { ...figures, ...measured(scene, variant, seconds) });
      }
    }
    scene.sql.close();
  }
  const all: readonly Round[] = done;
  return {
    bench: "match",
    rounds,
    seconds,
    rows: rowsOf(all, ["sqlite"]),
    goals: goalsOf(all, sizes),
    notes: [
      ...notes,
      "typical: the best offer for a model in a region, with GPUs and often cores, memory, VRAM or isolation. nothing: what no offer fits although each part of it is common; book counts by how many offers each condition fails, sqlite only finds that there is none.",
      "hold: one GPU of a node taken and given back, two changes. Commit to disk, RPC and HTTP are in neither.",
    ],
  };
}

function sceneOf(size: number): Scene {
  const book = new Book();
  for (const entry of population(size)) book.apply({ t: "put", entry }, NOW);
  const sql = openSqlMarket(population(size));
  const random = seeded(1);
  const typical: Demand[] = [];
  while (typical.length < DEMANDS) {
    const demand = typicalDemand(random);
    // At a thousand offers most that one could ask for is not there.
    if (sql.find(demand) !== null) typical.push(demand);
  }
  const impossible = Array.from({ length: DEMANDS }, () => impossibleDemand(random));
  for (const demand of [...typical.slice(0, CHECKED), ...impossible.slice(0, CHECKED)]) {
    const found = book.find(demand, 1, NOW).entries[0]?.node ?? null;
    const expected = sql.find(demand);
    if (found !== expected)
      throw new Error(`book finds ${found} and sqlite ${expected} for ${JSON.stringify(demand)}`);
  }
  const lost = impossible.find((demand) => sql.find(demand) !== null);
  if (lost !== undefined) throw new Error(`something fits ${JSON.stringify(lost)}`);
  // A publication comes over RPC: nothing in it is the object that the Book has already.
  const holdable = book
    .list(null, 4_096)
    .filter(({ free }) => free > 0)
    .map((entry) => ({
      taken: structuredClone({ ...entry, free: entry.free - 1 }),
      free: structuredClone(entry),
    }));
  return { name: nameOf(size), book, sql, typical, impossible, holdable };
}

function measured(scene: Scene, variant: "book" | "sqlite", seconds: number): Record<string, number> {
  const { name, book, sql, typical, impossible, holdable } = scene;
  const find =
    variant === "book"
      ? (demand: Demand) => void book.find(demand, 1, NOW)
      : (demand: Demand) => void sql.find(demand);
  const publish =
    variant === "book"
      ? (entry: BookEntry) => void book.apply({ t: "put", entry }, NOW)
      : (entry: BookEntry) => sql.setFree(entry.node, entry.free);
  return {
    [`${name} typical_us`]: microseconds(typical, seconds, find),
    [`${name} nothing_us`]: microseconds(impossible, seconds, find),
    [`${name} hold_us`]: microseconds(holdable, seconds, ({ taken, free }) => {
      publish(taken);
      publish(free);
    }),
  };
}

/**
 * Of one call, over as many as fit into `seconds`, after a tenth of that to warm up: processor time of this thread, as
 * the system's scheduler charges it, so that neighbours on the same cores do not count.
 */
function microseconds<T>(items: readonly T[], seconds: number, call: (item: T) => void): number {
  let at = 0;
  const during = (ms: number) => {
    const started = process.threadCpuUsage();
    let calls = 0;
    let micros = 0;
    while (micros < ms * 1_000) {
      for (let i = 0; i < BATCH; i += 1) {
        const item = items[at % items.length];
        if (item !== undefined) call(item);
        at += 1;
      }
      calls += BATCH;
      const { user, system } = process.threadCpuUsage(started);
      micros = user + system;
    }
    return micros / calls;
  };
  during(seconds * 100);
  return during(seconds * 1_000);
}

function nameOf(size: number): string {
  return size >= 1_000_000 ? `${size / 1_000_000}M` : `${size / 1_000}k`;
}

/** Issue 4's goals, at the largest size. */
function goalsOf(rounds: readonly Round[], sizes: readonly number[]): Goal[] {
  const size = nameOf(Math.max(...sizes));
  const goal = (what: string, metric: string, target: number): Goal => {
    const values = rounds.flatMap((round) => round.get("book")?.[`${size} ${metric}`] ?? []);
    const value = values.length === 0 ? null : median(values);
    return {
      goal: `${what} at ${size} offers, us, at most`,
      target,
      measured: value,
      met: value === null ? null : value <= target,
    };
  };
  return [goal("typical find", "typical_us", 2), goal("nothing fits", "nothing_us", 1)];
}
