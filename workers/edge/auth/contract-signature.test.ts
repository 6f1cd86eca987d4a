import { SELF } from "cloudflare:test";
import { newAccount, requestOf } from "@gpux/durable-objects/testing/client";
import { signRequest } from "@gpux/protocol/http-signature/erc8128";
import { createWalletClient, http, publicActions } from "viem";
import { expect, inject, test } from "vitest";
import type {} from "../../../test/setup/provided-context.ts";
import { contractAccepts } from "./contract-signature.ts";

const { url, chainId, deployer } = inject("devnet");
const chain = createWalletClient({ account: deployer, transport: http(url) }).extend(publicActions);

/** `runtime` on the chain: init code that returns what follows it. */
async function deploy(runtime: string): Promise<`0x${string}`> {
  const size = (runtime.length / 2).toString(16).padStart(2, "0");
  const hash = await chain.sendTransaction({
    chain: null,
    data: `0x60${size}600c60003960${size}6000f3${runtime}`,
  });
  const { contractAddress } = await chain.waitForTransactionReceipt({ hash });
  if (!contractAddress) throw new Error("nothing was deployed");
  return contractAddress;
}

// PUSH4 magic, PUSH1 224, SHL, PUSH1 0, MSTORE, PUSH1 32, PUSH1 0, RETURN: takes every signature.
const TAKES_ALL = "631626ba7e60e01b60005260206000f3";
const REVERTS = "60006000fd";
// JUMPDEST, PUSH1 0, JUMP: never ends.
const LOOPS = "5b600056";
// Returns 1 MB.
const FLOODS = "620fffff6000f3";

const hash = `0x${"12".repeat(32)}` as const;
const ask = (address: `0x${string}`) => contractAccepts(url, address, hash, "0xab");

test("a contract's own answer counts", async () => {
  expect(await ask(await deploy(TAKES_ALL))).toBe(true);
});

test.each([
  ["one that reverts", () => deploy(REVERTS)],
  ["one that never ends", () => deploy(LOOPS)],
  ["one that answers a megabyte", () => deploy(FLOODS)],
  ["an account without code", async () => newAccount().address],
])("%s takes no signature", async (_, address) => {
  expect(await ask(await address())).toBe(false);
});

test("a chain that cannot be reached is not a no", async () => {
  await expect(contractAccepts("http://127.0.0.1:9", deployer, hash, "0xab")).rejects.toThrow();
});

test("SES-9 a smart wallet's request about sessions is let in as the wallet's, and no other", async () => {
  const wallet = await deploy(TAKES_ALL);
  const signer = { address: wallet, chainId, signMessage: async () => "0xabcd" as const };
  const elsewhere = await SELF.fetch(await signRequest(requestOf("/v1/leases"), signer));
  // Only where a session or money is granted: every other route would let strangers spend our calls to the chain.
  expect([elsewhere.status, await elsewhere.json()]).toMatchObject([401, { code: "signature_invalid" }]);
  const response = await SELF.fetch(await signRequest(requestOf("/v1/sessions"), signer));
  expect([response.status, await response.json()]).toEqual([
    200,
    { object: "list", data: [], has_more: false },
  ]);
});
