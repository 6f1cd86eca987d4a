import { Address } from "@gpux/protocol/ids";
import { parseAmount } from "@gpux/protocol/money";
import { type Account, type Client, createClient, type KeptSession } from "@gpux/sdk";
import type { Command } from "commander";
import { configFolder, loadSettings, type Settings } from "./config.ts";
import { keepLease } from "./kept-leases.ts";
import { UsageError } from "./outcome.ts";
import { keptSession } from "./session-file.ts";
import type { Terminal } from "./terminal.ts";
import { accountOfKey, openWallet, readPasswordFile, walletAddress } from "./wallet.ts";

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
  readonly allow_ahead?: string;
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

/**
 * Settings, wallet and client of one command. `limits` are flags that stand over the profile's. Where this machine keeps
 * a session of the wallet (`gpux session open`), that one signs, and the wallet is opened only for what needs itself.
 */
export async function openSession(
  terminal: Terminal,
  flags: CommonFlags,
  limits: Limits = {},
): Promise<Session> {
  const settings = await settingsOf(terminal, flags, limits);
  const kept = await keptFor(terminal, settings);
  const account =
    kept === null
      ? await openAccount(terminal, flags, settings)
      : openedWhenAsked(kept.address, () => openAccount(terminal, flags, settings));
  const client = clientOf(terminal, settings, account, kept?.session ?? null);
  return { terminal, settings, client, json: flags.json === true };
}

/** As {@link openSession}, by the wallet itself. */
export async function walletOf(
  terminal: Terminal,
  flags: CommonFlags,
): Promise<Session & { readonly account: Account }> {
  const settings = await settingsOf(terminal, flags);
  const account = await openAccount(terminal, flags, settings);
  const client = clientOf(terminal, settings, account, null);
  return { terminal, settings, client, account, json: flags.json === true };
}

function clientOf(
  terminal: Terminal,
  settings: Settings,
  account: Account,
  session: KeptSession | null,
): Client {
  const maxAmount = usdc(settings.deposit, "--deposit");
  const autoOpen = {
    maxAmount,
    ...(settings.max_rate === undefined ? {} : { maxRatePerHour: usdc(settings.max_rate, "--max-rate") }),
  };
  const folder = configFolder(terminal.environment);
  return createClient({
    url: settings.url,
    account,
    autoOpen,
    // One command runs one job: what comes after it is not for this one to allow.
    allowAhead: usdc(settings.allow_ahead ?? "0", "--allow-ahead"),
    keep: (funding) => keepLease(folder, funding),
    ...(session === null ? {} : { session }),
  });
}

async function keptFor(terminal: Terminal, settings: Settings) {
  const { GPUX_PRIVATE_KEY } = terminal.environment;
  // A wallet that is not there, or does not say whose it is, is a matter for when it is opened.
  const address = GPUX_PRIVATE_KEY
    ? accountOfKey(GPUX_PRIVATE_KEY).address
    : await walletAddress(settings.wallet).catch(() => null);
  if (address === null) return null;
  const folder = configFolder(terminal.environment);
  const session = await keptSession(folder, settings.url, address, Date.now());
  return session === null ? null : { session, address: Address.parse(address) };
}

/** The wallet's account, opened (and its password asked for) with the first signature that it has to make. */
function openedWhenAsked(address: Address, open: () => Promise<Account>): Account {
  let opened: Promise<Account> | null = null;
  const account = () => {
    opened ??= open();
    return opened;
  };
  return {
    address,
    signMessage: async (message) => (await account()).signMessage(message),
    signTypedData: async (typedData) => (await account()).signTypedData(typedData),
  };
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
