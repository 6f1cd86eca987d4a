#!/usr/bin/env node
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { KeptIntent } from "@gpux/protocol/kept";
import { formatAmount } from "@gpux/protocol/money";
import { Command, CommanderError, Option } from "commander";
import { z } from "zod";
import { startAgent } from "./agent.ts";
import { parseClaim, readClaim, writeClaim } from "./claim.ts";
import { loadConfig } from "./config.ts";
import { AGENT_VERSION } from "./control/control.ts";
import { followDrain, parseDeadline, requestDrain, takeDrainRequest } from "./drain-request.ts";
import { createWebGpuExecutor } from "./executors/webgpu/executor.ts";
import { AgentStartError, EXIT } from "./exit.ts";
import { INIT_OPTIONS, initialise } from "./init.ts";
import { heldVouchers } from "./leases/vouchers.ts";
import { humanLine, jsonLine, type Log } from "./log.ts";
import { askPassword } from "./password.ts";
import { type AgentStatus, readStatus, statePaths } from "./state-dir.ts";

/** Something the owner has to mend: its message is all that is shown. */
class Refusal extends Error {
  readonly exitCode: number;

  constructor(exitCode: number, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

const dirOption = () =>
  new Option("--dir <folder>", "where the agent keeps its key, config and journals")
    .env("GPUX_AGENT_DIR")
    .default(join(homedir(), ".gpux-agent"), "~/.gpux-agent");
const jsonOption = () => new Option("--json", "JSON instead of text").default(false);
const passwordFileOption = () =>
  new Option("--password-file <file>", "first line opens the keystore; only its owner may read it").env(
    "GPUX_AGENT_PASSWORD_FILE",
  );

const program = new Command("gpux-agent")
  .description("Rents this machine's GPU out on GPUX. Dials outward only, opens no port.")
  .version(AGENT_VERSION)
  .exitOverride()
  .addHelpText(
    "after",
    `
Exit codes: 0 stopped, 1 failed, 2 usage or config, 3 wrong password or key not let in, 4 no GPU device works,
5 replaced by another agent, 6 agent out of date, 130 quit by a second Ctrl-C.
The password comes from GPUX_AGENT_PASSWORD, a password file, or a prompt; never from the command line.`,
  );

const init = program
  .command("init")
  .description("make the node's key and write its config")
  .addOption(dirOption())
  .addOption(jsonOption())
  .addOption(passwordFileOption());
for (const [, flag, text] of INIT_OPTIONS) init.option(flag, text);
init.action(
  async (options: Record<string, unknown> & { dir: string; json: boolean; passwordFile?: string }) => {
    const outcome = await initialise({
      paths: statePaths(resolve(options.dir)),
      options,
      passwordFile: options.passwordFile,
      environment: process.env,
    });
    if (!outcome.ok) throw new Refusal(EXIT.usage, outcome.detail);
    const { address, payout, config } = outcome;
    if (options.json) console.log(JSON.stringify({ address, payout, config }));
    else console.log(`Node key  ${address}\nPaid to   ${payout}\nConfig    ${config}\nNext: gpux-agent run`);
  },
);

program
  .command("run")
  .description("offer this machine and run jobs until Ctrl-C")
  .addOption(dirOption())
  .addOption(jsonOption())
  .addOption(passwordFileOption())
  .addOption(
    new Option("--adapter <kind>", "software: never use the machine's own GPU")
      .choices(["auto", "software"] as const)
      .default("auto" as const)
      .env("GPUX_AGENT_ADAPTER"),
  )
  .action(
    async (options: { dir: string; json: boolean; passwordFile?: string; adapter: "auto" | "software" }) => {
      process.exitCode = await runAgent(options);
    },
  );

program
  .command("status")
  .description("what the agent on this folder is doing")
  .addOption(dirOption())
  .addOption(jsonOption())
  .action(async (options: { dir: string; json: boolean }) => {
    const status = await readStatus(statePaths(resolve(options.dir)));
    if (status === null) throw new Refusal(EXIT.failed, `No agent has run on ${resolve(options.dir)}.`);
    if (options.json) console.log(JSON.stringify(status));
    else
      console.log(
        [
          `state    ${status.state}${status.detail === "" ? "" : ` (${status.detail})`}`,
          `node     ${status.address}`,
          `gpu      ${status.gpu}${shown(status)}`,
          `edge     ${status.edge}`,
          `jobs     ${status.jobs_ended} ended`,
          ...status.leases.map((lease) => `lease    ${lease.id}, ${lease.executing} running`),
          ...(status.claimed === 0 ? [] : [`claimed  ${status.claimed} GPU(s) are yours`]),
          ...(status.resting === 0 ? [] : [`resting  ${status.resting} lease(s) without work`]),
          `written  ${status.updated_at}`,
        ].join("\n"),
      );
  });

program
  .command("drain")
  .description("have the agent on this folder take nothing new, end its leases, and stop: for maintenance")
  .addOption(dirOption())
  .addOption(
    new Option("--deadline <time>", "what still runs then is broken off: 90s, 10m, 2h").default(
      "10m",
      "10m, at most 24h",
    ),
  )
  .option("--no-wait", "return once the agent was told")
  .addHelpText(
    "after",
    `
Jobs that run may end until the deadline and are paid; those that wait end at once and go elsewhere. What is broken off
costs its consumer nothing. Each lease is closed and paid out. Ctrl-C here leaves the agent draining.
Example:
  $ gpux-agent drain --deadline 30m && sudo reboot`,
  )
  .action(async (options: { dir: string; deadline: string; wait: boolean }) => {
    const deadlineS = parseDeadline(options.deadline);
    if (deadlineS === null) throw new Refusal(EXIT.usage, "--deadline: give 90s, 10m or 2h, at most 24h.");
    const paths = statePaths(resolve(options.dir));
    const before = await requestDrain(paths, deadlineS);
    if (before === null) throw new Refusal(EXIT.failed, `No agent runs on ${resolve(options.dir)}.`);
    if (before.state === "draining") console.error(`It drains already, ${before.detail}.`);
    if (!options.wait) return;
    const left = new AbortController();
    process.once("SIGINT", () => left.abort());
    const show = (status: AgentStatus) => {
      const running = status.leases.reduce((sum, lease) => sum + lease.executing, 0);
      console.error(`draining: ${running} job(s) run in ${status.leases.length} lease(s), ${status.detail}`);
    };
    await followDrain(paths, show, left.signal);
    console.error(left.signal.aborted ? "The agent goes on draining." : "The agent has stopped.");
  });

program
  .command("yield")
  .description("take GPUs back from yieldable leases, for yourself")
  .addOption(dirOption())
  .option("--gpus <n>", "how many; all of them when left out")
  .option("--end", "you need them no longer: rent them out again")
  .addHelpText(
    "after",
    `
Yieldable leases have 30 s to leave; what they could not end goes back to their queue, unpaid. Firm leases stay: see
\`gpux-agent drain\`. It holds over restarts of the agent, until --end.
Example:
  $ gpux-agent yield && ./train.sh; gpux-agent yield --end`,
  )
  .action(async (options: { dir: string; gpus?: string; end?: true }) => {
    const gpus = options.end ? 0 : parseClaim(options.gpus);
    if (gpus === null) throw new Refusal(EXIT.usage, "--gpus: give a whole number from 1 to 64.");
    const paths = statePaths(resolve(options.dir));
    const isTold = await writeClaim(paths, gpus);
    console.error(isTold ? "The agent was told." : "No agent runs here; the next one will know.");
  });

program
  .command("vouchers")
  .description("the signatures that get this provider paid without the marketplace, one JSON document a line")
  .addOption(dirOption())
  .addHelpText(
    "after",
    "\nExample:\n  $ gpux-agent vouchers | gpux rescue send - --rpc https://YOUR-NODE --yes",
  )
  .action(async (options: { dir: string }) => {
    const paths = statePaths(resolve(options.dir));
    const loaded = await loadConfig(paths.config, process.env);
    if (!loaded.ok) throw new Refusal(EXIT.usage, loaded.detail);
    const { chain_id: chainId, escrow } = loaded.config;
    const held = await heldVouchers(paths, { chainId, escrow });
    for (const { id, kept } of held) {
      const amount = kept.intent.kind === "settle" ? formatAmount(kept.intent.cumulative) : "";
      console.error(`${id}  ${amount} USDC in all`);
      console.log(JSON.stringify(z.encode(KeptIntent, kept)));
    }
    if (held.length === 0) console.error(`No voucher lies in ${paths.folder}.`);
  });

/** Of its GPU, by the edge's last challenge since this start. */
function shown({ verdict }: AgentStatus): string {
  if (verdict === null) return "";
  const word = { verified: "verified", slow: "not verified", unrated: "not rated", wrong: "quarantined" };
  return `, ${word[verdict.result]} (${verdict.gops} Gop/s, ${new Date(verdict.at).toISOString()})`;
}

async function runAgent(options: {
  dir: string;
  json: boolean;
  passwordFile?: string;
  adapter: "auto" | "software";
}): Promise<number> {
  const paths = statePaths(resolve(options.dir));
  const loaded = await loadConfig(paths.config, process.env);
  if (!loaded.ok) throw new Refusal(EXIT.usage, loaded.detail);
  const password = await askPassword({
    file: options.passwordFile,
    environment: process.env,
    confirm: false,
  });
  if (!password.ok) throw new Refusal(EXIT.usage, password.detail);

  const colour = process.stdout.isTTY && (process.env.NO_COLOR ?? "") === "";
  const log: Log = (entry) => {
    const now = new Date();
    console.log(options.json ? jsonLine(entry, now) : humanLine(entry, now, colour));
  };
  const agent = await startAgent({
    config: loaded.config,
    key: { keystore: paths.keystore, password: password.password },
    stateDir: paths.folder,
    claimed: await readClaim(paths),
    log,
    executor: createWebGpuExecutor({
      cacheDir: paths.cache,
      adapter: options.adapter,
      log: (line) => log({ level: "info", event: "gpu", text: line }),
    }),
  });
  // Of an agent that was asked and died before it could heed it. Not waited for here: a signal may come any moment.
  const forgotten = takeDrainRequest(paths);
  let signals = 0;
  const drain = async () => {
    await forgotten;
    await agent.drain((await takeDrainRequest(paths)) ?? loaded.config.drain_s);
  };
  const onSignal = () => {
    signals += 1;
    void (signals === 1 ? drain() : agent.kill());
    if (signals > 1) process.exitCode = EXIT.forced;
  };
  process.on("SIGUSR2", () => void readClaim(paths).then((gpus) => agent.claim(gpus)));
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  // The terminal is gone: there is nobody left to press Ctrl-C twice.
  process.on("SIGHUP", onSignal);
  const end = await agent.ended;
  log({ level: "info", event: "stopped", text: end.detail });
  return signals > 1 ? EXIT.forced : end.exitCode;
}

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : EXIT.usage;
  else if (error instanceof Refusal || error instanceof AgentStartError) {
    console.error(`gpux-agent: ${error.message}`);
    process.exitCode = error.exitCode;
  } else if (error instanceof Error && "syscall" in error) {
    // The system said no (EACCES, ENOSPC, EROFS, ...): its message names the path, a stack trace would add nothing.
    console.error(`gpux-agent: ${error.message}`);
    process.exitCode = EXIT.failed;
  } else throw error;
}
