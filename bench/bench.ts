import type { Report } from "./report.ts";

export interface BenchSettings {
  readonly rounds: number;
  /** Of each section: one variant at one concurrency in one round. */
  readonly seconds: number;
  /** Names of the variants to be measured; all of them by default. */
  readonly only?: readonly string[];
  /** Of each variant so many at once, one after the other; the bench's own choice by default. */
  readonly connections?: readonly number[];
  /** Progress, for people. */
  readonly say: (line: string) => void;
}

/** A bench starts what it measures, measures it in interleaved rounds, and leaves nothing running. */
export interface Bench {
  /** Those that `only` can choose from; none where it cannot be chosen. */
  readonly variants?: readonly { readonly name: string; readonly about: string }[];
  run(settings: BenchSettings): Promise<Report>;
}
