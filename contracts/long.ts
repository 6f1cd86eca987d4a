/**
 * Plays the Solidity tests at length, millions of calls from a seed of its own, and writes what came of it to
 * docs/fuzz.md. Half an hour on two cores.
 *
 * `node long.ts [--seed 0x<64 hex digits>]`: the seed that a failed run printed plays it again.
 */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { EFFORTS, FuzzSeed } from "./effort.ts";

const here = fileURLToPath(new URL(".", import.meta.url));
const hardhat = `${dirname(createRequire(import.meta.url).resolve("hardhat/package.json"))}/dist/src/cli.js`;

interface Played {
  readonly status: number | null;
  readonly output: string;
  readonly seconds: number;
}

async function play(seed: string): Promise<Played> {
  const started = performance.now();
  const child = spawn(process.execPath, [hardhat, "test", "solidity", "--chain-type", "op"], {
    cwd: here,
    env: { ...process.env, EFFORT: "long", FUZZ_SEED: seed, HARDHAT_DISABLE_TELEMETRY: "1" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => child.kill(signal));
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
    process.stdout.write(text);
  });
  const { promise, resolve, reject } = Promise.withResolvers<number | null>();
  child.once("error", reject).once("close", resolve);
  const status = await promise;
  return { status, output, seconds: (performance.now() - started) / 1_000 };
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

function page(seed: string, { status, output, seconds }: Played): string {
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

- Last run: ${new Date().toISOString().slice(0, 16).replace("T", " ")} UTC, ${Math.round(seconds / 60)} minutes on ${availableParallelism()} cores.
- Outcome: ${outcome}; ${passing} tests passing, ${failing} failing; ${count(total)} calls by fuzz tests and invariants that passed.
- To play it again: \`npm run test:long -- --seed ${seed}\`

| test | runs | calls |
|---|---|---|
${rows.join("\n")}
`;
}

const { values } = parseArgs({
  options: { seed: { type: "string" }, help: { type: "boolean", default: false } },
});
const seed = FuzzSeed.safeParse(values.seed ?? `0x${randomBytes(32).toString("hex")}`);
if (values.help)
  console.log("npm run test:long [-- --seed 0x<64 hex digits>]: half an hour; writes docs/fuzz.md");
else if (!seed.success) {
  console.error(`--seed takes 0x and 64 hex digits in lower case, not ${values.seed}`);
  process.exitCode = 2;
} else {
  console.log(`seed ${seed.data}`);
  const played = await play(seed.data);
  // Cut short, it says nothing about the contract.
  if (played.status === null) process.exitCode = 130;
  else {
    await writeFile(`${here}../docs/fuzz.md`, page(seed.data, played));
    console.log(`seed ${seed.data}; wrote docs/fuzz.md`);
    process.exitCode = played.status;
  }
}
