import { LeaseView } from "@gpux/protocol/lease";
import type { LeaseEvent } from "@gpux/protocol/lease-event";
import { formatAmount } from "@gpux/protocol/money";
import type { Command } from "commander";
import { EXIT, UsageError } from "../outcome.ts";
import { shortAddress } from "../progress.ts";
import { type CommonFlags, openSession, type Session, usdc, withCommonFlags } from "../session.ts";
import { printJson, type Terminal, table } from "../terminal.ts";

export function addLeases(program: Command, terminal: Terminal, done: (code: number) => void): void {
  const leases = program
    .command("leases")
    .description("what is paid into escrow, and how to get the rest back");

  withCommonFlags(leases.command("list").description("the leases that have not ended, newest first"))
    .addHelpText("after", "\nExample:\n  $ gpux leases list --json | jq -r '.[].id'")
    .action(async (flags: CommonFlags) => {
      const session = await openSession(terminal, flags);
      const all: LeaseView[] = [];
      for await (const lease of session.client.leases.list()) all.push(lease);
      if (session.json)
        printJson(
          terminal,
          all.map((lease) => LeaseView.encode(lease)),
        );
      else terminal.out.write(all.length === 0 ? "no leases\n" : table([HEADER, ...all.map(rowOf)]));
      done(EXIT.ok);
    });

  withCommonFlags(leases.command("get <id>").description("a lease as it is now"))
    .addHelpText("after", "\nExample:\n  $ gpux leases get lse_...")
    .action(async (id: string, flags: CommonFlags) => {
      const session = await openSession(terminal, flags);
      show(session, await session.client.leases.get(id));
      done(EXIT.ok);
    });

  withCommonFlags(leases.command("watch <id>").description("what happens to a lease, until it is over"))
    .option("--after <event>", "only what came after this event's number")
    .addHelpText(
      "after",
      "\nExample:\n  $ gpux leases watch lse_... --json | jq -c 'select(.type == \"low_balance\")'",
    )
    .action(async (id: string, flags: CommonFlags & { after?: string }) => {
      const lastEventId = flags.after === undefined ? undefined : Number(flags.after);
      if (lastEventId !== undefined && !(Number.isInteger(lastEventId) && lastEventId >= 0))
        throw new UsageError(`--after ${flags.after}: expected the number of an event`);
      const session = await openSession(terminal, flags);
      for await (const event of session.client.leases.events(id, { lastEventId }))
        if (session.json) printJson(terminal, event);
        else terminal.out.write(eventLine(event));
      done(EXIT.ok);
    });

  withCommonFlags(
    leases.command("topup <id> <usdc>").description("add to an open lease; what is not used comes back"),
  )
    .addHelpText("after", "\nExample:\n  $ gpux leases topup lse_... 5.00")
    .action(async (id: string, amount: string, flags: CommonFlags) => {
      const session = await openSession(terminal, flags);
      const lease = await session.client.leases.topUp(id, usdc(amount, "<usdc>"));
      if (!session.json && lease.top_ups?.some((each) => each.status === "landing"))
        terminal.err.write("on its way to the chain; gpux leases get shows when it has landed\n");
      show(session, lease);
      done(EXIT.ok);
    });

  withCommonFlags(
    leases.command("close <id>").description("take no new jobs, pay the provider, return the rest"),
  )
    .addHelpText("after", "\nExample:\n  $ gpux leases close lse_...")
    .action(async (id: string, flags: CommonFlags) => {
      const session = await openSession(terminal, flags);
      show(session, await session.client.leases.close(id));
      done(EXIT.ok);
    });
}

/** Amounts of the events' data, base units on the wire. */
const MONEY: ReadonlySet<string> = new Set(["funded", "added", "left", "amount", "cumulative"]);

export function eventLine({ id, at, type, data }: LeaseEvent): string {
  const facts = Object.entries(data).map(([name, value]) =>
    MONEY.has(name) && typeof value === "string"
      ? `${name}=${formatAmount(BigInt(value))}`
      : `${name}=${String(value)}`,
  );
  return table([[String(id), at, type.padEnd(11), facts.join(" ")]]);
}

const HEADER = ["LEASE", "STATUS", "NODE", "SPENT", "FUNDED", "USDC/H"];

function rowOf(lease: LeaseView): string[] {
  const { id, status, node, spent, funded, terms } = lease;
  return [
    id,
    status,
    shortAddress(node),
    formatAmount(spent),
    formatAmount(funded),
    formatAmount(terms.ratePerHour),
  ];
}

/** A lease without work has no socket, and needs none. */
function presenceOf({ node_connected: isConnected, warm, status }: LeaseView): string {
  if (isConnected) return "connected";
  return warm || status !== "active" ? "away" : "at rest: the next job waits until it has its GPUs free";
}

function show({ terminal, json }: Session, lease: LeaseView): void {
  if (json) return printJson(terminal, LeaseView.encode(lease));
  const rows = [
    ["lease", lease.id],
    ["status", lease.end === undefined ? lease.status : `${lease.status} (${lease.end.reason})`],
    ["node", `${lease.node} ${presenceOf(lease)}`],
    ["gpu", lease.text.gpus.map((gpu) => gpu.model).join(", ")],
    ["rate", `${formatAmount(lease.terms.ratePerHour)} USDC per hour, fee ${lease.terms.feeBps / 100} %`],
    ["money", `${formatAmount(lease.spent)} spent of ${formatAmount(lease.funded)} USDC`],
    ...(lease.top_ups ?? []).map(({ amount, status, detail }) => [
      "top-up",
      `${formatAmount(amount)} USDC ${status}${detail === undefined ? "" : `: ${detail}`}`,
    ]),
    ["jobs", `${lease.jobs_open} open, ${lease.jobs_ended} ended`],
    ["expires", new Date(lease.terms.expiry * 1_000).toISOString()],
    ...lease.transactions.map((transaction) => [transaction.kind, transaction.hash]),
  ];
  terminal.out.write(table(rows));
}
