import { privateKeyToAccount } from "viem/accounts";
import { expect, test } from "vitest";
import { keyAccount } from "./key-account.ts";
import { recoverSigner } from "./signature.ts";

const key = `0x${"4a".repeat(32)}` as const;
const account = keyAccount(key);
const viems = privateKeyToAccount(key);

const typed = {
  domain: { name: "A", chainId: 10 },
  types: { Mail: [{ name: "text", type: "string" }] },
  primaryType: "Mail",
  message: { text: "hello" },
} as const;

test("signs digests, messages and typed data to viem's bytes", async () => {
  const hash = `0x${"5b".repeat(32)}` as const;
  expect(account.address).toBe(viems.address);
  expect(await account.sign({ hash })).toBe(await viems.sign({ hash }));
  expect(await account.signMessage({ message: "hello" })).toBe(await viems.signMessage({ message: "hello" }));
  expect(await account.signMessage({ message: { raw: "0x00ff" } })).toBe(
    await viems.signMessage({ message: { raw: "0x00ff" } }),
  );
  expect(await account.signTypedData(typed)).toBe(await viems.signTypedData(typed));
  expect(await recoverSigner(hash, await account.sign({ hash }))).toBe(viems.address.toLowerCase());
});
