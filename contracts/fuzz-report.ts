import { availableParallelism } from "node:os";
import { EFFORTS } from "./effort.ts";

/** A long run of the Solidity tests. */
export interface Played {
  /** The runner's exit status; null: a signal ended it. */
  readonly status: number | null;
  /** What the runner printed. */
  readonly output: string;
  readonly seconds: number;
}

/** Whatever the runner says that it ran, and nothing that we only asked for. */
function reported(output: string) {
  const played = [...output.matchAll(/✔ ((?:testFuzz|invariant)_\w+)\(.*\) \(runs: (\d+)\)/g)].map(
    ([, name = "", runs]) => ({ name, runs: Number(runs) }),
  );
  return {
    fuzz: played.filter(({ name }) => name.startsWith("testFuzz_")),
    invariants: played.filter(({ name }) => name.startsWith("invariant_")),
    passing: Number(/(\d+) passing/.exec(output)?.[1] ?? 0),
    failing: Number(/(\d+) failing/.exec(output)?.[1] ?? 0),
  };
}

const count = (value: number) => value.toLocaleString("en-US");

/** docs/fuzz.md: what was run, from which seed, and what came of it. */
export function fuzzReport(seed: string, { status, output, seconds }: Played, ended: Date): string {
  const { fuzz, invariants, passing, failing } = reported(output);
  const { depth } = EFFORTS.long;
  const rows = [
    ...fuzz.map(({ name, runs }) => `| \`${name}\` | ${count(runs)} | ${count(runs)} |`),
    ...invariants.map(
      ({ name, runs }) =>
        `| \`${name}\` | ${count(runs)} sequences of ${depth} acts | ${count(runs * depth)} |`,
    ),
  ];
  const total =
    fuzz.reduce((sum, { runs }) => sum + runs, 0) +
    invariants.reduce((sum, { runs }) => sum + runs * depth, 0);
  const outcome = status === 0 ? "all passed" : `**exit status ${status}**`;
  return `# The long run of the escrow's tests

Written by \`npm run test:long\` (\`contracts/long.ts\`), which plays every Solidity test at length from a new seed. What the
tests hold is in [security.md](security.md); an act of the invariant's handler that reverts is a failure.

- Last run: ${ended.toISOString().slice(0, 16).replace("T", " ")} UTC, ${Math.round(seconds / 60)} minutes on ${availableParallelism()} cores.
- Outcome: ${outcome}; ${passing} tests passing, ${failing} failing; ${count(total)} calls by fuzz tests and invariants that passed.
- To play it again: \`npm run test:long -- --seed ${seed}\`

| test | runs | calls |
|---|---|---|
${rows.join("\n")}
`;
}
