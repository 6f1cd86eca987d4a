import { rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { availableParallelism, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import type { Bench, BenchSettings } from "../bench.ts";
import { startHttpClient, startStreamClient } from "../load/client.ts";
import type { Report } from "../report.ts";
import { type Round, rowsOf } from "../rounds.ts";
import { type Contender, onPath, type Stage } from "./contenders/contender.ts";
import { CONTENDERS } from "./contenders/contenders.ts";
import { SYNCS_MISSING } from "./fsyncs.ts";
import { goalsOf } from "./goals.ts";
import { type BenchMarket, openBenchMarket } from "./market.ts";
import { type Entrant, measureRounds, SYNCED_AT } from "./sections.ts";

const CONNECTIONS = [1, 16] as const;
/** Outputs of 64 MiB that are on their way at once. */
const STREAMS = [1, 4] as const;
/** Lengths of a section: a job of 64 MiB takes longer than one of 256 bytes. */
const BULK_SECTION = 4;
const BASES = ["bulk-direct", "direct", "nats", "nats-raw", "jetstream", "bullmq-always"] as const;

/** A job on a lease, in all the ways there are to ask for one, beside what else one could build. */
export const dispatch: Bench = {
  variants: [...CONTENDERS.jobs, ...CONTENDERS.bulk],
  async run(settings) {
    const connections = settings.connections ?? CONNECTIONS;
    const isChosen = ({ name }: Contender) => settings.only?.includes(name) ?? true;
    const jobs = CONTENDERS.jobs.filter(isChosen);
    const bulk = CONTENDERS.bulk.filter(isChosen);
    const syncs = settings.connections?.includes(SYNCED_AT) ?? true;
    const leases = Math.max(...(jobs.length > 0 ? connections : []), ...(bulk.length > 0 ? STREAMS : []));
    return onStage(leases, async (stage) => {
      const { entrants, lacks } = await startAll(stage, [...jobs, ...bulk], settings, syncs);
      const [large, small] = split(entrants, ({ started }) => started.bytesPerTurn !== undefined);
      const rounds = await measureRounds(small, { connections, syncs }, stage.folder, settings);
      const longer = { ...settings, seconds: settings.seconds * BULK_SECTION };
      const streams = { connections: STREAMS, syncs: false, warmUpTurns: 8 };
      const bulkRounds = await measureRounds(large, streams, stage.folder, longer);
      const all = rounds.map((round, at) => new Map([...round, ...(bulkRounds[at] ?? [])]));
      return reportOf(all, settings, [...jobs, ...bulk], lacks);
    });
  },
};

/** What contenders need, brought up as they ask for it, and nothing left running afterwards. */
export async function onStage<T>(leases: number, use: (stage: Stage) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), "gpux-bench-"));
  // A signal ends us without another turn of the loop.
  const sweep = () => rmSync(folder, { recursive: true, force: true });
  process.once("exit", sweep);
  const stops: (() => Promise<void>)[] = [];
  const owned: Stage["owned"] = (started) => {
    stops.push(() => started.stop());
    return started;
  };
  let market: Promise<BenchMarket> | null = null;
  try {
    const generator = owned(startHttpClient(folder));
    const reader = owned(startStreamClient(folder));
    return await use({
      folder,
      owned,
      load: (load) => generator.run(load),
      stream: (load) => reader.run(load),
      market() {
        market ??= openBenchMarket(folder, leases).then(owned);
        return market;
      },
    });
  } finally {
    for (const stop of stops.reverse()) await stop();
    process.off("exit", sweep);
    sweep();
  }
}

async function startAll(
  stage: Stage,
  contenders: readonly Contender[],
  { say }: BenchSettings,
  syncs: boolean,
): Promise<{ readonly entrants: Entrant[]; readonly lacks: string[] }> {
  const entrants: Entrant[] = [];
  const lacks: string[] = [];
  for (const { name, start } of contenders) {
    say(`starting ${name}`);
    const started = await start(stage);
    if ("lacks" in started) lacks.push(`${name} was not measured: ${started.lacks}.`);
    else entrants.push({ name, started });
  }
  if (syncs && onPath("strace") === null) lacks.push(`Syncs were not counted: ${SYNCS_MISSING}.`);
  for (const lack of lacks) say(lack);
  return { entrants, lacks };
}

function split<T>(things: readonly T[], isFirst: (thing: T) => boolean): [T[], T[]] {
  return [things.filter(isFirst), things.filter((thing) => !isFirst(thing))];
}

/** Counts are of the whole run, and a ratio of counts says nothing. */
const isCount = (metric: string) => /^[cs][0-9]+ (jobs|errors)$/.test(metric);

function reportOf(
  rounds: readonly Round[],
  settings: BenchSettings,
  chosen: readonly Contender[],
  lacks: readonly string[],
): Report {
  const rows = rowsOf(rounds, BASES);
  const sums = new Map<string, number>();
  for (const round of rounds)
    for (const [variant, figures] of round)
      for (const [metric, value] of Object.entries(figures))
        sums.set(`${variant} ${metric}`, (sums.get(`${variant} ${metric}`) ?? 0) + value);
  const counted = new Set<string>();
  return {
    bench: "dispatch",
    rounds: settings.rounds,
    seconds: settings.seconds,
    rows: rows.flatMap((row) => {
      const name = `${row.variant} ${row.metric}`;
      if (!isCount(row.metric)) return [row];
      if (counted.has(name)) return [];
      counted.add(name);
      return [{ ...row, value: sums.get(name) ?? 0, ratio_to: null, ratio: null }];
    }),
    goals: goalsOf(rounds),
    notes: [
      `${availableParallelism()} processors, load average ${loadavg()
        .map((load) => load.toFixed(1))
        .join(" ")} (1, 5, 15 minutes) at the end, of which this bench is a part.`,
      ...chosen.map(({ name, about }) => `${name}: ${about}.`),
      "s1 and s4 are one and four outputs of 64 MiB on their way at once, several in a row, each stream on a lease of its own; a MB is a million bytes. A turn is the job and all of its bytes, and its first byte the output's, from when the job was asked for.",
      "c1 is on one lease, c16 on 16 leases, since a lease runs one job per GPU at a time; syncs are counted at 64 connections on one lease.",
      "Requests are signed before the clock starts; the client's signing is in no figure. Processor time is that of the servers and agents, with what they do after the answer (receipts, vouchers).",
      ...lacks,
    ],
  };
}
