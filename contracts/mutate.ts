/**
 * Plants one fault at a time in a copy of LeaseEscrow.sol and runs the Solidity tests on it: each must fail, by a
 * test and not by the compiler. A mutant that lives is a rule that no test holds. Writes docs/mutations.md when all
 * ran. Where a condition has a mutant that is always true and one that is always false, or one for each of its
 * halves, both branches are decided by tests, which is what a branch counter could only hint at.
 *
 * `node mutate.ts [--only <part of a name>] [--jobs N]`
 */
import { spawn } from "node:child_process";
import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type Mutant, mutants } from "./mutants.ts";

const here = fileURLToPath(new URL(".", import.meta.url));
const hardhat = `${dirname(createRequire(import.meta.url).resolve("hardhat/package.json"))}/dist/src/cli.js`;
const CONTRACT = "src/LeaseEscrow.sol";

type Outcome = "passed" | "failed" | "broken";

async function runTests(folder: string, files: readonly string[]): Promise<Outcome> {
  const child = spawn(
    process.execPath,
    [hardhat, "test", "solidity", "--chain-type", "op", ...files.map((file) => `test/${file}.t.sol`)],
    {
      cwd: folder,
      env: { ...process.env, EFFORT: "mutation", HARDHAT_DISABLE_TELEMETRY: "1" },
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  const { promise, resolve, reject } = Promise.withResolvers<number | null>();
  child.once("error", reject).once("close", resolve);
  const code = await promise;
  if (code === 0) return "passed";
  if (/^\s+\d+ failing$/m.test(output)) return "failed";
  console.error(output.slice(-2_000));
  return "broken";
}

/** A Hardhat project of its own below this one, so that modules resolve and builds do not meet. */
async function createFolder(job: number): Promise<string> {
  const folder = `${here}cache/mutation/${job}`;
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  for (const name of ["src", "test", "hardhat.config.ts", "package.json"]) {
    await cp(`${here}${name}`, `${folder}/${name}`, { recursive: true });
  }
  return folder;
}

interface Verdict {
  readonly mutant: Mutant;
  readonly killedBy: "its tests" | "the whole suite" | null;
}

async function judge(folder: string, source: string, mutant: Mutant): Promise<Verdict> {
  if (source.split(mutant.find).length !== 2)
    throw new Error(`"${mutant.name}": its text does not stand in the source once`);
  await writeFile(
    `${folder}/${CONTRACT}`,
    source.replace(mutant.find, () => mutant.put),
  );
  for (const [files, killedBy] of [
    [mutant.tests, "its tests"],
    [[], "the whole suite"],
  ] as const) {
    const outcome = await runTests(folder, files);
    if (outcome === "broken") throw new Error(`"${mutant.name}" does not compile`);
    if (outcome === "failed") return { mutant, killedBy };
  }
  return { mutant, killedBy: null };
}

const { values } = parseArgs({ options: { only: { type: "string" }, jobs: { type: "string" } } });
const chosen = mutants.filter((mutant) => mutant.name.includes(values.only ?? ""));
const source = await readFile(`${here}${CONTRACT}`, "utf8");
if ((await runTests(await createFolder(0), [])) !== "passed")
  throw new Error("the tests fail before anything is planted");
const queue = [...chosen];
const verdicts: Verdict[] = [];
const jobs = Number(values.jobs ?? Math.max(1, Math.floor(availableParallelism() / 2)));
await Promise.all(
  Array.from({ length: jobs }, async (_, job) => {
    const folder = await createFolder(job);
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const verdict = await judge(folder, source, next);
      verdicts.push(verdict);
      console.log(`${verdict.killedBy === null ? "LIVES" : "dies "}  ${next.name}`);
    }
  }),
);

const alive = verdicts.filter((verdict) => verdict.killedBy === null);
console.log(`${verdicts.length} planted, ${verdicts.length - alive.length} died, ${alive.length} live`);
if (alive.length > 0) process.exitCode = 1;
if (values.only === undefined) {
  const byName = new Map(verdicts.map((verdict) => [verdict.mutant.name, verdict]));
  const rows = chosen.map((mutant) => {
    const killedBy = byName.get(mutant.name)?.killedBy;
    return `| ${mutant.name} | ${killedBy ? `${killedBy === "its tests" ? mutant.tests.join(", ") : killedBy}` : "**lives**"} |`;
  });
  await writeFile(
    `${here}../docs/mutations.md`,
    `# Faults planted in the escrow

Written by \`npm --workspace contracts run mutate\`: one fault at a time in a copy of \`contracts/src/LeaseEscrow.sol\`, and
the Solidity tests must fail. ${verdicts.length} planted, ${verdicts.length - alive.length} died, ${alive.length} live.

| fault | noticed by (files in \`contracts/test\`) |
|---|---|
${rows.join("\n")}
`,
  );
}
