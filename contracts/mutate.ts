/**
 * Plants one fault at a time in LeaseEscrow.sol and runs the Solidity tests on what it compiles to: a test must fail.
 * A mutant that lives is a rule that no test holds. Writes docs/mutations.md when all ran. Where a condition has a
 * mutant that is always true and one that is always false, or one for each of its halves, both branches are decided
 * by tests, which is what a branch counter could only hint at.
 *
 * Only the escrow is compiled anew: the tests deploy the creation code that ESCROW_CREATION_CODE holds.
 *
 * `node mutate.ts [--only <part of a name>] [--jobs N]`
 */
import { execFileSync, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { COMPILER_SETTINGS } from "./compiler.ts";
import { type Mutant, mutants } from "./mutants.ts";
import { creationCode } from "./solc.ts";

const require = createRequire(import.meta.url);
const here = fileURLToPath(new URL(".", import.meta.url));
const hardhat = `${dirname(require.resolve("hardhat/package.json"))}/dist/src/cli.js`;
const CONTRACT = "src/LeaseEscrow.sol";

/** Not optimized, for speed: mutants are compiled by the hundred, and only run here. */
function codeOf(source: string): string {
  const { evmVersion } = COMPILER_SETTINGS;
  return creationCode({ file: CONTRACT, contract: "LeaseEscrow", content: source }, { evmVersion });
}

/** The tests that fail with this code in place of the escrow's; none: all passed. */
async function failingTests(code: string): Promise<readonly string[]> {
  const child = spawn(process.execPath, [hardhat, "test", "solidity", "--chain-type", "op", "--no-compile"], {
    cwd: here,
    env: { ...process.env, EFFORT: "mutation", HARDHAT_DISABLE_TELEMETRY: "1", ESCROW_CREATION_CODE: code },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  const { promise, resolve, reject } = Promise.withResolvers<number | null>();
  child.once("error", reject).once("close", resolve);
  if ((await promise) === 0) return [];
  const failing = [...output.matchAll(/^\s+\d+\) (\w+#\w+)/gm)].map(([, name]) => name ?? "");
  if (failing.length === 0) throw new Error(`the tests did not run:\n${output.slice(-2_000)}`);
  return failing;
}

interface Verdict {
  readonly mutant: Mutant;
  readonly failing: readonly string[];
}

async function judge(source: string, mutant: Mutant): Promise<Verdict> {
  if (source.split(mutant.find).length !== 2) {
    throw new Error(`"${mutant.name}": its text does not stand in the source once`);
  }
  const code = codeOf(source.replace(mutant.find, () => mutant.put));
  return { mutant, failing: await failingTests(code) };
}

const { values } = parseArgs({ options: { only: { type: "string" }, jobs: { type: "string" } } });
const chosen = mutants.filter((mutant) => mutant.name.includes(values.only ?? ""));
const source = readFileSync(`${here}${CONTRACT}`, "utf8");
execFileSync(process.execPath, [hardhat, "build", "--quiet"], {
  cwd: here,
  stdio: ["ignore", "ignore", "inherit"],
});
const healthy = await failingTests(codeOf(source));
if (healthy.length > 0) throw new Error(`the tests fail before anything is planted: ${healthy.join(", ")}`);

const queue = [...chosen];
const verdicts = new Map<string, Verdict>();
const jobs = Number(values.jobs ?? Math.max(1, Math.floor(availableParallelism() / 2)));
await Promise.all(
  Array.from({ length: jobs }, async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const verdict = await judge(source, next);
      verdicts.set(next.name, verdict);
      console.log(`${verdict.failing.length === 0 ? "LIVES" : "dies "}  ${next.name}`);
    }
  }),
);

const alive = [...verdicts.values()].filter((verdict) => verdict.failing.length === 0).length;
const summary = `${verdicts.size} planted, ${verdicts.size - alive} died, ${alive} live`;
console.log(summary);
if (alive > 0) process.exitCode = 1;
if (values.only === undefined) {
  const rows = chosen.map(({ name }) => {
    const [first, ...others] = verdicts.get(name)?.failing ?? [];
    if (first === undefined) return `| ${name} | **nothing** |`;
    return `| ${name} | \`${first}\`${others.length > 0 ? ` and ${others.length} more` : ""} |`;
  });
  await writeFile(
    `${here}../docs/mutations.md`,
    `# Faults planted in the escrow

Written by \`npm --workspace contracts run mutate\`: one fault at a time in \`contracts/src/LeaseEscrow.sol\`, and a Solidity test
must fail. ${summary}.

| fault | noticed by |
|---|---|
${rows.join("\n")}
`,
  );
}
