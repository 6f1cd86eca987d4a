import { parseArgs } from "node:util";
import type { Bench, BenchSettings } from "./bench.ts";
import { markdown } from "./report.ts";

interface Listed {
  readonly about: string;
  /** Null: what it counts is the same in every run, so that it knows no rounds and no seconds. */
  readonly timed: { readonly rounds: number; readonly seconds: number } | null;
  load(): Promise<Bench>;
}

const BENCHES: Readonly<Record<string, Listed>> = {
  dispatch: {
    about: "a job on a warm lease beside a direct HTTP call to the same agent code and NATS request-reply",
    timed: { rounds: 3, seconds: 1 },
    load: async () => (await import("./dispatch/dispatch.ts")).dispatch,
  },
  match: {
    about: "finding and holding among a thousand to a million offers beside the same market in SQLite",
    timed: { rounds: 5, seconds: 0.5 },
    load: async () => (await import("./match/match.ts")).match,
  },
  signatures: {
    about: "checking and making signatures in workerd: JavaScript, WebAssembly, WebCrypto, whole requests",
    timed: { rounds: 5, seconds: 1 },
    load: async () => (await import("./signatures/signatures.ts")).signatures,
  },
  settlement: {
    about: "gas, calldata and L1 fee beside an ERC-2771 forwarder and x402 exact",
    timed: null,
    load: async () => (await import("./settlement/settlement.ts")).settlement,
  },
};

const HELP = `npm run bench NAME -- [options]

Measures variants side by side in interleaved rounds and prints them as ratios, paired within each round.

${Object.entries(BENCHES)
  .map(([name, { about }]) => `  ${name.padEnd(13)} ${about}`)
  .join("\n")}

  --json        rows {variant, metric, value, ratio_to, ratio} and goals {goal, target, measured, met} on stdout
  --rounds N    1 to 100 rounds, where time is measured
  --seconds S   of each section, 0.1 to 60, where time is measured
  --only A,B    of dispatch: these variants alone (npm run bench dispatch -- --help lists them)
  --connections N,M
                of dispatch: so many at once, 1 to 64 (1,16); with 64, or without this, it also counts
                how often files are written to disk
  --help        this text

Goals are information: one that is not met fails nothing.`;

/** What the caller can mend, said without a stack trace. */
class Usage extends Error {}

function within(
  text: string | undefined,
  otherwise: number,
  least: number,
  most: number,
  name: string,
): number {
  if (text === undefined) return otherwise;
  const value = Number(text);
  if (!(value >= least && value <= most)) throw new Usage(`${name} takes a number from ${least} to ${most}.`);
  return value;
}

function parsed(args: string[]) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        json: { type: "boolean", default: false },
        rounds: { type: "string" },
        seconds: { type: "string" },
        only: { type: "string" },
        connections: { type: "string" },
        help: { type: "boolean", default: false },
      },
    });
  } catch (error) {
    throw new Usage(error instanceof Error ? error.message : String(error));
  }
}

/** The general help, and the variants where one can choose among them. */
function helpOf({ variants = [] }: Bench): string {
  const longest = Math.max(...variants.map(({ name }) => name.length));
  const lines = variants.map(({ name, about }) => `  ${name.padEnd(longest + 2)}${about}`);
  return lines.length === 0 ? HELP : `${HELP}\n\nIts variants:\n\n${lines.join("\n")}`;
}

/** `--only` and `--connections`, as far as they were given. */
function choiceOf(
  { variants }: Bench,
  name: string,
  values: { readonly only?: string; readonly connections?: string },
): Pick<BenchSettings, "only" | "connections"> {
  const given = { only: values.only?.split(","), connections: values.connections?.split(",") };
  if (variants === undefined && (given.only ?? given.connections) !== undefined)
    throw new Usage(`${name} takes no --only and no --connections.`);
  for (const only of given.only ?? [])
    if (!variants?.some((variant) => variant.name === only))
      throw new Usage(
        `${name} has no variant ${only}; it has: ${variants?.map((each) => each.name).join(", ")}.`,
      );
  const connections = given.connections?.map((text) => {
    const count = within(text, 1, 1, 64, "--connections");
    if (!Number.isInteger(count)) throw new Usage("--connections takes whole numbers.");
    return count;
  });
  return {
    ...(given.only === undefined ? {} : { only: given.only }),
    ...(connections === undefined ? {} : { connections }),
  };
}

async function main(args: string[]): Promise<void> {
  const { values, positionals } = parsed(args);
  const [name, ...more] = positionals;
  if (name === undefined) return void console.log(HELP);
  const listed = Object.hasOwn(BENCHES, name) ? BENCHES[name] : undefined;
  if (listed === undefined)
    throw new Usage(`There is no bench ${name}; there are: ${Object.keys(BENCHES).join(", ")}.`);
  if (more.length > 0) throw new Usage(`One bench at a time, not also ${more.join(", ")}.`);
  if (values.help) return void console.log(helpOf(await listed.load()));
  const { timed } = listed;
  if (timed === null && (values.rounds ?? values.seconds) !== undefined)
    throw new Usage(`${name} counts what is the same in every run: it takes no --rounds and no --seconds.`);
  const rounds = within(values.rounds, timed?.rounds ?? 1, 1, 100, "--rounds");
  if (!Number.isInteger(rounds)) throw new Usage("--rounds takes a whole number.");
  const seconds = within(values.seconds, timed?.seconds ?? 1, 0.1, 60, "--seconds");
  const bench = await listed.load();
  const chosen = choiceOf(bench, name, values);
  const report = await bench.run({ rounds, seconds, ...chosen, say: (line) => console.error(line) });
  console.log(values.json ? JSON.stringify(report) : markdown(report));
}

// A signal alone would run no exit handlers, and those stop what a bench started.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(130));

try {
  await main(process.argv.slice(2));
} catch (error) {
  console.error(error instanceof Usage ? `gpux bench: ${error.message}` : error);
  process.exitCode = error instanceof Usage ? 2 : 1;
}
