import { escrowDomain, type LeaseTerms, types } from "@gpux/protocol/eip712";
import { HexBytes } from "@gpux/protocol/ids";
import type { Place } from "@gpux/protocol/place";
import type { Command } from "commander";
import { EXIT, UsageError, WalletError } from "../outcome.ts";
import { deliver } from "../rescue/delivery.ts";
import {
  addressOf,
  type Desk,
  openDesk,
  openSigner,
  ownAddress,
  type RescueFlags,
  reach,
} from "../rescue/desk.ts";
import { findLease, leaseArgument } from "../rescue/lookup.ts";
import { readPapers } from "../rescue/papers.ts";
import { showStatus } from "../rescue/status.ts";
import type { Terminal } from "../terminal.ts";

export function addRescue(program: Command, terminal: Terminal, done: (code: number) => void): void {
  const rescue = program
    .command("rescue")
    .description("get your money without us: through any node of the chain, with your own keys");

  withChainFlags(
    rescue.command("status <lease>").description("what the chain says, and what can be done from when"),
  )
    .addHelpText("after", "\nExample:\n  $ gpux rescue status lse_... --rpc https://mainnet.optimism.io")
    .action(async (text: string, flags: RescueFlags) => {
      const desk = await openDesk(terminal, flags);
      const { escrow, lease } = await leaseOf(desk, text);
      if (escrow === null) throw new UsageError("No node of the chain is named", "Use --rpc.");
      await showStatus(terminal, escrow, lease, flags.json === true);
      done(EXIT.ok);
    });

  withSendFlags(
    rescue
      .command("exit <lease>")
      .description("ask for the rest of a lease back; free after the contract's delay")
      .option("--signature <hex>", "of the Exit, by a smart wallet (ERC-1271) or a P-256 key"),
  )
    .addHelpText("after", "\nExample:\n  $ gpux rescue exit lse_... --rpc https://mainnet.optimism.io")
    .action(async (text: string, flags: RescueFlags & { signature?: string }) => {
      const desk = await openDesk(terminal, flags);
      const { place, escrow, lease } = await leaseOf(desk, text);
      const signature = await exitSignature(desk, place, lease, flags.signature);
      const { terms } = lease;
      done(await deliver(desk, place, escrow, [{ kind: "exit", terms, signature }]));
    });

  withSendFlags(
    rescue.command("reclaim <lease>").description("after an exit's delay or expiry: the rest to its payer"),
  )
    .addHelpText("after", "\nExample:\n  $ gpux rescue reclaim lse_... --rpc https://mainnet.optimism.io")
    .action(async (text: string, flags: RescueFlags) => {
      const desk = await openDesk(terminal, flags);
      const { place, escrow, lease } = await leaseOf(desk, text);
      done(await deliver(desk, place, escrow, [{ kind: "reclaim", terms: lease.terms }]));
    });

  withSendFlags(
    rescue
      .command("withdraw [account]")
      .description("what the escrow owes to an account, by default to the wallet"),
  )
    .addHelpText("after", "\nExample:\n  $ gpux rescue withdraw --rpc https://mainnet.optimism.io")
    .action(async (text: string | undefined, flags: RescueFlags) => {
      const desk = await openDesk(terminal, flags);
      const account = addressOf(text, "account") ?? (await ownAddress(desk));
      if (account === null)
        throw new UsageError("Whom to pay is not said", "Name the account: gpux rescue withdraw 0x...");
      const { place, escrow } = await reach(desk, null);
      done(await deliver(desk, place, escrow, [{ kind: "withdraw", account, occasion: "rescue" }]));
    });

  withSendFlags(
    rescue
      .command("send <file>")
      .description("land what you hold: intents as JSON, one or many, - for standard input"),
  )
    .addHelpText(
      "after",
      "\nExamples:\n  $ gpux rescue send voucher.json --rpc https://mainnet.optimism.io\n  $ gpux-agent vouchers | gpux rescue send - --rpc https://mainnet.optimism.io --yes",
    )
    .action(async (file: string, flags: RescueFlags) => {
      const desk = await openDesk(terminal, flags);
      const papers = await readPapers(terminal, file);
      const [first, ...others] = papers.map((paper) => paper.place);
      const different = others.some(
        (place) => place?.chainId !== first?.chainId || place?.escrow !== first?.escrow,
      );
      if (different) throw new UsageError(`${file} is for several chains or escrows`, "Send them apart.");
      const intents = papers.flatMap(({ intent }) => (intent === null ? [] : [intent]));
      if (intents.length < papers.length)
        throw new UsageError(
          `${file} holds terms without a signature`,
          "gpux rescue exit signs an exit for them.",
        );
      const { place, escrow } = await reach(desk, first ?? null);
      done(await deliver(desk, place, escrow, intents));
    });
}

/** A lease by what a person typed, and the chain it is on where that can be asked. */
async function leaseOf(desk: Desk, text: string) {
  const argument = await leaseArgument(desk.terminal, desk.folder, text);
  const { place, escrow } = await reach(desk, "terms" in argument ? argument.place : null);
  const lease = await findLease(desk.terminal, place, escrow, argument, () => ownAddress(desk));
  return { place, escrow, lease };
}

/** Signed here and now: no signature of anybody else is needed to leave. */
async function exitSignature(
  desk: Desk,
  place: Place,
  { terms, hash }: { terms: LeaseTerms; hash: `0x${string}` },
  given: string | undefined,
): Promise<HexBytes> {
  if (given !== undefined) {
    const parsed = HexBytes.safeParse(given);
    if (parsed.success) return parsed.data;
    throw new UsageError("--signature: expected bytes in hex");
  }
  const account = await openSigner(desk);
  const address = account.address.toLowerCase();
  if (address !== terms.payer && address !== terms.consumerSigner)
    throw new WalletError(
      `${account.address} may not end this lease: its payer is ${terms.payer}, its consumer's key ${terms.consumerSigner}`,
      "Name the wallet of one of them with --wallet; a smart wallet's signature goes by --signature.",
    );
  return account.signTypedData({
    domain: escrowDomain(place),
    types: { Exit: types.Exit },
    primaryType: "Exit",
    message: { leaseId: hash },
  });
}

function withChainFlags(command: Command): Command {
  return command
    .option("--rpc <url>", "any node of the chain (GPUX_RPC)")
    .option(
      "--escrow <address>",
      "the LeaseEscrow; known for OP Mainnet, OP Sepolia and leases that this machine funded",
    )
    .option("--profile <name>", "a profile of config.json (GPUX_PROFILE)")
    .option("--wallet <file>", "the keystore to sign with (GPUX_WALLET)")
    .option("--json", "data as JSON on stdout, talk on stderr");
}

function withSendFlags(command: Command): Command {
  return withChainFlags(command)
    .option("--password-file <file>", "its first line opens the wallet (else GPUX_PASSWORD, else a prompt)")
    .option(
      "--gas-wallet <file>",
      "the keystore whose ETH pays the gas, if another (or GPUX_GAS_PRIVATE_KEY)",
    )
    .option("--gas-password-file <file>", "its first line opens the gas wallet")
    .option("--print", "print the call for anybody to send; send nothing")
    .option("--l1", "print it as the OptimismPortal call that forces it in from L1")
    .option("--portal <address>", "the OptimismPortal, for --l1 on other chains")
    .option("--yes", "send without asking");
}
