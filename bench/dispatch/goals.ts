import type { Goal } from "../report.ts";
import { median, pairedRatio, type Round } from "../rounds.ts";

interface RatioGoal {
  readonly goal: string;
  readonly variant: string;
  readonly base: string;
  readonly metric: string;
  readonly target: number;
  readonly is: "at most" | "at least";
}

/** Issue 4's goals; `warm` is signed by a session's key, as DESIGN's warm path is. */
const GOALS: readonly RatioGoal[] = [
  {
    goal: "warm p50 (session key) over NATS gateway's, one connection",
    ...{ variant: "warm-session", base: "nats", metric: "c1 p50_us", target: 0.9, is: "at most" },
  },
  {
    goal: "warm jobs/s (session key) over NATS gateway's, 16 connections",
    ...{ variant: "warm-session", base: "nats", metric: "c16 jobs_per_s", target: 1.1, is: "at least" },
  },
  {
    goal: "asynchronous p50 over JetStream's, one connection",
    ...{ variant: "warm-async", base: "jetstream", metric: "c1 p50_us", target: 0.9, is: "at most" },
  },
  {
    goal: "asynchronous jobs/s over durable BullMQ's, 16 connections",
    ...{
      variant: "warm-async",
      base: "bullmq-always",
      metric: "c16 jobs_per_s",
      target: 1.5,
      is: "at least",
    },
  },
  {
    goal: "jobs/s in batches of 16 over direct's, one connection",
    ...{ variant: "warm-batch", base: "direct", metric: "c1 jobs_per_s", target: 1.5, is: "at least" },
  },
  {
    goal: "session socket p50 over direct's, one connection",
    ...{ variant: "session-socket", base: "direct", metric: "c1 p50_us", target: 2.5, is: "at most" },
  },
  {
    goal: "session socket jobs/s over raw NATS's, 16 connections",
    ...{
      variant: "session-socket",
      base: "nats-raw",
      metric: "c16 jobs_per_s",
      target: 1.25,
      is: "at least",
    },
  },
  {
    goal: "MB/s of 64 MiB outputs over direct streaming's, one stream",
    ...{ variant: "bulk", base: "bulk-direct", metric: "s1 mb_per_s", target: 0.65, is: "at least" },
  },
  {
    goal: "MB/s of 64 MiB outputs over direct streaming's, 4 streams",
    ...{ variant: "bulk", base: "bulk-direct", metric: "s4 mb_per_s", target: 0.65, is: "at least" },
  },
];

/** At concurrency 64 on one lease. */
export const SYNCS = "c64 fsyncs_per_job";
const MOST_SYNCS = 0.1;

/** How the goals were met; what they need and was not measured is null. */
export function goalsOf(rounds: readonly Round[]): Goal[] {
  const ratios = GOALS.map(({ goal, variant, base, metric, target, is }) => {
    const measured = pairedRatio(rounds, metric, variant, base);
    const met = measured === null ? null : is === "at most" ? measured <= target : measured >= target;
    return { goal: `${goal}, ${is}`, target, measured, met };
  });
  const counted = rounds.flatMap((round) => round.get("warm-async")?.[SYNCS] ?? []);
  const syncs = counted.length === 0 ? null : median(counted);
  return [
    ...ratios,
    {
      goal: "syncs of a file per asynchronous job, 64 connections on one lease, at most",
      target: MOST_SYNCS,
      measured: syncs,
      met: syncs === null ? null : syncs <= MOST_SYNCS,
    },
  ];
}
