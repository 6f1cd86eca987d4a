import { rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { availableParallelism, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import type { Bench, BenchSettings } from "../bench.ts";
import { startHttpClient } from "../load/client.ts";
import type { Report } from "../report.ts";
import { type Round, rowsOf } from "../rounds.ts";
import { type Contender, onPath, type Stage } from "./contenders/contender.ts";
import { CONTENDERS } from "./contenders/contenders.ts";
import { SYNCS_MISSING } from "./fsyncs.ts";
import { goalsOf } from "./goals.ts";
import { type BenchMarket, openBenchMarket } from "./market.ts";
import { type Entrant, measureRounds, SYNCED_AT } from "./sections.ts";

const CONNECTIONS = [1, 16] as const;
const BASES = ["direct", "nats", "nats-raw", "jetstream", "bullmq-always"] as const;

/** A job on a lease, in all the ways there are to ask for one, beside what else one could build. */
export const dispatch: Bench = {
  variants: CONTENDERS,
  async run(settings) {
    const connections = settings.connections ?? CONNECTIONS;
    const chosen = CONTENDERS.filter(({ name }) => settings.only?.includes(name) ?? true);
    const syncs = settings.connections?.includes(SYNCED_AT) ?? true;
    return onStage(Math.max(...connections), async (stage) => {
      const { entrants, lacks } = await startAll(stage, chosen, settings, syncs);
      const rounds = await measureRounds(entrants, { connections, syncs }, stage.folder, settings);
      return reportOf(rounds, settings, chosen, lacks);
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
    return await use({
      folder,
      owned,
      load: (load) => generator.run(load),
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

/** Counts are of the whole run, and a ratio of counts says nothing. */
const isCount = (metric: string) => /^c[0-9]+ (jobs|errors)$/.test(metric);

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
      "c1 is on one lease, c16 on 16 leases, since a lease runs one job per GPU at a time; syncs are counted at 64 connections on one lease.",
      "Requests are signed before the clock starts; the client's signing is in no figure. Processor time is that of the servers and agents, with what they do after the answer (receipts, vouchers).",
      ...lacks,
    ],
  };
}
