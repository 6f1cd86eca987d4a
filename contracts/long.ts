/**
 * Plays the Solidity tests at length, millions of calls from a seed of its own, and writes what came of it to
 * docs/fuzz.md. Half an hour on two cores that do nothing else.
 *
 * `node long.ts [--seed 0x<64 hex digits>]`: the seed that a failed run printed plays it again.
 */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { FuzzSeed } from "./effort.ts";
import { fuzzReport, type Played } from "./fuzz-report.ts";

const here = fileURLToPath(new URL(".", import.meta.url));
const hardhat = `${dirname(createRequire(import.meta.url).resolve("hardhat/package.json"))}/dist/src/cli.js`;

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
    await writeFile(`${here}../docs/fuzz.md`, fuzzReport(seed.data, played, new Date()));
    console.log(`seed ${seed.data}; wrote docs/fuzz.md`);
    process.exitCode = played.status;
  }
}
