import { LeaseMode, LeaseView } from "@gpux/protocol/lease";
import type { LeaseEvent } from "@gpux/protocol/lease-event";
import { formatAmount } from "@gpux/protocol/money";
import { Order, Spread } from "@gpux/protocol/order";
import { startPriceOf } from "@gpux/protocol/tariff";
import { type Command, Option } from "commander";
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

  withCommonFlags(
    leases
      .command("open")
      .description("rent nodes for a while: all of them by one signature, or none")
      .option("--nodes <n>", "how many nodes", "1")
      .option("--gpus <n>", "GPUs of each", "1")
      .option("--cpu <n>", "cores of each", "0")
      .option("--memory <gb>", "GB of memory of each", "0")
      .option("--gpu <model>", "such as RTX_4090 (GPUX_GPU)")
      .option("--region <region>", "such as eu-west (GPUX_REGION)")
      .option("--verified", "only GPUs that a challenge has shown to be there")
      .addOption(
        new Option("--spread <how>", "distinct-provider: each node of another owner")
          .choices(Spread.options)
          .default("distinct-provider" satisfies Spread),
      )
      .addOption(
        new Option("--mode <how>", "dedicated: reserved, billed by the clock; serverless: while jobs run")
          .choices(LeaseMode.options)
          .default("serverless" satisfies LeaseMode),
      )
      .option("--duration <hours>", "how long the leases may last", "1")
      .option("--extendable <hours>", "by how much their end can be moved later (gpux leases extend)", "0")
      .option("--amount <usdc>", "into each lease; what is not used comes back (as the quotes suggest)")
      .option("--max-rate <usdc>", "the most that each node may cost per hour (GPUX_MAX_RATE)")
      .option("--from-credit", "out of what gpux credit deposit set aside, to which the rest returns"),
  )
    .addHelpText(
      "after",
      `
Each node is asked to hold what you want. When all do, their quotes are checked and one signature funds all leases;
when one does not, every hold is let go of and nothing is signed. What a lease does not use comes back when it closes.

Examples:
  $ gpux leases open --nodes 3 --gpus 4 --cpu 32 --memory 128
  $ gpux leases open --gpu RTX_4090 --duration 6 --max-rate 0.80
  $ gpux leases open --mode dedicated --gpus 8 --duration 12`,
    )
    .action(async (flags: OpenFlags) => {
      const session = await openSession(terminal, flags, {
        ...(flags.gpu === undefined ? {} : { gpu: flags.gpu }),
        ...(flags.region === undefined ? {} : { region: flags.region }),
        ...(flags.maxRate === undefined ? {} : { max_rate: flags.maxRate }),
      });
      showOrder(session, await openOrder(session, flags));
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
    leases
      .command("topup <id> <usdc>")
      .description("add to an open lease; what is not used comes back")
      .option("--from-credit", "out of what gpux credit deposit set aside"),
  )
    .addHelpText("after", "\nExample:\n  $ gpux leases topup lse_... 5.00")
    .action(async (id: string, amount: string, flags: CommonFlags & { fromCredit?: boolean }) => {
      const session = await openSession(terminal, flags);
      const payFrom = flags.fromCredit === true ? "credit" : "wallet";
      const lease = await session.client.leases.topUp(id, usdc(amount, "<usdc>"), { payFrom });
      if (!session.json && lease.top_ups?.some((each) => each.status === "landing"))
        terminal.err.write("on its way to the chain; gpux leases get shows when it has landed\n");
      show(session, lease);
      done(EXIT.ok);
    });

  withCommonFlags(
    leases
      .command("extend <id> <hours>")
      .description("move a lease's end so far behind the one it was opened with, in all")
      .option("--add <usdc>", "more money with it; what is not used comes back"),
  )
    .addHelpText(
      "after",
      `
How far an end can be moved was agreed when the lease was opened (gpux leases open --extendable).

Examples:
  $ gpux leases extend lse_... 2
  $ gpux leases extend lse_... 4 --add 3.50`,
    )
    .action(async (id: string, hours: string, flags: CommonFlags & { add?: string }) => {
      const seconds = secondsOf(hours, "<hours>");
      const more = flags.add === undefined ? {} : { amount: usdc(flags.add, "--add") };
      const session = await openSession(terminal, flags);
      show(session, await session.client.leases.extend(id, seconds, more));
      done(EXIT.ok);
    });

  withCommonFlags(
    leases
      .command("auto-topup <id>")
      .description("let a lease raise itself from credit when it runs low, as far as you sign now")
      .option("--below <usdc>", "raise it when less than this is left", "0.10")
      .option("--by <usdc>", "each time by this much", "0.50")
      .option("--limit <usdc>", "the most that it may ever have been given")
      .option("--off", "take back what was signed and is not used"),
  )
    .addHelpText(
      "after",
      "\nExamples:\n  $ gpux leases auto-topup lse_... --below 0.20 --by 1.00 --limit 5.00\n  $ gpux leases auto-topup lse_... --off",
    )
    .action(async (id: string, flags: AutoTopUpFlags) => {
      if (flags.off !== true && flags.limit === undefined)
        throw new UsageError("--limit is missing", "Say how much the lease may come to, or --off.");
      const session = await openSession(terminal, flags);
      const auto =
        flags.off === true || flags.limit === undefined
          ? null
          : {
              below: usdc(flags.below, "--below"),
              amount: usdc(flags.by, "--by"),
              limit: usdc(flags.limit, "--limit"),
            };
      show(session, await session.client.leases.autoTopUp(id, auto));
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
const MONEY: ReadonlySet<string> = new Set(["funded", "added", "left", "amount", "cumulative", "price"]);

export function eventLine({ id, at, type, data }: LeaseEvent): string {
  const facts = Object.entries(data).map(([name, value]) =>
    MONEY.has(name) && typeof value === "string"
      ? `${name}=${formatAmount(BigInt(value))}`
      : `${name}=${String(value)}`,
  );
  return table([[String(id), at, type.padEnd(11), facts.join(" ")]]);
}

interface AutoTopUpFlags extends CommonFlags {
  readonly below: string;
  readonly by: string;
  readonly limit?: string;
  readonly off?: boolean;
}

interface OpenFlags extends CommonFlags {
  readonly nodes: string;
  readonly gpus: string;
  readonly cpu: string;
  readonly memory: string;
  readonly gpu?: string;
  readonly region?: string;
  readonly verified?: boolean;
  readonly spread: Spread;
  readonly mode: LeaseMode;
  readonly duration: string;
  readonly extendable: string;
  readonly amount?: string;
  readonly maxRate?: string;
  readonly fromCredit?: boolean;
}

function openOrder({ client, settings, terminal }: Session, flags: OpenFlags): Promise<Order> {
  const nodes = whole(flags.nodes, "--nodes", 1);
  const hours = Number(flags.duration);
  if (!(hours >= 1 / 12 && hours <= 24))
    throw new UsageError(`--duration ${flags.duration}: expected hours, five minutes (0.084) to 24`);
  terminal.err.write(`asking ${nodes === 1 ? "a node" : `${nodes} nodes`} to hold what you want\n`);
  return client.leases.order({
    nodes,
    resources: {
      gpus: whole(flags.gpus, "--gpus", 1),
      cpu: whole(flags.cpu, "--cpu", 0),
      memory_gb: whole(flags.memory, "--memory", 0),
    },
    spread: flags.spread,
    mode: flags.mode,
    durationS: Math.round(hours * 3_600),
    extendableS: secondsOf(flags.extendable, "--extendable"),
    demand: {
      ...(settings.gpu === undefined ? {} : { gpu_model: settings.gpu }),
      ...(settings.region === undefined ? {} : { region: settings.region }),
      ...(flags.verified === true ? { verified: true } : {}),
    },
    ...(flags.amount === undefined ? {} : { amount: usdc(flags.amount, "--amount") }),
    ...(settings.max_rate === undefined ? {} : { maxRatePerHour: usdc(settings.max_rate, "--max-rate") }),
    payFrom: flags.fromCredit === true ? "credit" : "wallet",
    onQuoted(order) {
      const amounts = order.quotes.map(({ amount }) =>
        flags.amount === undefined ? amount : usdc(flags.amount, "--amount"),
      );
      const total = amounts.reduce((sum, amount) => sum + amount, 0n);
      const rate = order.quotes.reduce((sum, { terms }) => sum + terms.ratePerHour, 0n);
      terminal.err.write(
        `${order.quotes.length} hold, for ${formatAmount(rate)} USDC per hour in all; signing ${formatAmount(total)} USDC ${flags.fromCredit === true ? "from credit " : ""}into escrow\n`,
      );
    },
  });
}

function secondsOf(hours: string, name: string): number {
  const seconds = Math.round(Number(hours) * 3_600);
  if (hours !== "" && seconds >= 0 && seconds <= 86_400) return seconds;
  throw new UsageError(`${name} ${hours}: expected hours, up to 24`);
}

function whole(text: string, name: string, least: number): number {
  const number = Number(text);
  if (Number.isInteger(number) && number >= least) return number;
  throw new UsageError(`${name} ${text}: expected a whole number of at least ${least}`);
}

function showOrder({ terminal, json }: Session, order: Order): void {
  if (json) return printJson(terminal, Order.encode(order));
  const quotes = new Map(order.quotes.map((quote) => [quote.lease_id, quote]));
  const rows = order.leases.map(({ id, status, node }, n) => {
    const quote = quotes.get(id);
    const gpus = quote?.text.gpus ?? [];
    return [
      id,
      status,
      shortAddress(node),
      `${gpus.length} x ${[...new Set(gpus.map(({ model }) => model))].join(", ")}`,
      formatAmount(order.funding.amounts[n] ?? 0n),
      formatAmount(quote?.terms.ratePerHour ?? 0n),
    ];
  });
  terminal.out.write(table([["LEASE", "STATUS", "NODE", "GPUS", "FUNDED", "USDC/H"], ...rows]));
  terminal.err.write(`${order.id}; close each with gpux leases close <id>, and the rest comes back\n`);
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

function endOf({ ends_at, extendable_s = 0, terms }: LeaseView): string {
  const end = ends_at ?? new Date(terms.expiry * 1_000).toISOString();
  return extendable_s === 0 ? end : `${end}, can be extended by ${extendable_s / 3_600} h`;
}

function autoTopUpRow({ auto_top_up: auto }: LeaseView): string[][] {
  const limit = auto?.targets.at(-1);
  if (auto === undefined || limit === undefined) return [];
  return [["auto top-up", `below ${formatAmount(auto.below)} USDC, up to ${formatAmount(limit)}`]];
}

function show({ terminal, json }: Session, lease: LeaseView): void {
  if (json) return printJson(terminal, LeaseView.encode(lease));
  const rows = [
    ["lease", lease.id],
    ["status", lease.end === undefined ? lease.status : `${lease.status} (${lease.end.reason})`],
    ["node", `${lease.node} ${presenceOf(lease)}`],
    ["gpu", lease.text.gpus.map((gpu) => gpu.model).join(", ")],
    ["billed", lease.text.mode === "dedicated" ? "by the clock" : "while jobs run"],
    ["rate", `${formatAmount(lease.terms.ratePerHour)} USDC per hour, fee ${lease.terms.feeBps / 100} %`],
    ["start", `${formatAmount(startPriceOf(lease.text))} USDC, once`],
    ["money", `${formatAmount(lease.spent)} spent of ${formatAmount(lease.funded)} USDC`],
    ...(lease.top_ups ?? []).map(({ amount, status, detail }) => [
      "top-up",
      `${formatAmount(amount)} USDC ${status}${detail === undefined ? "" : `: ${detail}`}`,
    ]),
    ...autoTopUpRow(lease),
    ["jobs", `${lease.jobs_open} open, ${lease.jobs_ended} ended`],
    ["ends", endOf(lease)],
    ...lease.transactions.map((transaction) => [transaction.kind, transaction.hash]),
  ];
  terminal.out.write(table(rows));
}
