import { escrowDomain, type LeaseTerms, leaseIdHash } from "@gpux/protocol/eip712";
import { type Address, type HexBytes, leaseIdOf } from "@gpux/protocol/ids";
import type { Intent } from "@gpux/protocol/intent";
import { formatAmount } from "@gpux/protocol/money";
import type { Place } from "@gpux/protocol/place";
import type { PrivateKeyAccount } from "viem/accounts";
import { ChainError, EXIT } from "../outcome.ts";
import { paint, printJson, say, type Terminal, table } from "../terminal.ts";
import { type Call, callOf, type Escrow } from "./escrow.ts";
import { portalCall } from "./portal.ts";
import { isDoneAlready } from "./refusal.ts";
import { sendCall } from "./sender.ts";

/** What an intent does, for people. */
export function describeIntent(place: Place, intent: Intent): string {
  const lease = (terms: LeaseTerms) => leaseIdOf(leaseIdHash(escrowDomain(place), terms));
  const leases = (all: readonly LeaseTerms[], amounts: readonly bigint[], word: string) =>
    all.map((terms, i) => `${lease(terms)} ${word} ${formatAmount(amounts[i] ?? 0n)} USDC`).join(", ");
  switch (intent.kind) {
    case "fund":
      return `fund ${leases(intent.terms, intent.amounts, "with")}`;
    case "deposit":
      return `deposit ${formatAmount(intent.amount)} USDC of ${intent.from} for ${intent.spender} to spend`;
    case "allocate":
      return `fund from credit ${leases(intent.terms, intent.fundedTo, "up to")}`;
    case "settle":
    case "close":
      return `${intent.kind} ${lease(intent.terms)} at ${formatAmount(intent.cumulative)} USDC in all`;
    case "exit":
      return `ask ${lease(intent.terms)} to exit`;
    case "reclaim":
      return `reclaim the rest of ${lease(intent.terms)}`;
    case "release":
      return `ask for the credit of ${intent.payer} back from its spender ${intent.spender}`;
    case "reclaim_credit":
      return `take the credit of ${intent.payer} back from its spender ${intent.spender}`;
    case "revoke_meter":
      return `revoke the meter ${intent.meter}, for good`;
    case "withdraw":
      return `pay ${intent.account} what it is owed`;
  }
}

export interface PrintOptions {
  readonly json: boolean;
  /** As the L1 transaction that forces it in. */
  readonly l1: boolean;
  readonly portal: Address | undefined;
}

/** The call for somebody else to send; nothing is sent. */
export function printCall(terminal: Terminal, place: Place, intent: Intent, options: PrintOptions): void {
  const call = callOf(place, intent);
  const what = describeIntent(place, intent);
  if (options.l1) return printPortalCall(terminal, place, what, call, options);
  const { to, data, gas } = call;
  if (options.json)
    return printJson(terminal, { what, chain_id: place.chainId, to, value: "0", data, gas: gas.toString() });
  terminal.out.write(
    table([
      ["what", what],
      ["chain", String(place.chainId)],
      ["to", to],
      ["value", "0"],
      ["gas", `${gas} or more`],
      ["data", data],
    ]),
  );
}

function printPortalCall(
  terminal: Terminal,
  place: Place,
  what: string,
  call: Call,
  { json, portal }: PrintOptions,
): void {
  const { l1ChainId, to, data, gasLimit } = portalCall(call, place.chainId, portal);
  const deposit = {
    to: call.to,
    value: "0",
    gasLimit: gasLimit.toString(),
    isCreation: false,
    data: call.data,
  };
  if (json)
    return printJson(terminal, {
      what,
      chain_id: l1ChainId,
      to,
      value: "0",
      data,
      deposit_transaction: deposit,
    });
  terminal.out.write(
    table([
      ["what", `${what}, on chain ${place.chainId} by its OptimismPortal on L1`],
      ["chain", l1ChainId === null ? "the L1 of the portal" : String(l1ChainId)],
      ["to", to],
      ["value", "0"],
      ["data", data],
      ["calls", "depositTransaction(_to, _value, _gasLimit, _isCreation, _data) with"],
      ...Object.entries(deposit).map(([name, value]) => [`  _${name}`, String(value)]),
    ]),
  );
  say(terminal, "The chain has to include it within its sequencing window (12 h on OP Mainnet).");
}

export type Outcome =
  | { readonly status: "landed"; readonly hash: HexBytes; readonly block: number; readonly gasUsed: bigint }
  | { readonly status: "already"; readonly error: ChainError };

/** Sends an intent that was looked at before. @throws ChainError when it does not land. */
export async function land(
  terminal: Terminal,
  escrow: Escrow,
  rpc: string,
  account: PrivateKeyAccount,
  intent: Intent,
): Promise<Outcome> {
  const call = callOf(escrow.place, intent);
  const landed = await sendCall(escrow, rpc, account, call, (hash) => say(terminal, `sent ${hash}`));
  if (landed.succeeded) return { status: "landed", ...landed };
  // It ran well before: somebody else was faster, or the chain changed under it.
  const error = await escrow.simulate(intent);
  if (error !== null && isDoneAlready(error)) return { status: "already", error };
  throw (
    error ??
    new ChainError(
      "reverted",
      `${landed.hash} reverted`,
      "It would land now: run the same again.",
      EXIT.failure,
    )
  );
}

export function printOutcome(
  terminal: Terminal,
  place: Place,
  intent: Intent,
  outcome: Outcome,
  json: boolean,
): void {
  const what = describeIntent(place, intent);
  if (json)
    return printJson(
      terminal,
      outcome.status === "landed"
        ? {
            kind: intent.kind,
            status: "landed",
            transaction: outcome.hash,
            block: outcome.block,
            gas_used: outcome.gasUsed.toString(),
          }
        : { kind: intent.kind, status: "already", code: outcome.error.code, detail: outcome.error.message },
    );
  if (outcome.status === "landed")
    terminal.out.write(
      `${paint(terminal, "green", "done")}  ${what}, block ${outcome.block}, ${outcome.gasUsed} gas\n`,
    );
  else terminal.out.write(`${paint(terminal, "dim", "nothing to do")}  ${what}: ${outcome.error.message}\n`);
}
