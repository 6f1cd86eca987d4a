import { formatAmount } from "@gpux/protocol/money";
import { SessionScope, SessionView } from "@gpux/protocol/session";
import { newExportableSessionKey } from "@gpux/sdk";
import type { Command } from "commander";
import { configFolder } from "../config.ts";
import { EXIT, UsageError } from "../outcome.ts";
import { type CommonFlags, openSession, usdc, walletOf, withCommonFlags } from "../session.ts";
import { forgetSession, keepSession, readSession } from "../session-file.ts";
import { printJson, say, type Terminal, table } from "../terminal.ts";

interface OpenFlags extends CommonFlags {
  readonly hours: string;
  readonly cap: string;
  readonly scope: string;
}

const LONGEST_HOURS = 168;

export function addSession(program: Command, terminal: Terminal, done: (code: number) => void): void {
  const session = program
    .command("session")
    .description("a key that signs requests for the wallet, within limits, so that no password is asked");
  const folder = configFolder(terminal.environment);

  withCommonFlags(
    session.command("open").description("let this machine act for the wallet; needs the wallet once"),
  )
    .option("--hours <n>", "how long, at most 168", "24")
    .option("--cap <usdc>", "the most that jobs may cost together", "1.00")
    .option("--scope <list>", `of ${SessionScope.options.join(", ")}`, "read,jobs")
    .addHelpText("after", "\nExample:\n  $ gpux session open --hours 8 --cap 0.50")
    .action(async (flags: OpenFlags) => {
      const limits = limitsOf(flags);
      const key = await newExportableSessionKey();
      const { client, settings, account } = await walletOf(terminal, flags);
      const opened = await client.session({ ...limits, key });
      const expires_at = new Date(opened.expiresAt).toISOString();
      const { id, token } = opened;
      const path = await keepSession(folder, {
        url: settings.url,
        address: account.address,
        id,
        token,
        key: key.privateJwk,
        expires_at,
      });
      if (flags.json) printJson(terminal, { id, expires_at, path });
      else terminal.out.write(`${id}\n`);
      say(terminal, `Until ${expires_at}, in ${path}. \`gpux session close\` ends it at once.`);
      done(EXIT.ok);
    });

  withCommonFlags(
    session.command("list").description("the wallet's sessions, on whatever machine, newest first"),
  )
    .addHelpText("after", "\nExample:\n  $ gpux session list --json")
    .action(async (flags: CommonFlags) => {
      const { client } = await openSession(terminal, flags);
      const all = await client.sessions.list();
      if (flags.json)
        printJson(
          terminal,
          all.map((each) => SessionView.encode(each)),
        );
      else terminal.out.write(all.length === 0 ? "no sessions\n" : table([HEADER, ...all.map(rowOf)]));
      done(EXIT.ok);
    });

  withCommonFlags(
    session
      .command("close [id]")
      .description("revoke a session: this machine's, or the one named; by the wallet"),
  )
    .addHelpText("after", "\nExample:\n  $ gpux session close")
    .action(async (id: string | undefined, flags: CommonFlags) => {
      const kept = await readSession(folder);
      const wanted = id ?? kept?.id;
      if (wanted === undefined)
        throw new UsageError("This machine keeps no session", "gpux session list shows the wallet's others.");
      const { client } = await walletOf(terminal, flags);
      const closed = await client.sessions.close(wanted);
      if (kept?.id === wanted) await forgetSession(folder);
      if (flags.json) printJson(terminal, SessionView.encode(closed));
      else terminal.out.write(`${closed.id} closed\n`);
      done(EXIT.ok);
    });
}

function limitsOf({ hours, cap, scope }: OpenFlags) {
  const time = Number(hours);
  if (!(time > 0 && time <= LONGEST_HOURS))
    throw new UsageError(`--hours ${hours}: expected 1 to ${LONGEST_HOURS}`);
  const scopes = scope.split(",").map((each) => {
    const known = SessionScope.safeParse(each.trim());
    if (known.success) return known.data;
    throw new UsageError(`--scope ${each}: expected some of ${SessionScope.options.join(",")}`);
  });
  return { expiresIn: Math.round(time * 3_600), cap: usdc(cap, "--cap"), scopes };
}

const HEADER = ["SESSION", "SCOPES", "CAP", "SET ASIDE", "ENDS", "STATE"];

function rowOf(view: SessionView): string[] {
  const isOver = Date.parse(view.expires_at) <= Date.now();
  const state = view.revoked_at !== null ? "revoked" : isOver ? "over" : "open";
  return [
    view.id,
    view.scopes.join(","),
    formatAmount(view.cap),
    formatAmount(view.reserved),
    view.expires_at,
    state,
  ];
}
