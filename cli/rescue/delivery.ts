import type { LeaseTerms } from "@gpux/protocol/eip712";
import { escrowDomain, leaseIdHash } from "@gpux/protocol/eip712";
import type { Intent } from "@gpux/protocol/intent";
import type { Place } from "@gpux/protocol/place";
import type { PrivateKeyAccount } from "viem/accounts";
import { ChainError, EXIT, exitCodeOf, explain, UsageError } from "../outcome.ts";
import { say } from "../terminal.ts";
import { type Desk, openGasPayer } from "./desk.ts";
import { type Escrow, reclaimableAt } from "./escrow.ts";
import { describeIntent, land, type Outcome, printCall, printOutcome } from "./landing.ts";
import { isDoneAlready } from "./refusal.ts";
import { timeText } from "./time.ts";

/** A user who says no, or whose Ctrl-C is a no. */
class Declined extends Error {}

/**
 * Lands intents one after another, or prints them. Each is tried by a call first. One that fails does not stop the
 * others; the exit code is that of the first failure. `escrow` is null where there is no node: then it only prints.
 */
export async function deliver(
  desk: Desk,
  place: Place,
  escrow: Escrow | null,
  intents: readonly Intent[],
): Promise<number> {
  if (desk.prints) return printAll(desk, place, escrow, intents);
  const { rpc } = desk.settings;
  if (escrow === null || rpc === undefined)
    throw new UsageError("No node of the chain is named", "Use --rpc.");
  let account: PrivateKeyAccount | null = null;
  let code: number = EXIT.ok;
  for (const [i, intent] of intents.entries()) {
    try {
      const refusal = await escrow.simulate(intent);
      if (refusal !== null && !isDoneAlready(refusal)) throw refusal;
      let outcome: Outcome;
      if (refusal === null) {
        account ??= await agreed(desk, place, intents.slice(i));
        outcome = await land(desk.terminal, escrow, rpc, account, intent);
      } else outcome = { status: "already", error: refusal };
      printOutcome(desk.terminal, place, intent, outcome, desk.flags.json === true);
      await sayNext(desk, escrow, intent);
    } catch (error) {
      if (error instanceof Declined) {
        say(desk.terminal, "Nothing was sent.");
        return EXIT.interrupted;
      }
      if (intents.length === 1 || !(error instanceof ChainError)) throw error;
      desk.terminal.err.write(`${describeIntent(place, intent)}\n${explain(error, false)}`);
      code = code === EXIT.ok ? exitCodeOf(error) : code;
    }
  }
  return code;
}

async function printAll(
  desk: Desk,
  place: Place,
  escrow: Escrow | null,
  intents: readonly Intent[],
): Promise<number> {
  const { terminal, flags, portal } = desk;
  if (escrow === null) say(terminal, "No node was asked (--rpc): whether it would land now is not known.");
  for (const intent of intents) {
    const refusal = (await escrow?.simulate(intent)) ?? null;
    if (refusal !== null) say(terminal, `Now it would not land. ${refusal.message}. ${refusal.hint}`);
    printCall(terminal, place, intent, { json: flags.json === true, l1: flags.l1 === true, portal });
  }
  return EXIT.ok;
}

/** Asks once for all that may follow. The key is opened before, so that a yes is the last thing asked for. */
async function agreed(desk: Desk, place: Place, intents: readonly Intent[]): Promise<PrivateKeyAccount> {
  const account = await openGasPayer(desk);
  const { terminal, flags } = desk;
  for (const intent of intents) say(terminal, describeIntent(place, intent));
  const question = `Send ${intents.length === 1 ? "it" : `these ${intents.length}`} to chain ${place.chainId}, gas paid by ${account.address}?`;
  if (flags.yes !== true && !(await terminal.confirm(question))) throw new Declined();
  return account;
}

/** What to do after it, from when on. */
async function sayNext({ terminal }: Desk, escrow: Escrow, intent: Intent): Promise<void> {
  if (intent.kind === "exit") {
    const free = await freeFrom(escrow, intent.terms);
    if (free !== null) say(terminal, `The rest is free from ${free}: gpux rescue reclaim.`);
  } else if (intent.kind === "settle" || intent.kind === "close")
    say(terminal, `To pay it out: gpux rescue withdraw ${intent.terms.provider}`);
  else if (intent.kind === "reclaim")
    say(terminal, `To pay it out: gpux rescue withdraw ${intent.terms.payer}`);
}

async function freeFrom(escrow: Escrow, terms: LeaseTerms): Promise<string | null> {
  const hash = leaseIdHash(escrowDomain(escrow.place), terms);
  const [lease, delays, now] = await Promise.all([escrow.lease(hash), escrow.delays(), escrow.now()]);
  const at = reclaimableAt(lease, terms.expiry, delays);
  return at === null ? null : timeText(at, now);
}
