import { GpuxError } from "@gpux/sdk";
import { Command, CommanderError } from "commander";
import { addCredit } from "./commands/credit.ts";
import { addJobs } from "./commands/jobs.ts";
import { addLeases } from "./commands/leases.ts";
import { addNodes } from "./commands/nodes.ts";
import { addOffers } from "./commands/offers.ts";
import { addRescue } from "./commands/rescue.ts";
import { addRun } from "./commands/run.ts";
import { addSession } from "./commands/session.ts";
import { addWallet } from "./commands/wallet.ts";
import { configFolder } from "./config.ts";
import { EXIT, exitCodeOf, explain, failureJson } from "./outcome.ts";
import { forgetSession } from "./session-file.ts";
import { printJson, type Terminal } from "./terminal.ts";

/** Runs one command line (without node and script); answers the exit code. Never throws. */
export async function main(args: readonly string[], terminal: Terminal): Promise<number> {
  let code: number = EXIT.ok;
  const program = createProgram(terminal, (result) => {
    code = result;
  });
  try {
    await program.parseAsync([...args], { from: "user" });
    return code;
  } catch (error) {
    // Commander has said what was wrong; help and version end by an "error" of exit code 0.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    // It opens nothing any more: the next command is the wallet's again.
    if (error instanceof GpuxError && error.code === "session_revoked")
      await forgetSession(configFolder(terminal.environment));
    if (args.includes("--json")) printJson(terminal, failureJson(error));
    terminal.err.write(explain(error, terminal.environment.GPUX_DEBUG === "1"));
    return exitCodeOf(error);
  }
}

function createProgram(terminal: Terminal, done: (code: number) => void): Command {
  const program = new Command("gpux")
    .description("Run GPU functions on other people's GPUs, paid by the millisecond from your own wallet.")
    .version("0.1.0")
    .exitOverride()
    .showHelpAfterError("(--help shows how)")
    .configureOutput({
      writeOut: (text) => terminal.out.write(text),
      writeErr: (text) => terminal.err.write(text),
    })
    .addHelpText(
      "after",
      `
Example:
  $ gpux wallet new
  $ gpux run examples/functions/pathtrace --input scene=@room.json --out room.png

Settings: flags, then GPUX_URL, GPUX_MAX_PRICE, GPUX_DEPOSIT, GPUX_MAX_RATE, GPUX_ALLOW_AHEAD, GPUX_GPU, GPUX_REGION,
GPUX_WALLET, GPUX_RPC, then the profile in config.json (GPUX_CONFIG_DIR). GPUX_PRIVATE_KEY stands in for a wallet, GPUX_PASSWORD opens one.`,
    );
  for (const add of [
    addRun,
    addJobs,
    addLeases,
    addCredit,
    addNodes,
    addOffers,
    addSession,
    addWallet,
    addRescue,
  ])
    add(program, terminal, done);
  return program;
}
