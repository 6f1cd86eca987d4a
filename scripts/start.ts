import { access, constants, type FileHandle, mkdir, open, rm } from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { PortTaken as ChainPortTaken, type Devnet } from "@gpux/contracts/devnet";
import { devnetAccount } from "@gpux/contracts/roles";
import { createClient } from "@gpux/sdk";
import type { AgentProcess } from "./stack/agent-process.ts";
import { openLedger } from "./stack/balances.ts";
import { runDemo } from "./stack/demo.ts";
import { PortTaken, startEdge } from "./stack/edge.ts";
import { printReport } from "./stack/print.ts";
import { agentSetupOf, edgeOptionsOf, startChain, startOnlineAgent } from "./stack/stack.ts";
import { createTimeline } from "./stack/timeline.ts";

const HELP = `npm start -- [options]

Brings up GPUX on this machine (local Optimism chain, edge, one agent), runs a path-traced and denoised image
through it, settles and pays out on chain, and stays up for more.

  --once            end after the run; exit code 0 when everything added up
  --report FILE     write what happened as JSON
  --port N          the edge (default 8787)
  --chain-port N    the chain's JSON-RPC (default 8545)
  --help            this text`;

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const say = (line: string) => console.error(line);

/** What a person can mend, said without a stack trace. */
class Trouble extends Error {
  readonly exitCode: number;

  constructor(message: string, exitCode = 1) {
    super(message);
    this.exitCode = exitCode;
  }
}
const USAGE = 2;

function options() {
  try {
    const { values } = parseArgs({
      options: {
        once: { type: "boolean", default: false },
        report: { type: "string" },
        port: { type: "string", default: "8787" },
        "chain-port": { type: "string", default: "8545" },
        help: { type: "boolean", default: false },
      },
    });
    const port = (text: string) => {
      const value = Number(text);
      if (!Number.isInteger(value) || value < 1 || value > 65_535)
        throw new Error(`${text} is not a port number.`);
      return value;
    };
    return { ...values, port: port(values.port), chainPort: port(values["chain-port"]) };
  } catch (error) {
    throw new Trouble(`${error instanceof Error ? error.message : error}\n\n${HELP}`, USAGE);
  }
}

/** What was started, newest first, so that it can be taken down from any point. */
const running: (() => Promise<void>)[] = [];
let stopping: Promise<void> | undefined;

function stop(): Promise<void> {
  stopping ??= (async () => {
    for (const each of running.splice(0).reverse())
      await each().catch((error: unknown) => say(`While stopping: ${error}`));
  })();
  return stopping;
}

async function main(): Promise<void> {
  const { once, report: reportFile, port, chainPort, help } = options();
  if (help) return void console.log(HELP);

  // Both before anything is started: a run of half a minute must not end in what could be known before.
  const reportTo = reportFile === undefined ? null : await openReport(resolve(reportFile));
  process.chdir(root);
  const folder = join(root, ".gpux", `start-${port}`);
  await mkdir(folder, { recursive: true });
  await access(folder, constants.W_OK);
  const timeline = createTimeline(say);
  say(`${"at".padStart(8)}  ${"step".padEnd(30)} ${"took".padStart(8)}`);

  const devnet: Devnet = await timeline.run(
    "local Optimism chain",
    () => startChain(chainPort),
    (chain) => chain.url,
  );
  running.push(() => devnet.close());
  // The chain lives in memory, so what was stored about the last one means nothing any more.
  for (const part of ["edge", "agent"]) await rm(join(folder, part), { recursive: true, force: true });
  const edge = await timeline.run(
    "edge, relayer, meter",
    () => startEdge(edgeOptionsOf(devnet, { folder, port })),
    (it) => it.url,
  );
  running.push(() => edge.stop());
  const setup = agentSetupOf(devnet, { folder, edge: edge.url });
  const node = devnetAccount("agent").address;
  const agent: AgentProcess = await timeline.run(
    "agent",
    () => startOnlineAgent(setup, node),
    () => `node ${node}`,
  );
  running.push(() => agent.stop());

  const consumer = devnetAccount("consumer");
  const parties = {
    consumer: consumer.address,
    provider: devnetAccount("provider").address,
    feeRecipient: devnetAccount("feeRecipient").address,
    agent: node,
  };
  const report = await runDemo({
    client: createClient({
      url: edge.url,
      account: consumer.account,
      autoOpen: { maxAmount: 1_000_000n },
    }),
    ledger: openLedger(devnet, parties),
    timeline,
    folder: join(folder, "images"),
    settlement: { chainId: devnet.chainId, escrow: devnet.escrow },
  });
  printReport(report, say);
  await reportTo?.writeFile(`${JSON.stringify(report, null, 2)}\n`);
  await reportTo?.close();
  if (once) return;

  say(`
It stays up. Edge ${edge.url}, chain ${devnet.url}, escrow ${devnet.escrow}. Ctrl-C ends it.
The agent's log is ${relative(process.cwd(), agent.logFile)}. The next job, from another terminal:

  cd ${quoted(root)} && GPUX_URL=${edge.url} GPUX_PRIVATE_KEY=${consumer.privateKey} \\
    ${quoted(process.execPath)} cli/bin.ts run examples/functions/pathtrace \\
    --input scene=@examples/functions/pathtrace/room.json --out room.png`);
  const code = await agent.ended;
  if (stopping === undefined)
    throw new Trouble(`The agent ended by itself (exit code ${code}); see ${agent.logFile}.`);
}

/** One word for a POSIX shell. */
function quoted(path: string): string {
  return `'${path.replaceAll("'", "'\\''")}'`;
}

/** Empty until the run has ended well, so that nobody takes the last run's facts for this one's. */
async function openReport(path: string): Promise<FileHandle> {
  try {
    return await open(path, "w");
  } catch (error) {
    throw new Trouble(
      `The report cannot be written: ${error instanceof Error ? error.message : error}. Choose another file for --report.`,
    );
  }
}

/** One line and a next step for what a person can mend; everything else is a bug and keeps its stack. */
function explain(error: unknown): string {
  if (error instanceof Trouble) return error.message;
  if (error instanceof PortTaken)
    return `${error.message}. Choose another, or stop what listens there. npm start -- --port 8800`;
  if (error instanceof ChainPortTaken) return `${error.message} npm start -- --chain-port 8600`;
  if (
    error instanceof Error &&
    "code" in error &&
    (error.code === "EACCES" || error.code === "EROFS" || error.code === "EPERM")
  )
    return `No permission to write: ${error.message}. npm start keeps its files in .gpux/ of this folder; make it writable, or clone elsewhere.`;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

function leave(exitCode: number): void {
  say("\nStopping …");
  void stop().then(() => process.exit(exitCode));
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.on(signal, () => {
    // The second one does not wait: children are tied to this process and go with it.
    if (stopping !== undefined) process.exit(130);
    leave(signal === "SIGINT" ? 130 : 143);
  });

// Whoever started us may be killed in a way that nobody can pass on, and bootstrap.mjs gives us a process group of our
// own: without this a killed npm would leave the whole stack behind.
const parent = process.ppid;
setInterval(() => {
  if (process.ppid !== parent && stopping === undefined) leave(143);
}, 500).unref();

try {
  await main();
  await stop();
} catch (error) {
  if (stopping === undefined) {
    say(explain(error));
    await stop();
    process.exit(error instanceof Trouble ? error.exitCode : 1);
  }
}
