import { randomBytes, scrypt } from "node:crypto";
import { mkdir, open, readFile, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { keyAccount } from "@gpux/protocol/key-account";
import * as Keystore from "ox/Keystore";
import type { PrivateKeyAccount } from "viem/accounts";
import { z } from "zod";

/**
 * The agent's key at rest: a Web3 Secret Storage v3 file (scrypt, AES-128-CTR), as every Ethereum wallet writes it.
 * The key signs frames, receipts and vouchers; payouts go to another address, so a stolen machine cannot redirect
 * what it earns.
 */
const KeystoreFile = z.object({
  address: z.string().optional(),
  crypto: z.object({
    cipher: z.literal("aes-128-ctr"),
    ciphertext: z.string(),
    cipherparams: z.object({ iv: z.string() }),
    mac: z.string(),
    kdf: z.literal("scrypt"),
    kdfparams: z.object({
      dklen: z.literal(32),
      // Memory is 128 * n * r bytes: bounded, so that a planted file cannot eat the machine.
      n: z
        .int()
        .min(2)
        .max(1 << 19),
      p: z.int().min(1).max(16),
      r: z.int().min(1).max(16),
      salt: z.string().regex(/^(?:[0-9a-fA-F]{2})+$/),
    }),
  }),
  id: z.string(),
  version: z.literal(3),
});

export type KeystoreOutcome =
  | { ok: true; account: PrivateKeyAccount }
  | { ok: false; code: "missing" | "malformed" | "wrong_password"; detail: string };

/** Scrypt cost of new files: 2^17 is geth's "standard", about half a second and 128 MB. */
const SCRYPT_N = 1 << 17;

/** Writes a new file with mode 0600; never overwrites one (throws EEXIST). `n` is for tests alone. */
export async function createKeystore(
  path: string,
  privateKey: `0x${string}`,
  password: string,
  n = SCRYPT_N,
): Promise<PrivateKeyAccount> {
  const account = keyAccount(privateKey);
  const kdfparams = { dklen: 32, n, p: 1, r: 8, salt: randomBytes(32).toString("hex") };
  const iv = new Uint8Array(randomBytes(16));
  const key = await deriveKey(password, kdfparams);
  const keystore = Keystore.encrypt(privateKey, key, { iv, kdf: "scrypt", kdfparams });
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const file = await open(path, "wx", 0o600);
  try {
    await file.writeFile(
      `${JSON.stringify({ address: account.address.slice(2).toLowerCase(), ...keystore }, null, 2)}\n`,
    );
    await file.sync();
  } finally {
    await file.close();
  }
  return account;
}

/** Reads the address without the password. */
export async function keystoreAddress(path: string): Promise<string | null> {
  const text = await readFile(path, "utf8").catch(() => null);
  if (text === null) return null;
  const parsed = KeystoreFile.safeParse(parseJson(text));
  return parsed.success && parsed.data.address !== undefined ? `0x${parsed.data.address}` : null;
}

export async function openKeystore(path: string, password: string): Promise<KeystoreOutcome> {
  const text = await readFile(path, "utf8").catch(() => null);
  if (text === null)
    return { ok: false, code: "missing", detail: `There is no keystore at ${path}; run gpux-agent init.` };
  const parsed = KeystoreFile.safeParse(parseJson(text));
  if (!parsed.success)
    return { ok: false, code: "malformed", detail: `${path} is no scrypt keystore of version 3.` };
  const { crypto, id, version } = parsed.data;
  try {
    const key = await deriveKey(password, crypto.kdfparams);
    const privateKey = Keystore.decrypt({ crypto, id, version }, key);
    return { ok: true, account: keyAccount(privateKey) };
  } catch {
    // The MAC failed; ox says no more than that, and there is nothing else to tell the owner.
    return { ok: false, code: "wrong_password", detail: `The password does not open ${path}.` };
  }
}

/** Node's own scrypt (OpenSSL, which keeps to RFC 7914's bounds): ox's is JavaScript and takes seconds. */
function deriveKey(
  password: string,
  { n, r, p, dklen, salt }: { n: number; r: number; p: number; dklen: number; salt: string },
): Promise<`0x${string}`> {
  // OpenSSL refuses what needs more than `maxmem`; it counts a little above 128 * n * r.
  const options = { N: n, r, p, maxmem: 256 * n * r };
  return new Promise((resolve, reject) => {
    scrypt(password, Buffer.from(salt, "hex"), dklen, options, (error, key) => {
      if (error) reject(error);
      else resolve(`0x${key.toString("hex")}`);
    });
  });
}

/** The first line of a password file; refuses one that others than its owner may read. */
export async function readPasswordFile(
  path: string,
): Promise<{ ok: true; password: string } | { ok: false; detail: string }> {
  const found = await stat(path).catch(() => null);
  if (found === null) return { ok: false, detail: `There is no password file at ${path}.` };
  // Windows has no mode bits; its files show 0666.
  if (process.platform !== "win32" && (found.mode & 0o077) !== 0)
    return { ok: false, detail: `Others may read ${path}; run chmod 600 on it.` };
  const [password = ""] = (await readFile(path, "utf8")).split(/\r?\n/, 1);
  return password === "" ? { ok: false, detail: `${path} is empty.` } : { ok: true, password };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
