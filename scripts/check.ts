import { type ChildProcess, spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

// What `npm test` does: every step to its end, whatever the others say, then a summary whose last line is
// `N passed, N failed`, counted in steps.

/** One judgement on the repository. `alone` keeps away others that would take its time. */
type Step = { name: string; about: string; commands: string[][]; alone?: true };

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const node = process.execPath;
const tool = (file: string) => [node, join(root, "node_modules", file)];
const script = (file: string, ...args: string[]) => [node, join(root, file), ...args];
// Of those that pass only a dot each: what failed must be found in a log of which somebody sees only a part.
const vitest = (...args: string[]) => [
  ...tool("vitest/vitest.mjs"),
  "run",
  "--reporter=dot",
  "--silent=passed-only",
  ...args,
];
// The one that started us; scripts/bootstrap.mjs names it.
const npm = process.env.npm_execpath === undefined ? ["npm"] : [node, process.env.npm_execpath];

const steps: Step[] = [
  {
    // The longest: the other worker has done everything else meanwhile.
    name: "unit",
    about: "unit tests, on Node and inside workerd",
    commands: [vitest("--project", "node", "--project", "edge", "--project", "meter")],
  },
  {
    name: "lint",
    about: "format and lint",
    commands: [[...tool("@biomejs/biome/bin/biome"), "check", "--error-on-warnings", "."]],
  },
  {
    name: "types",
    about: "types of Node programs and of each Worker",
    commands: [
      [...tool("typescript/bin/tsc"), "-p", "tsconfig.json"],
      [...tool("typescript/bin/tsc"), "-p", "tsconfig.workers.json"],
      [...tool("typescript/bin/tsc"), "-p", "workers/relayer"],
      [...tool("typescript/bin/tsc"), "-p", "workers/meter"],
    ],
  },
  { name: "imports", about: "direction of imports", commands: [script("scripts/imports.ts")] },
  {
    name: "generated",
    about: "generated files are what their sources say",
    commands: [
      script("scripts/worker-types.ts", "--check"),
      script("contracts/generate.ts", "--check"),
      script("protocol/vectors/generate.ts", "--check"),
      script("protocol/keccak/generate.ts", "--check"),
      script("scripts/lockfile.mjs", "--check"),
    ],
  },
  { name: "contracts", about: "Solidity tests", commands: [[...npm, "--workspace", "contracts", "test"]] },
  {
    // Its files run one after another and mostly wait for blocks: beside the others, not after them.
    name: "relayer",
    about: "the relayer on a real chain, under its faults",
    commands: [vitest("--project", "relayer")],
  },
  { name: "e2e", about: "whole stacks", commands: [vitest("--project", "e2e")], alone: true },
];

const running = new Set<ChildProcess>();
let stopped: NodeJS.Signals | undefined;

/** Ends everything that a step started: each command leads a process group of its own. */
function stop(signal: NodeJS.Signals): void {
  stopped ??= signal;
  for (const child of running) {
    if (child.pid === undefined) continue;
    try {
      process.kill(-child.pid, signal);
    } catch {
      // it is gone already
    }
  }
}

function runCommand([program = node, ...args]: string[]): Promise<{ ok: boolean; output: string }> {
  const child = spawn(program, args, {
    cwd: root,
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      ...process.env,
      CI: "1",
      NO_COLOR: "1",
      HARDHAT_DISABLE_TELEMETRY: "1",
      WRANGLER_SEND_METRICS: "false",
      WRANGLER_SEND_ERROR_REPORTS: "false",
    },
  });
  running.add(child);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (chunk: string) => {
      output += chunk;
    });
  }
  return new Promise((resolve) => {
    child.on("error", (cause) => resolve({ ok: false, output: `${program}: ${cause.message}` }));
    const finish = (code: number | null) => {
      running.delete(child);
      resolve({ ok: code === 0, output });
    };
    child.on("close", finish);
    // Whoever inherited the pipes would keep them open; a step is over when its own process is.
    child.on("exit", (code) => setTimeout(finish, 1_000, code).unref());
  });
}

async function runStep(step: Step): Promise<{ step: Step; ok: boolean; output: string }> {
  const began = performance.now();
  const seconds = () => ((performance.now() - began) / 1000).toFixed(1);
  const ticker = setInterval(() => console.log(`  ...  ${step.name}, ${seconds()} s so far`), 30_000);
  const results = [];
  for (const command of step.commands) {
    if (stopped !== undefined) break;
    results.push(await runCommand(command));
  }
  clearInterval(ticker);
  const ok = stopped === undefined && results.every((result) => result.ok);
  const output = results.map((result) => result.output.trim()).join("\n");
  console.log(`${ok ? "pass" : "FAIL"}  ${step.name.padEnd(10)} ${step.about} (${seconds()} s)`);
  // At once, and again with all others at the end: a run may be cut off before it.
  if (!ok) console.log(output);
  return { step, ok, output };
}

/** The steps that the command line asks for, or a message on what it could ask for. */
function selection(): Step[] | string {
  const known = steps.map((step) => step.name);
  const usage = `Usage: npm test [-- --only ${known.join(",")}]`;
  try {
    const { values } = parseArgs({ options: { only: { type: "string", multiple: true } } });
    if (values.only === undefined) return steps;
    const names = values.only.flatMap((list) => list.split(",")).map((name) => name.trim());
    const unknown = names.filter((name) => !known.includes(name));
    if (unknown.length > 0) return `No step is called ${unknown.join(", ")}.\n${usage}`;
    return steps.filter((step) => names.includes(step.name));
  } catch (error) {
    return `${error instanceof Error ? error.message : String(error)}\n${usage}`;
  }
}

async function main(): Promise<number> {
  const chosen = selection();
  if (typeof chosen === "string") {
    console.error(chosen);
    return 2;
  }
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => stop(signal));
  // Whoever started us may be killed in a way that nobody can pass on.
  const parent = process.ppid;
  setInterval(() => process.ppid !== parent && stop("SIGTERM"), 500).unref();

  const results: Awaited<ReturnType<typeof runStep>>[] = [];
  const queue = chosen.filter((step) => !step.alone);
  // Two at a time: that is how many cores the smallest machine of CI has.
  const worker = async () => {
    for (let step = queue.shift(); step !== undefined; step = queue.shift())
      results.push(await runStep(step));
  };
  await Promise.all([worker(), worker()]);
  for (const step of chosen.filter((step) => step.alone)) {
    if (stopped === undefined) results.push(await runStep(step));
  }

  const failed = results.filter((result) => !result.ok);
  for (const { step, output } of failed) console.log(`\n----- ${step.name} -----\n${output}`);
  if (stopped !== undefined) console.log(`\nstopped by ${stopped}`);
  console.log(`\n${results.length - failed.length} passed, ${failed.length} failed`);
  return failed.length === 0 && stopped === undefined ? 0 : 1;
}

process.exitCode = await main();
