import { loadavg } from "node:os";
import { setTimeout as wait } from "node:timers/promises";
import type { BenchSettings } from "../bench.ts";
import { quantile } from "../load/client.ts";
import type { Loaded } from "../load/closed-loop.ts";
import { atRest, processorUs } from "../processor-time.ts";
import { type Figures, type Round, rotated } from "../rounds.ts";
import type { Shape, Started } from "./contenders/contender.ts";
import { countSyncs } from "./fsyncs.ts";
import { SYNCS } from "./goals.ts";

/**
 * Done before the first round and not counted, over all connections: sockets are dialled, the function is fetched, and
 * V8 compiles in earnest only what has run some hundred times; before, a job costs twice as much.
 */
const WARM_UP_TURNS = 320;
/** In lengths of a section. */
const LONGEST_WARM_UP = 5;
/** Prepared above what the last section of the same kind used. */
const SPARE = 1.5;
/** Connections at which syncs are counted. */
export const SYNCED_AT = 64;

export interface Plan {
  /** Turns before the first round, over all connections; by default as many as V8 needs. */
  readonly warmUpTurns?: number;
  /** At so many connections each, one after the other. */
  readonly connections: readonly number[];
  /** Whether syncs of files are counted as well. */
  readonly syncs: boolean;
}

export interface Entrant {
  readonly name: string;
  readonly started: Started;
}

interface Measured {
  readonly loaded: Loaded;
  readonly jobs: number;
  /** Processor time of each process, per job; null where the system keeps no account. */
  readonly spent: readonly (number | null)[];
}

/**
 * Rounds of sections: in each round every entrant has one at each number of connections, and those that keep jobs on
 * disk one in which their syncs are counted.
 */
export async function measureRounds(
  entrants: readonly Entrant[],
  { connections, syncs, warmUpTurns = WARM_UP_TURNS }: Plan,
  folder: string,
  { rounds, seconds, say }: BenchSettings,
): Promise<Round[]> {
  /** Turns per second of one connection. */
  const pace = new Map<string, number>();
  const ms = seconds * 1_000;

  const section = async ({ name, started }: Entrant, shape: Shape, length: number): Promise<Loaded> => {
    const run = await started.prepare(shape);
    const loaded = await run(length);
    if (loaded.errors > 0) say(`${name}: ${loaded.errors} errors, the first: ${loaded.sample}`);
    pace.set(`${name} ${shape.connections}`, loaded.turns / (loaded.wallMs / 1_000) / shape.connections);
    return loaded;
  };
  const paced = ({ name }: Entrant, at: number): Shape => {
    // At more connections than any before, each is no faster than the slowest then.
    const known = pace.get(`${name} ${at}`) ?? pace.get(`${name} ${Math.max(...connections)}`) ?? 0;
    return { connections: at, turns: Math.ceil(known * seconds * SPARE) + 5 };
  };
  const measured = async (entrant: Entrant, shape: Shape): Promise<Measured> => {
    const { processes, settledMs = 0, jobsPerTurn = 1 } = entrant.started;
    const pids = processes.map(({ pid }) => pid);
    await atRest([...pids, process.pid]);
    const before = pids.map(processorUs);
    const loaded = await section(entrant, shape, ms);
    await wait(settledMs);
    await atRest(pids);
    const jobs = loaded.turns * jobsPerTurn;
    const spent = pids.map((pid, index) => {
      const us = processorUs(pid);
      const since = before[index] ?? null;
      return us === null || since === null || jobs === 0 ? null : (us - since) / jobs;
    });
    return { loaded, jobs, spent };
  };
  const synced = async (entrant: Entrant): Promise<Figures> => {
    const { processes, jobsPerTurn = 1, settledMs = 0 } = entrant.started;
    const counting = await countSyncs(folder, processes);
    if (counting === null) return {};
    const loaded = await section(entrant, { ...paced(entrant, SYNCED_AT), leases: 1 }, ms);
    await wait(settledMs);
    const counted = await counting.stop();
    const jobs = loaded.turns * jobsPerTurn;
    if (jobs === 0) return {};
    const figures: Record<string, number> = {};
    for (const [index, { name }] of processes.entries())
      if (processes.length > 1) figures[`${SYNCS} of ${name}`] = (counted[index] ?? 0) / jobs;
    return { [SYNCS]: counted.reduce((sum, count) => sum + count, 0) / jobs, ...figures };
  };

  say("warming up");
  for (const entrant of entrants)
    for (const at of usableBy(entrant, connections)) {
      const turns = Math.ceil(warmUpTurns / at / connections.length);
      await section(entrant, { connections: at, turns }, ms * LONGEST_WARM_UP);
    }
  const all: Round[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const figures = new Map<string, Figures>();
    for (const entrant of rotated(entrants, round)) {
      const { name, started } = entrant;
      say(`round ${round + 1} of ${rounds}: ${name}`);
      let own: Figures = {};
      for (const at of usableBy(entrant, connections))
        own = { ...own, ...figuresOf(at, started, await measured(entrant, paced(entrant, at))) };
      if (syncs && started.durable === true) own = { ...own, ...(await synced(entrant)) };
      figures.set(name, own);
    }
    all.push(figures);
    say(`round ${round + 1} of ${rounds} done, load average ${loadavg()[0]?.toFixed(1)}`);
  }
  return all;
}

function usableBy({ started }: Entrant, connections: readonly number[]): number[] {
  const { most = Number.POSITIVE_INFINITY } = started;
  return [...new Set(connections.map((at) => Math.min(at, most)))];
}

function figuresOf(at: number, started: Started, measured: Measured): Figures {
  const { loaded, jobs, spent } = measured;
  const { latenciesUs, firstUs, wallMs, errors } = loaded;
  if (started.bytesPerTurn !== undefined)
    return bulkFigures(`s${at}`, started, measured, started.bytesPerTurn);
  const c = `c${at}`;
  return {
    [`${c} p50_us`]: quantile(latenciesUs, 0.5),
    [`${c} p99_us`]: quantile(latenciesUs, 0.99),
    ...(firstUs.length === 0 ? {} : { [`${c} accepted_p50_us`]: quantile(firstUs, 0.5) }),
    [`${c} jobs_per_s`]: jobs / (wallMs / 1_000),
    ...processorFigures(`${c} cpu_us_per_job`, started, spent, 1),
    [`${c} jobs`]: jobs,
    [`${c} errors`]: errors,
  };
}

/** A MB is a million bytes; the first byte is of the output, from the turn's begin. */
function bulkFigures(s: string, started: Started, { loaded, jobs, spent }: Measured, bytes: number): Figures {
  const { firstUs, wallMs, errors } = loaded;
  const mb = bytes / 1_000_000;
  return {
    [`${s} mb_per_s`]: (jobs * mb) / (wallMs / 1_000),
    [`${s} first_byte_ms`]: quantile(firstUs, 0.5) / 1_000,
    ...processorFigures(`${s} cpu_ms_per_mb`, started, spent, 1_000 * mb),
    [`${s} jobs`]: jobs,
    [`${s} errors`]: errors,
  };
}

/** All of an entrant's processes, and each where there are several; nothing where the system keeps no account. */
function processorFigures(
  metric: string,
  { processes }: Started,
  spent: readonly (number | null)[],
  unit: number,
): Figures {
  let total = 0;
  const figures: Record<string, number> = {};
  for (const [index, { name }] of processes.entries()) {
    const us = spent[index] ?? null;
    if (us === null) return {};
    total += us;
    if (processes.length > 1) figures[`${metric} of ${name}`] = us / unit;
  }
  return { [metric]: total / unit, ...figures };
}
