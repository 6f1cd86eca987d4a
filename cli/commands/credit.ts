import { CreditView } from "@gpux/protocol/credit";
import { formatAmount } from "@gpux/protocol/money";
import type { IntentDoneView } from "@gpux/sdk";
import type { Command } from "commander";
import { EXIT, UsageError } from "../outcome.ts";
import { type CommonFlags, openSession, type Session, usdc, withCommonFlags } from "../session.ts";
import { printJson, say, type Terminal, table } from "../terminal.ts";

export function addCredit(program: Command, terminal: Terminal, done: (code: number) => void): void {
  const credit = program
    .command("credit")
    .description("USDC set aside once, from which leases open without another payment");

  withCommonFlags(
    credit
      .command("deposit <usdc>")
      .description("set USDC aside, by one signature; what leases do not use returns to it"),
  )
    .addHelpText("after", "\nExample:\n  $ gpux credit deposit 5.00\n  $ gpux leases open --from-credit")
    .action(async (amount: string, flags: CommonFlags) => {
      const session = await openSession(terminal, flags);
      const units = usdc(amount, "<usdc>");
      if (units === 0n) throw new UsageError(`<usdc> ${amount}: expected more than nothing`);
      terminal.err.write(`signing ${formatAmount(units)} USDC into credit; waiting for the chain\n`);
      const { txHash } = await session.client.credit.deposit(units);
      await show(session, [["transaction", txHash ?? "another's"]]);
      done(EXIT.ok);
    });

  withCommonFlags(credit.command("show").description("what the credit holds now"))
    .addHelpText("after", "\nExample:\n  $ gpux credit show --json | jq -r .balance")
    .action(async (flags: CommonFlags) => {
      await show(await openSession(terminal, flags), []);
      done(EXIT.ok);
    });

  withCommonFlags(
    credit
      .command("release")
      .description("take all of it back: asks first, and an hour later, asked again, pays it out"),
  )
    .addHelpText("after", "\nExample:\n  $ gpux credit release   # and once more when it says that it may")
    .action(async (flags: CommonFlags) => {
      const session = await openSession(terminal, flags);
      say(session.terminal, await released(session));
      await show(session, []);
      done(EXIT.ok);
    });
}

/** One step of the way back: the request, or what completes it once it is due. */
async function released({ client }: Session): Promise<string> {
  const { release_at } = await client.credit.balance();
  if (release_at === undefined) {
    const at = releaseAtOf(await client.credit.release());
    if (at === null) return "It is back with its payer.";
    return `It may be taken back from ${new Date(at * 1_000).toISOString()} on: gpux credit release once more.`;
  }
  if (Date.parse(release_at) > Date.now())
    throw new UsageError(`It is on its way back until ${release_at}`, "Ask again after that.");
  await client.credit.reclaim(Date.parse(release_at) / 1_000);
  return "It is back with its payer.";
}

function releaseAtOf({ result }: IntentDoneView): number | null {
  return result.kind === "release" ? result.releaseAt : null;
}

async function show({ client, terminal, json }: Session, more: readonly string[][]): Promise<void> {
  const credit = await client.credit.balance();
  if (json) return printJson(terminal, CreditView.encode(credit));
  terminal.out.write(
    table([
      ["credit", `${formatAmount(credit.balance)} USDC`],
      ["payer", credit.payer],
      ["spender", credit.spender],
      ["meter", credit.meter],
      ...(credit.release_at === undefined ? [] : [["on its way back", `from ${credit.release_at} on`]]),
      ...more.map((row) => [...row]),
    ]),
  );
}
