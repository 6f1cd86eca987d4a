import { rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { availableParallelism, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { sha256Hex } from "@gpux/protocol/canonical";
import { packManifest } from "@gpux/protocol/manifest";
import type { Bench, BenchSettings } from "../bench.ts";
import type { Child } from "../child.ts";
import type { Lane } from "../load/closed-loop.ts";
import { type Generator, quantile, startGenerator } from "../load/generator.ts";
import { atRest, processorUs } from "../processor-time.ts";
import type { Goal, Report } from "../report.ts";
import { type Figures, pairedRatio, type Round, rotated, rowsOf } from "../rounds.ts";
import { echoManifest, PAYLOAD_BYTES } from "./echo.ts";
import { type BenchMarket, openBenchMarket } from "./market.ts";
import { NATS_MISSING, type PlainServer, startDirect, startNats } from "./nats.ts";

const CONCURRENCIES = [1, 16] as const;
const BASES = ["direct", "nats"] as const;
/**
 * Sent before the first round and not counted, over all connections: sockets are dialled, the function is fetched, and
 * V8 compiles in earnest only what has run some hundred times; before, a job costs twice as much.
 */
const WARM_UP_JOBS = 320;
/** The oldest unsigned receipt is settled after so long (durable-objects/lease/blocks.ts). */
const SETTLED_MS = 2_000;
/** In lengths of a section. */
const LONGEST_WARM_UP = 5;
/** Signed beforehand above what the last section of the same kind used. */
const SPARE = 1.5;
const EXPECT = '"status":"succeeded"';

interface Variant {
  readonly name: string;
  readonly port: number;
  readonly processes: readonly Child[];
  /** Its lanes repeat one request and never run dry. */
  readonly endless: boolean;
  /** For so many connections; `jobs` is the most that one of them may need. */
  lanes(concurrency: number, jobs: number): Promise<Lane[]>;
}

/** The warm path beside a direct HTTP call to the same agent code and NATS request-reply. */
export const dispatch: Bench = {
  async run(settings) {
    const folder = await mkdtemp(join(tmpdir(), "gpux-bench-"));
    // A signal ends us without another turn of the loop.
    const sweep = () => rmSync(folder, { recursive: true, force: true });
    process.once("exit", sweep);
    const children: (() => Promise<void>)[] = [];
    try {
      settings.say("starting chain, workerd, agents and leases");
      const direct = await startDirect(folder);
      const nats = await startNats(folder);
      for (const each of [...direct.processes, ...(nats?.processes ?? [])]) children.push(each.stop);
      if (nats === null) settings.say(NATS_MISSING);
      const market = await openBenchMarket(folder, Math.max(...CONCURRENCIES));
      children.push(market.stop);
      const generator = startGenerator(folder);
      children.push(generator.stop);
      const variants = [
        await plainVariant("direct", direct),
        ...(nats === null ? [] : [await plainVariant("nats", nats)]),
        warmVariant("warm", market, false),
        warmVariant("warm-output", market, true),
      ];
      const rounds = await measure(variants, generator, settings);
      return reportOf(rounds, settings, nats !== null);
    } finally {
      for (const stop of children.reverse()) await stop();
      process.off("exit", sweep);
      sweep();
    }
  },
};

async function plainVariant(name: string, { port, processes }: PlainServer): Promise<Variant> {
  const body = JSON.stringify({
    function: await sha256Hex(packManifest(echoManifest(true))),
    inputs: { data: { base64: Buffer.alloc(PAYLOAD_BYTES, 7).toString("base64") } },
    execution_ms: 120_000,
  });
  const head = `POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: ${body.length}`;
  const lane = { again: Buffer.from(`${head}\r\n\r\n${body}`) };
  return {
    name,
    port,
    processes,
    endless: true,
    lanes: async (concurrency) => Array.from({ length: concurrency }, () => lane),
  };
}

function warmVariant(name: string, market: BenchMarket, returns: boolean): Variant {
  return {
    name,
    port: market.port,
    processes: [market.workerd, market.agents],
    endless: false,
    async lanes(concurrency, jobs) {
      const lanes: Lane[] = [];
      for (let lease = 0; lease < concurrency; lease += 1)
        lanes.push({ once: await market.signedJobs(lease, jobs, returns) });
      return lanes;
    },
  };
}

async function measure(
  variants: readonly Variant[],
  generator: Generator,
  settings: BenchSettings,
): Promise<Round[]> {
  const { rounds, seconds, say } = settings;
  /** Jobs per second and connection that a variant reached, by variant and concurrency. */
  const reached = new Map<string, number>();
  const section = async (variant: Variant, concurrency: number, ms: number, jobs: number) => {
    const lanes = await variant.lanes(concurrency, Math.ceil(jobs));
    const pids = variant.processes.map(({ pid }) => pid);
    await atRest([...pids, process.pid]);
    const before = pids.map(processorUs);
    const loaded = await generator.run({ port: variant.port, lanes, ms, expect: EXPECT });
    // The last receipts are settled this much later, and belong to these jobs.
    if (!variant.endless) await wait(SETTLED_MS);
    await atRest(pids);
    const after = pids.map(processorUs);
    if (loaded.errors > 0) say(`${variant.name}: ${loaded.errors} errors, the first: ${loaded.sample}`);
    const rate = loaded.jobs / (loaded.wallMs / 1_000);
    reached.set(`${variant.name} ${concurrency}`, rate / concurrency);
    const spent = after.map((us, i) => {
      const since = before[i] ?? null;
      return us === null || since === null || loaded.jobs === 0 ? null : (us - since) / loaded.jobs;
    });
    return { loaded, rate, spent };
  };

  for (const variant of variants)
    for (const concurrency of CONCURRENCIES) {
      const ms = seconds * 1_000 * (variant.endless ? 1 : LONGEST_WARM_UP);
      await section(variant, concurrency, ms, WARM_UP_JOBS / concurrency / CONCURRENCIES.length);
    }
  const measured: Round[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const figures = new Map<string, Figures>();
    for (const variant of rotated(variants, round)) {
      const all: Record<string, number> = {};
      for (const concurrency of CONCURRENCIES) {
        const perLane = (reached.get(`${variant.name} ${concurrency}`) ?? 0) * seconds * SPARE;
        const { loaded, rate, spent } = await section(variant, concurrency, seconds * 1_000, perLane + 5);
        const c = `c${concurrency}`;
        all[`${c} p50_us`] = quantile(loaded.latenciesUs, 0.5);
        all[`${c} p99_us`] = quantile(loaded.latenciesUs, 0.99);
        all[`${c} jobs_per_s`] = rate;
        Object.assign(all, processorFigures(c, variant.processes, spent));
        all[`${c} jobs`] = loaded.jobs;
        all[`${c} errors`] = loaded.errors;
      }
      figures.set(variant.name, all);
    }
    measured.push(figures);
    say(`round ${round + 1} of ${rounds}, load average ${loadavg()[0]?.toFixed(1)}`);
  }
  return measured;
}

/** All of a variant's processes, and each where there are several; nothing where the system keeps no account. */
function processorFigures(
  c: string,
  processes: readonly Child[],
  spent: readonly (number | null)[],
): Record<string, number> {
  let total = 0;
  const figures: Record<string, number> = {};
  for (const [i, process] of processes.entries()) {
    const us = spent[i] ?? null;
    if (us === null) return {};
    total += us;
    if (processes.length > 1) figures[`${c} cpu_us_per_job of ${process.name}`] = us;
  }
  return { [`${c} cpu_us_per_job`]: total, ...figures };
}

/** Counts are of the whole run, and a ratio of counts says nothing. */
const isCount = (metric: string) => /^c[0-9]+ (jobs|errors)$/.test(metric);

function reportOf(rounds: readonly Round[], settings: BenchSettings, withNats: boolean): Report {
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
      "warm: POST /v1/leases/{id}/jobs with Prefer: wait, every check on; c1 on one lease, c16 on 16 leases, since a lease runs one job per GPU at a time. The answer carries no output.",
      "warm-output: the same, and the job's 256 bytes come back as an output, which the agent uploads to the object store before it ends the job. The store is in memory.",
      "direct and nats answer with the same 256 bytes inline; nats is an HTTP gateway, nats-server and a responder.",
      "Requests are signed before the clock starts; the client's signing is in no figure. Processor time is that of the servers and agents, with what they do after the answer (receipts, vouchers).",
      ...(withNats ? [] : [NATS_MISSING]),
    ],
  };
}

/** Issue 4's goals for the synchronous warm job, as far as this bench reaches. */
function goalsOf(rounds: readonly Round[]): Goal[] {
  const goal = (text: string, metric: string, isMost: boolean, target: number): Goal => {
    const measured = pairedRatio(rounds, metric, "warm", "nats");
    const met = measured === null ? null : isMost ? measured <= target : measured >= target;
    return { goal: text, target, measured, met };
  };
  return [
    goal("warm p50 over NATS gateway's, one connection, at most", "c1 p50_us", true, 0.9),
    goal("warm jobs/s over NATS gateway's, 16 connections, at least", "c16 jobs_per_s", false, 1.1),
  ];
}
