import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { main } from "@gpux/cli/program";
import { createScreen } from "@gpux/cli/testing/screen";
import { createWallet } from "@gpux/cli/wallet";
import { type Devnet, startDevnet } from "@gpux/contracts/devnet";
import { devnetChain } from "@gpux/contracts/devnet-client";
import { usdcAbi } from "@gpux/protocol/abi/usdc";
import { authorizationDigest, LeaseTerms } from "@gpux/protocol/eip712";
import { Address, type Bytes32, leaseIdOf } from "@gpux/protocol/ids";
import { Intent } from "@gpux/protocol/intent";
import { createHasher, type TypedDataHasher } from "@gpux/protocol/typed-data-encoder";
import { createPublicClient, createTestClient, http, keccak256, parseEther, stringToBytes } from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";

// Two parties, a chain, and `gpux rescue`: a lease's whole life without a marketplace.

const USDC = 1_000_000n;
/** Answers "yes" (ERC-1271's magic value) to whatever it is asked. */
const TRUSTING_WALLET = "0x631626ba7e60e01b5f5260205ff3";
const PASSWORD = "correct horse";

let devnet: Devnet;
let hasher: TypedDataHasher;
let folder = "";
const party = () => privateKeyToAccount(generatePrivateKey());
const [payer, consumer, provider, meter, payout] = [party(), party(), party(), party(), party()];

beforeAll(async () => {
  devnet = await startDevnet({ host: "127.0.0.1" });
  hasher = createHasher({ chainId: devnet.chainId, escrow: devnet.escrow });
  folder = await mkdtemp(join(tmpdir(), "gpux-rescue-parties-"));
  await writeFile(join(folder, "password"), `${PASSWORD}\n`, { mode: 0o600 });
  const gas = await createWallet(join(folder, "gas.json"), PASSWORD, generatePrivateKey(), 2 ** 12);
  await devnet.fundEth(Address.parse(gas.address), parseEther("1"));
  await devnet.mint(Address.parse(payer.address), 100n * USDC);
}, 60_000);
afterAll(async () => {
  await devnet.close();
  await rm(folder, { recursive: true, force: true });
});

async function rescue(args: readonly string[], input = "", more: Record<string, string> = {}) {
  const environment = { GPUX_CONFIG_DIR: folder, GPUX_RPC: devnet.url, ...more };
  const screen = createScreen(environment, false, input);
  const code = await main(["rescue", ...args, "--escrow", devnet.escrow], screen.terminal);
  return { code, out: screen.out(), err: screen.err() };
}
const gasOf = () => [
  "--yes",
  "--json",
  "--gas-wallet",
  join(folder, "gas.json"),
  "--gas-password-file",
  join(folder, "password"),
];
const wire = (intent: Intent) => JSON.stringify(z.encode(Intent, intent));
const usdcOf = (account: `0x${string}`) =>
  createPublicClient({ transport: http(devnet.url), cacheTime: 0 }).readContract({
    address: devnet.usdc,
    abi: usdcAbi,
    functionName: "balanceOf",
    args: [account],
  });

function newLease(): { terms: LeaseTerms; hash: Bytes32 } {
  const terms = LeaseTerms.parse({
    payer: payer.address,
    consumerSigner: consumer.address,
    provider: payout.address,
    providerSigner: provider.address,
    meter: meter.address,
    feeRecipient: payout.address,
    feeBps: 0,
    upfront: (10n * USDC).toString(),
    unattended: "0",
    ratePerHour: "3600",
    expiry: Math.floor(Date.now() / 1_000) + 36_000,
    quote: generatePrivateKey(),
  });
  return { terms, hash: hasher.leaseTerms(terms) };
}

async function fundingOf({ terms, hash }: ReturnType<typeof newLease>, amount: bigint): Promise<Intent> {
  const salt = generatePrivateKey();
  const validBefore = Math.floor(Date.now() / 1_000) + 3_600;
  const domain = { name: "USD Coin", version: "2", chainId: devnet.chainId, verifyingContract: devnet.usdc };
  const digest = authorizationDigest(domain, {
    from: terms.payer,
    to: devnet.escrow,
    value: amount,
    validAfter: 0n,
    validBefore: BigInt(validBefore),
    nonce: hasher.fundingNonce({ leaseIds: [hash], amounts: [amount], salt }),
  });
  const signature = await payer.sign({ hash: digest });
  const plan = { from: terms.payer, terms: [terms], amounts: [amount], salt, validAfter: 0, validBefore };
  return { kind: "fund", ...plan, signature };
}

test("funds, closes and pays out from one stream of signatures, each landed once", async () => {
  const lease = newLease();
  const evidence = keccak256(stringToBytes("receipts"));
  const validBefore = lease.terms.expiry;
  const hash = hasher.close({ leaseId: lease.hash, cumulative: 2n * USDC, evidence, validBefore });
  const close: Intent = {
    kind: "close",
    terms: lease.terms,
    cumulative: 2n * USDC,
    evidence,
    validBefore,
    signatures: { consumer: await consumer.sign({ hash }), provider: await provider.sign({ hash }) },
  };
  const withdraw = (account: Address): Intent => ({ kind: "withdraw", account, occasion: "end" });
  const stream = [
    await fundingOf(lease, 5n * USDC),
    close,
    withdraw(lease.terms.provider),
    withdraw(lease.terms.payer),
  ];
  const before = await usdcOf(payer.address);

  const sent = await rescue(["send", "-", ...gasOf()], stream.map(wire).join("\n"));
  expect([sent.code, sent.err]).toEqual([0, expect.not.stringContaining("error")]);
  const landed = sent.out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(landed.map(({ kind, status }) => `${kind} ${status}`)).toEqual([
    "fund landed",
    "close landed",
    "withdraw landed",
    "withdraw landed",
  ]);
  expect(await usdcOf(payout.address)).toBe(2n * USDC);
  expect(await usdcOf(payer.address)).toBe(before - 2n * USDC);

  const again = await rescue(["send", "-", ...gasOf()], stream.slice(1).map(wire).join("\n"));
  expect(again.code).toBe(0);
  expect(again.out).not.toContain("landed");
});

test("one refusal does not keep the others back, and is the exit code", async () => {
  const [early, late] = [newLease(), newLease()];
  const { terms } = early;
  // Before the funding that it needs.
  const documents = [
    { kind: "reclaim" as const, terms },
    await fundingOf(early, USDC),
    await fundingOf(late, USDC),
  ];
  const { code, out, err } = await rescue(["send", "-", ...gasOf()], documents.map(wire).join("\n"));
  expect(code).toBe(1);
  expect(err).toContain("code: unknown_lease");
  expect(out.match(/"status":"landed"/g)).toHaveLength(2);
});

test("asks before it sends, with what it is about to do, and takes no for an answer", async () => {
  const environment = {
    GPUX_CONFIG_DIR: folder,
    GPUX_RPC: devnet.url,
    GPUX_PRIVATE_KEY: generatePrivateKey(),
  };
  const lease = newLease();
  const screen = createScreen(environment, false, wire(await fundingOf(lease, USDC)));
  const asked: string[] = [];
  const terminal = {
    ...screen.terminal,
    confirm: async (question: string) => {
      asked.push(question);
      return false;
    },
  };
  const blocks = () => createPublicClient({ transport: http(devnet.url), cacheTime: 0 }).getBlockNumber();
  const before = await blocks();
  const code = await main(["rescue", "send", "-", "--escrow", devnet.escrow], terminal);
  expect(code).toBe(130);
  expect(asked).toEqual([expect.stringMatching(/^Send it to chain 31337, gas paid by 0x.*\?$/)]);
  expect(screen.err()).toContain(`fund ${leaseIdOf(lease.hash)} with 1.00 USDC`);
  expect(screen.err()).toContain("Nothing was sent.");
  expect(await blocks()).toBe(before);
});

test("a payer that is a smart wallet leaves by the signature it answers for", async () => {
  const lease = newLease();
  await rescue(["send", "-", ...gasOf()], wire(await fundingOf(lease, USDC)));
  const path = join(folder, "terms.json");
  await writeFile(path, JSON.stringify(z.encode(LeaseTerms, lease.terms)));
  const exit = ["exit", path, "--signature", "0x1234", ...gasOf()];
  expect((await rescue(exit)).err).toContain("code: bad_signature");

  const chain = devnetChain(devnet.url, devnet.chainId);
  const cheat = createTestClient({ chain, transport: http(), mode: "hardhat" });
  await cheat.setCode({ address: payer.address, bytecode: TRUSTING_WALLET });
  expect(JSON.parse((await rescue(exit)).out)).toMatchObject({ kind: "exit", status: "landed" });
  await cheat.setCode({ address: payer.address, bytecode: "0x" });
});

/** A node that answers no wide range of logs, as public ones do; counts what it was asked. */
async function narrowNode(): Promise<{ server: Server; url: string; asked: string[] }> {
  const asked: string[] = [];
  const server = createServer(async (request, response) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of request) chunks.push(new Uint8Array(chunk));
    const body = Buffer.concat(chunks).toString();
    const { method, id } = z.looseObject({ method: z.string(), id: z.int() }).parse(JSON.parse(body));
    response.setHeader("content-type", "application/json");
    if (method === "eth_getLogs" && asked.push(body) === 1) {
      const error = { code: -32_005, message: "query returned more than 10000 results" };
      response.end(JSON.stringify({ jsonrpc: "2.0", id, error }));
      return;
    }
    const answer = await fetch(devnet.url, {
      method: "POST",
      body,
      headers: { "content-type": "application/json" },
    });
    response.end(await answer.text());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the server has no port");
  return { server, url: `http://127.0.0.1:${address.port}`, asked };
}

test("finds a lease chunk by chunk where the node allows no wider look", async () => {
  const lease = newLease();
  await rescue(["send", "-", ...gasOf()], wire(await fundingOf(lease, USDC)));
  const node = await narrowNode();
  const { code, out } = await rescue(["status", lease.hash, "--json"], "", { GPUX_RPC: node.url });
  node.server.close();
  node.server.closeAllConnections();
  expect(code).toBe(0);
  expect(JSON.parse(out)).toMatchObject({ id: leaseIdOf(lease.hash), status: "open", funded: "1000000" });
  expect(node.asked).toHaveLength(2);
});
