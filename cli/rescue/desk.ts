import { Address } from "@gpux/protocol/ids";
import type { Place } from "@gpux/protocol/place";
import type { PrivateKeyAccount } from "viem/accounts";
import { configFolder, type Settings } from "../config.ts";
import { UsageError, WalletError } from "../outcome.ts";
import { passwordOf, settingsOf } from "../session.ts";
import type { Terminal } from "../terminal.ts";
import { accountOfKey, openWallet, walletAddress } from "../wallet.ts";
import { type Escrow, openEscrow, placeOn } from "./escrow.ts";

export interface RescueFlags {
  readonly rpc?: string;
  readonly escrow?: string;
  readonly profile?: string;
  readonly wallet?: string;
  readonly passwordFile?: string;
  readonly gasWallet?: string;
  readonly gasPasswordFile?: string;
  readonly print?: boolean;
  readonly l1?: boolean;
  readonly portal?: string;
  readonly yes?: boolean;
  readonly json?: boolean;
}

/** What one rescue works with: the user's node and keys, and nothing of ours. */
export interface Desk {
  readonly terminal: Terminal;
  readonly flags: RescueFlags;
  readonly settings: Settings;
  /** The config folder, with the leases that this machine has funded. */
  readonly folder: string;
  /** Named by hand. */
  readonly escrow: Address | undefined;
  readonly portal: Address | undefined;
  /** Calls are printed, not sent. */
  readonly prints: boolean;
}

export async function openDesk(terminal: Terminal, flags: RescueFlags): Promise<Desk> {
  const { rpc } = flags;
  return {
    terminal,
    flags,
    settings: await settingsOf(terminal, flags, rpc === undefined ? {} : { rpc }),
    folder: configFolder(terminal.environment),
    escrow: addressOf(flags.escrow, "--escrow"),
    portal: addressOf(flags.portal, "--portal"),
    prints: flags.print === true || flags.l1 === true,
  };
}

export function addressOf(text: string | undefined, name: string): Address | undefined {
  if (text === undefined) return undefined;
  const parsed = Address.safeParse(text);
  if (parsed.success) return parsed.data;
  throw new UsageError(`${name} ${text}: expected an address, 0x and 40 hex digits`);
}

/** The place, and the chain behind it where it can be asked. What is only printed needs no node. */
export async function reach(
  desk: Desk,
  expected: Place | null,
): Promise<{ place: Place; escrow: Escrow | null }> {
  const { rpc } = desk.settings;
  if (rpc !== undefined) {
    const escrow = await openEscrow(rpc, expected, desk.escrow);
    return { place: escrow.place, escrow };
  }
  if (desk.prints && expected !== null)
    return { place: placeOn(expected.chainId, desk.escrow ?? expected.escrow), escrow: null };
  throw new UsageError(
    "No node of the chain is named",
    "Name any with --rpc (GPUX_RPC): a public one will do.",
  );
}

/** The consumer's or payer's key, that signs. */
export async function openSigner({ terminal, flags, settings }: Desk): Promise<PrivateKeyAccount> {
  const { GPUX_PRIVATE_KEY } = terminal.environment;
  if (GPUX_PRIVATE_KEY) return accountOfKey(GPUX_PRIVATE_KEY);
  return openWallet(settings.wallet, () => passwordOf(terminal, flags, `Password of ${settings.wallet}: `));
}

/** The key whose ETH pays the gas: any will do, for the escrow never looks who calls. */
export async function openGasPayer(desk: Desk): Promise<PrivateKeyAccount> {
  const { terminal, flags } = desk;
  const { GPUX_GAS_PRIVATE_KEY } = terminal.environment;
  if (flags.gasWallet !== undefined) {
    const { gasWallet, gasPasswordFile: passwordFile } = flags;
    const given = passwordFile === undefined ? {} : { passwordFile };
    return openWallet(gasWallet, () => passwordOf(terminal, given, `Password of ${gasWallet}: `));
  }
  return GPUX_GAS_PRIVATE_KEY ? accountOfKey(GPUX_GAS_PRIVATE_KEY, "GPUX_GAS_PRIVATE_KEY") : openSigner(desk);
}

/** The wallet's address, without its password; null when there is no wallet. */
export async function ownAddress({ terminal, settings }: Desk): Promise<Address | null> {
  const { GPUX_PRIVATE_KEY } = terminal.environment;
  if (GPUX_PRIVATE_KEY) return Address.parse(accountOfKey(GPUX_PRIVATE_KEY).address);
  try {
    return Address.parse(await walletAddress(settings.wallet));
  } catch (error) {
    if (error instanceof WalletError) return null;
    throw error;
  }
}
