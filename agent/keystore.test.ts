import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as Keystore from "ox/Keystore";
import { privateKeyToAddress } from "viem/accounts";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createKeystore, keystoreAddress, openKeystore, readPasswordFile } from "./keystore.ts";

const key = `0x${"a1".repeat(32)}` as const;
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "gpux-keystore-"));
});
afterAll(() => rm(folder, { recursive: true }));

describe("keystore", () => {
  test("opens with its password alone, is the owner's alone, and is never overwritten", async () => {
    const path = join(folder, "new", "keystore.json");
    const account = await createKeystore(path, key, "correct horse", 1 << 10);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(await keystoreAddress(path)).toBe(account.address.toLowerCase());
    expect(await openKeystore(path, "correct horse")).toMatchObject({
      ok: true,
      account: { address: account.address },
    });
    expect(await openKeystore(path, "battery staple")).toMatchObject({ ok: false, code: "wrong_password" });
    await expect(createKeystore(path, key, "x", 1 << 10)).rejects.toThrow(/EEXIST/);
  });

  test("opens what another implementation wrote (ox's own scrypt)", async () => {
    const path = join(folder, "other.json");
    const [derived, options] = await Keystore.scryptAsync({ password: "pässword", n: 1 << 10 });
    await writeFile(path, JSON.stringify(Keystore.encrypt(key, derived, options)));
    const opened = await openKeystore(path, "pässword");
    expect(opened).toMatchObject({ ok: true, account: { address: privateKeyToAddress(key) } });
  });

  test("refuses what is no keystore, and one that would eat the machine's memory", async () => {
    const path = join(folder, "bad.json");
    expect(await openKeystore(path, "x")).toMatchObject({ code: "missing" });
    await writeFile(path, "{");
    expect(await openKeystore(path, "x")).toMatchObject({ code: "malformed" });
    const big = join(folder, "big.json");
    await createKeystore(big, key, "x", 1 << 10);
    await writeFile(big, (await readFile(big, "utf8")).replace('"n": 1024', '"n": 1073741824'));
    expect(await openKeystore(big, "x")).toMatchObject({ code: "malformed" });
  });
});

describe("password file", () => {
  test("is read only when its owner alone may", async () => {
    const path = join(folder, "password");
    await writeFile(path, "hunter2\nnot this\n", { mode: 0o644 });
    expect((await readPasswordFile(path)).ok).toBe(false);
    await chmod(path, 0o600);
    expect(await readPasswordFile(path)).toEqual({ ok: true, password: "hunter2" });
    await writeFile(path, "\n");
    expect((await readPasswordFile(path)).ok).toBe(false);
    expect((await readPasswordFile(join(folder, "none"))).ok).toBe(false);
  });
});
