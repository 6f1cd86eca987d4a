import { z } from "zod";

/**
 * How long to play, by the environment's `EFFORT`. The default keeps `npm test` short; `long` is millions of calls, for
 * `npm run test:long`; `mutation` is for one of many runs, each with a fault planted. `fuzz`: runs of each fuzz test;
 * `runs` sequences of `depth` acts play the invariant.
 */
export const EFFORTS = {
  short: { fuzz: 128, runs: 48, depth: 64 },
  long: { fuzz: 65_536, runs: 8_192, depth: 256 },
  mutation: { fuzz: 32, runs: 24, depth: 60 },
} as const;

/** What the random draws follow from. */
export const FuzzSeed = z.templateLiteral(["0x", z.string().regex(/^[0-9a-f]{64}$/)]);

const Environment = z.object({
  EFFORT: z.enum(["short", "long", "mutation"]).default("short"),
  /** Absent: the runner's own, which is the same each time. */
  FUZZ_SEED: FuzzSeed.optional(),
});

/** Throws ZodError when the environment names no effort of ours. */
export function effortOf(environment: NodeJS.ProcessEnv) {
  const { EFFORT, FUZZ_SEED } = Environment.parse(environment);
  return { ...EFFORTS[EFFORT], seed: FUZZ_SEED };
}
