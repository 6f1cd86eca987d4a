import { parseAmount } from "@gpux/protocol/money";
import { type Account, type Client, createClient } from "@gpux/sdk";
import type { Command } from "commander";
import { configFolder, loadSettings, type Settings } from "./config.ts";
import { keepLease } from "./kept-leases.ts";
import { UsageError } from "./outcome.ts";
import type { Terminal } from "./terminal.ts";
import { accountOfKey, openWallet, readPasswordFile } from "./wallet.ts";

/** Flags that every command takes; they stand behind the command's name. */
export interface CommonFlags {
  readonly url?: string;
  readonly profile?: string;
  readonly wallet?: string;
  readonly passwordFile?: string;
  readonly json?: boolean;
}

export function withCommonFlags(command: Command): Command {
  return command
    .option("--url <url>", "the edge (GPUX_URL)")
    .option("--profile <name>", "a profile of config.json (GPUX_PROFILE)")
    .option("--wallet <file>", "the keystore to sign with (GPUX_WALLET)")
    .option("--password-file <file>", "its first line opens the wallet (else GPUX_PASSWORD, else a prompt)")
    .option("--json", "data as JSON on stdout, talk on stderr");
}

/** Flags of single commands that stand over the profile. */
interface Limits {
  readonly gpu?: string;
  readonly region?: string;
  readonly max_price?: string;
  readonly deposit?: string;
  readonly max_rate?: string;
  readonly rpc?: string;
}

export interface Session {
  readonly terminal: Terminal;
  readonly settings: Settings;
  readonly client: Client;
  readonly json: boolean;
}

/** Base units of a setting or flag in USDC. */
export function usdc(text: string, name: string): bigint {
  const amount = parseAmount(text);
  if (amount !== null) return amount;
  throw new UsageError(`${name} ${text}: expected USDC as a decimal, such as 0.05`);
}

export function settingsOf(terminal: Terminal, flags: CommonFlags, limits: Limits = {}): Promise<Settings> {
  const { url, profile, wallet } = flags;
  const given = Object.entries({ url, profile, wallet, ...limits }).filter((entry) => entry[1] !== undefined);
  return loadSettings(Object.fromEntries(given), terminal.environment);
}

/** Settings, wallet and client of one command. `limits` are flags that stand over the profile's. */
export async function openSession(
  terminal: Terminal,
  flags: CommonFlags,
  limits: Limits = {},
): Promise<Session> {
  const settings = await settingsOf(terminal, flags, limits);
  const account = await openAccount(terminal, flags, settings);
  const maxAmount = usdc(settings.deposit, "--deposit");
  const autoOpen = {
    maxAmount,
    ...(settings.max_rate === undefined ? {} : { maxRatePerHour: usdc(settings.max_rate, "--max-rate") }),
  };
  const folder = configFolder(terminal.environment);
  const client = createClient({
    url: settings.url,
    account,
    autoOpen,
    keep: (funding) => keepLease(folder, funding),
  });
  return { terminal, settings, client, json: flags.json === true };
}

/** `GPUX_PRIVATE_KEY`, else the wallet. The password comes from a file, the environment or a prompt; never from argv. */
export async function openAccount(
  terminal: Terminal,
  flags: CommonFlags,
  settings: Settings,
): Promise<Account> {
  const { GPUX_PRIVATE_KEY } = terminal.environment;
  if (GPUX_PRIVATE_KEY) return accountOfKey(GPUX_PRIVATE_KEY);
  return openWallet(settings.wallet, () => passwordOf(terminal, flags, `Password of ${settings.wallet}: `));
}

export async function passwordOf(terminal: Terminal, flags: CommonFlags, question: string): Promise<string> {
  if (flags.passwordFile !== undefined) return readPasswordFile(flags.passwordFile);
  return terminal.environment.GPUX_PASSWORD || (await terminal.askSecret(question));
}
