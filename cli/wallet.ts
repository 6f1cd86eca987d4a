import { mkdir, open, readFile, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { keyAccount } from "@gpux/protocol/key-account";
import * as Keystore from "ox/node/Keystore";
import { generatePrivateKey, type PrivateKeyAccount } from "viem/accounts";
import { z } from "zod";
import { WalletError } from "./outcome.ts";

/** Web3 Secret Storage v3 with scrypt, as every Ethereum wallet writes and reads it. */
const WalletFile = z.object({
  address: z.string().optional(),
  crypto: z.object({
    cipher: z.literal("aes-128-ctr"),
    ciphertext: z.string(),
    cipherparams: z.object({ iv: z.string() }),
    mac: z.string(),
    kdf: z.literal("scrypt"),
    kdfparams: z.object({
      dklen: z.int(),
      // Memory is 128 * n * r bytes: bounded, so that a planted file cannot eat the machine.
      n: z
        .int()
        .min(2)
        .max(1 << 20),
      p: z.int().min(1).max(16),
      r: z.int().min(1).max(16),
      salt: z.string(),
    }),
  }),
  id: z.string(),
  version: z.literal(3),
});

/** geth's "standard": about half a second and 128 MB. */
const SCRYPT_N = 1 << 17;

/** Writes a new wallet with mode 0600; never over an old one. `scryptN` is lowered by tests alone. */
export async function createWallet(
  path: string,
  password: string,
  privateKey: `0x${string}` = generatePrivateKey(),
  scryptN = SCRYPT_N,
): Promise<PrivateKeyAccount> {
  const account = keyAccount(privateKey);
  const [key, options] = await Keystore.scryptAsync({ password, n: scryptN });
  const wallet = {
    address: account.address.slice(2).toLowerCase(),
    ...Keystore.encrypt(privateKey, key, options),
  };
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const file = await open(path, "wx", 0o600).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error;
    throw new WalletError(
      `There is a wallet at ${path} already`,
      "Name another file with --wallet; this one is never overwritten.",
    );
  });
  try {
    await file.writeFile(`${JSON.stringify(wallet, null, 2)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  return account;
}

/** The address, without the password. */
export async function walletAddress(path: string): Promise<string> {
  const { address } = await readWallet(path);
  if (address !== undefined) return `0x${address.replace(/^0x/, "")}`;
  throw new WalletError(
    `${path} does not name its address`,
    "Open it with its password: gpux wallet show --unlock.",
  );
}

/** `password` is asked for only when there is a wallet to open. */
export async function openWallet(path: string, password: () => Promise<string>): Promise<PrivateKeyAccount> {
  const { crypto, id, version } = await readWallet(path);
  const keystore = { crypto, id, version };
  const secret = await password();
  try {
    const key = await Keystore.toKeyAsync(keystore, { password: secret });
    return keyAccount(Keystore.decrypt(keystore, key));
  } catch {
    // The MAC failed: ox knows no more than that.
    throw new WalletError(`The password does not open ${path}`, "Check GPUX_PASSWORD or the password file.");
  }
}

async function readWallet(path: string): Promise<z.output<typeof WalletFile>> {
  const text = await readFile(path, "utf8").catch(() => null);
  if (text === null) {
    throw new WalletError(
      `There is no wallet at ${path}`,
      "Make one with `gpux wallet new`, or set GPUX_PRIVATE_KEY.",
    );
  }
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    document = null;
  }
  const parsed = WalletFile.safeParse(document);
  if (parsed.success) return parsed.data;
  throw new WalletError(`${path} is no scrypt keystore of version 3`, "Name another file with --wallet.");
}

/** From an environment variable, for demos and CI: no file, no password. */
export function accountOfKey(key: string, variable = "GPUX_PRIVATE_KEY"): PrivateKeyAccount {
  try {
    return keyAccount(z.templateLiteral(["0x", z.string().regex(/^[0-9a-fA-F]{64}$/)]).parse(key));
  } catch {
    // Never quote what was given: it may be a mistyped key.
    throw new WalletError(`${variable} is no private key`, "It is 0x and 64 hex digits.");
  }
}

/** The first line; refuses a file that others than its owner may read. */
export async function readPasswordFile(path: string): Promise<string> {
  const found = await stat(path).catch(() => null);
  if (found === null) throw new WalletError(`There is no password file at ${path}`, "Check --password-file.");
  // Windows has no mode bits; its files show 0666.
  if (process.platform !== "win32" && (found.mode & 0o077) !== 0) {
    throw new WalletError(`Others may read ${path}`, `Run chmod 600 ${path}.`);
  }
  const [password = ""] = (await readFile(path, "utf8")).split(/\r?\n/, 1);
  if (password === "") throw new WalletError(`${path} is empty`, "Its first line is the password.");
  return password;
}
