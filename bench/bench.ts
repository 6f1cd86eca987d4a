import type { Report } from "./report.ts";

export interface BenchSettings {
  readonly rounds: number;
  /** Of each section: one variant at one concurrency in one round. */
  readonly seconds: number;
  /** Progress, for people. */
  readonly say: (line: string) => void;
}

/** A bench starts what it measures, measures it in interleaved rounds, and leaves nothing running. */
export interface Bench {
  run(settings: BenchSettings): Promise<Report>;
}
