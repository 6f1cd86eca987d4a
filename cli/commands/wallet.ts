import { Address } from "@gpux/protocol/ids";
import type { Command } from "commander";
import { EXIT, WalletError } from "../outcome.ts";
import { type CommonFlags, openAccount, passwordOf, settingsOf, withCommonFlags } from "../session.ts";
import { printJson, say, type Terminal } from "../terminal.ts";
import { createWallet, walletAddress } from "../wallet.ts";

export function addWallet(program: Command, terminal: Terminal, done: (code: number) => void): void {
  const wallet = program.command("wallet").description("the key that signs requests and payments");

  withCommonFlags(wallet.command("new").description("make a key, kept encrypted in the config folder"))
    .addHelpText("after", "\nExample:\n  $ gpux wallet new --password-file ~/.gpux-password")
    .action(async (flags: CommonFlags) => {
      const settings = await settingsOf(terminal, flags);
      const password = await newPassword(terminal, flags);
      const address = Address.parse((await createWallet(settings.wallet, password)).address);
      if (flags.json) printJson(terminal, { address, path: settings.wallet });
      else terminal.out.write(`${address}\n`);
      say(terminal, `Kept at ${settings.wallet}. Without its password the key is lost: back both up.`);
      done(EXIT.ok);
    });

  withCommonFlags(wallet.command("show").description("the address, and where its key is"))
    .option("--unlock", "open the wallet too, to check its password")
    .addHelpText("after", "\nExample:\n  $ gpux wallet show --json")
    .action(async (flags: CommonFlags & { unlock?: boolean }) => {
      const settings = await settingsOf(terminal, flags);
      const fromKey = Boolean(terminal.environment.GPUX_PRIVATE_KEY);
      const opened = fromKey || flags.unlock === true;
      const address = opened
        ? Address.parse((await openAccount(terminal, flags, settings)).address)
        : await walletAddress(settings.wallet);
      const path = fromKey ? null : settings.wallet;
      if (flags.json) printJson(terminal, { address, path });
      else terminal.out.write(`${address}\n`);
      say(terminal, path === null ? "From GPUX_PRIVATE_KEY." : `In ${path}.`);
      done(EXIT.ok);
    });
}

/** Typed twice, because a slip would lock the key away for good. */
async function newPassword(terminal: Terminal, flags: CommonFlags): Promise<string> {
  const asked = flags.passwordFile === undefined && !terminal.environment.GPUX_PASSWORD;
  const password = await passwordOf(terminal, flags, "New password: ");
  if (password === "")
    throw new WalletError("The password is empty", "A key without a password is anyone's.");
  if (asked && (await terminal.askSecret("Again: ")) !== password) {
    throw new WalletError("The two passwords differ", "Nothing was written; try again.");
  }
  return password;
}
