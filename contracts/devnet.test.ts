import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import { usdcAbi } from "@gpux/protocol/abi/usdc";
import {
  type Close,
  escrowDomain,
  fundingNonce,
  type LeaseTerms,
  leaseIdHash,
  tokenTypes,
  types,
  type Usage,
} from "@gpux/protocol/eip712";
import {
  createPublicClient,
  createWalletClient,
  type Hex,
  http,
  parseEventLogs,
  parseSignature,
  signatureToCompactSignature,
} from "viem";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Devnet, devnetChain, PortTaken, startDevnet } from "./devnet.ts";
import { type DevnetRole, devnetAccount } from "./roles.ts";

const USDC = 1_000_000n;
const HOUR = 3_600;
const ZERO_SIG = { r: `0x${"00".repeat(32)}`, vs: `0x${"00".repeat(32)}` } as const;
const NO_ALLOWANCE = { cumulative: 0n, sig: ZERO_SIG } as const;
const EVIDENCE = `0x${"e1".repeat(32)}` as const;

let devnet: Devnet;
beforeAll(async () => {
  devnet = await startDevnet({ host: "127.0.0.1" });
}, 60_000);
afterAll(() => devnet.close());

function clients() {
  const chain = devnetChain(devnet.url, devnet.chainId);
  const transport = http(devnet.url);
  const wallet = createWalletClient({ chain, transport, account: devnetAccount("relayer").account });
  return { chain: createPublicClient({ chain, transport, pollingInterval: 50, cacheTime: 0 }), wallet };
}

const address = (role: DevnetRole) => devnetAccount(role).address;

async function now(): Promise<number> {
  const block = await clients().chain.getBlock();
  return Number(block.timestamp);
}

async function termsFor(quote: Hex): Promise<LeaseTerms> {
  return {
    payer: address("consumer"),
    consumerSigner: address("consumerSigner"),
    provider: address("provider"),
    providerSigner: address("agent"),
    meter: address("meter"),
    feeRecipient: address("feeRecipient"),
    feeBps: 500,
    upfront: USDC,
    unattended: 10n * USDC,
    ratePerHour: 2n * USDC,
    expiry: (await now()) + 24 * HOUR,
    quote,
  };
}

const domain = () => escrowDomain({ chainId: devnet.chainId, escrow: devnet.escrow });

const compact = (signature: Hex) => {
  const { r, yParityAndS } = signatureToCompactSignature(parseSignature(signature));
  return { r, vs: yParityAndS };
};

/** Simulated first, then sent by the relayer, the only one of the parties with ETH. */
async function included(hash: Hex) {
  const receipt = await clients().chain.waitForTransactionReceipt({ hash });
  expect(receipt.status).toBe("success");
  return receipt;
}

async function fund(terms: LeaseTerms, amount: bigint, salt: Hex) {
  const leaseId = leaseIdHash(domain(), terms);
  const nonce = fundingNonce({ leaseIds: [leaseId], amounts: [amount], salt });
  const validBefore = BigInt((await now()) + HOUR);
  const message = { from: terms.payer, to: devnet.escrow, value: amount, validAfter: 0n, validBefore, nonce };
  const signature = await devnetAccount("consumer").account.signTypedData({
    domain: { name: "USD Coin", version: "2", chainId: devnet.chainId, verifyingContract: devnet.usdc },
    types: tokenTypes,
    primaryType: "ReceiveWithAuthorization",
    message,
  });
  const auth = { from: terms.payer, salt, validAfter: 0n, validBefore, signature };
  const request = {
    address: devnet.escrow,
    abi: leaseEscrowAbi,
    functionName: "fund",
    args: [[terms], [amount], auth],
  } as const;
  return { leaseId, nonce, receipt: await included(await clients().wallet.writeContract(request)) };
}

async function pair(role: { roles: 3 | 5 | 6; a: DevnetRole; b: DevnetRole }, sign: Signer) {
  return { roles: role.roles, a: compact(await sign(role.a)), b: compact(await sign(role.b)) };
}
type Signer = (role: DevnetRole) => Promise<Hex>;

const signUsage =
  (message: Usage): Signer =>
  (role) =>
    devnetAccount(role).account.signTypedData({ domain: domain(), types, primaryType: "Usage", message });

const signClose =
  (message: Close): Signer =>
  (role) =>
    devnetAccount(role).account.signTypedData({ domain: domain(), types, primaryType: "Close", message });

async function settle(terms: LeaseTerms, leaseId: Hex, cumulative: bigint) {
  const signatures = await pair(
    { roles: 6, a: "agent", b: "meter" },
    signUsage({ leaseId, cumulative, evidence: EVIDENCE }),
  );
  const hash = await clients().wallet.writeContract({
    address: devnet.escrow,
    abi: leaseEscrowAbi,
    functionName: "settle",
    args: [terms, cumulative, EVIDENCE, signatures, NO_ALLOWANCE],
  });
  return await included(hash);
}

async function close(terms: LeaseTerms, leaseId: Hex, cumulative: bigint) {
  const validBefore = (await now()) + HOUR;
  const signatures = await pair(
    { roles: 3, a: "consumerSigner", b: "agent" },
    signClose({ leaseId, cumulative, evidence: EVIDENCE, validBefore }),
  );
  const hash = await clients().wallet.writeContract({
    address: devnet.escrow,
    abi: leaseEscrowAbi,
    functionName: "close",
    args: [terms, cumulative, EVIDENCE, validBefore, signatures, NO_ALLOWANCE],
  });
  return await included(hash);
}

async function withdraw(account: Hex) {
  const hash = await clients().wallet.writeContract({
    address: devnet.escrow,
    abi: leaseEscrowAbi,
    functionName: "withdraw",
    args: [account],
  });
  return await included(hash);
}

const balance = (account: Hex) =>
  clients().chain.readContract({
    address: devnet.usdc,
    abi: usdcAbi,
    functionName: "balanceOf",
    args: [account],
  });

const PARTIES = ["consumer", "provider", "feeRecipient"] as const;

describe("the local Optimism chain", () => {
  test("endows deployer and relayer with ETH, and nobody else", async () => {
    const { chain } = clients();
    for (const role of [
      "meter",
      "provider",
      "agent",
      "consumer",
      "consumerSigner",
      "feeRecipient",
    ] as const) {
      expect(await chain.getBalance({ address: address(role) })).toBe(0n);
    }
    for (const role of ["deployer", "relayer"] as const) {
      expect(await chain.getBalance({ address: address(role) })).toBeGreaterThan(0n);
    }
  });

  test("keeps block time on the wall clock, however many blocks a second has", async () => {
    await devnet.mine(20);
    expect(Math.abs((await now()) - Date.now() / 1000)).toBeLessThan(10);
  });

  test("has Multicall3 at its usual address", async () => {
    const [name, decimals] = await clients().chain.multicall({
      allowFailure: false,
      contracts: [
        { address: devnet.usdc, abi: usdcAbi, functionName: "name" },
        { address: devnet.usdc, abi: usdcAbi, functionName: "decimals" },
      ],
    });
    expect({ name, decimals }).toEqual({ name: "USD Coin", decimals: 6 });
  });

  test("refuses a taken port with one sentence", async () => {
    const port = Number(new URL(devnet.url).port);
    await expect(startDevnet({ host: "127.0.0.1", port })).rejects.toBeInstanceOf(PortTaken);
  });

  test("forgets a transaction in a reorg, and gives its height another hash", async () => {
    const { chain } = clients();
    const before = await devnet.snapshot();
    const held = await balance(address("deployer"));
    await devnet.mint(address("deployer"), USDC);
    const { hash, number } = await chain.getBlock();
    await devnet.reorg(before);
    expect(await balance(address("deployer"))).toBe(held);
    expect((await chain.getBlock({ blockNumber: number })).hash).not.toBe(hash);
    expect(await chain.getBlockNumber()).toBe(number + 1n);
  });
});

test("a lease funded by one signature, settled, closed and withdrawn adds up, and pays L1 fees", async () => {
  const { chain } = clients();
  await devnet.mint(address("consumer"), 20n * USDC);
  const before = new Map(
    await Promise.all(PARTIES.map(async (p) => [p, await balance(address(p))] as const)),
  );
  const terms = await termsFor(`0x${"01".repeat(32)}`);

  const funded = await fund(terms, 10n * USDC, `0x${"5a".repeat(32)}`);
  expect(
    await chain.readContract({
      address: devnet.escrow,
      abi: leaseEscrowAbi,
      functionName: "leaseId",
      args: [terms],
    }),
  ).toBe(funded.leaseId);
  const [authorization] = parseEventLogs({
    abi: usdcAbi,
    eventName: "AuthorizationUsed",
    logs: funded.receipt.logs,
  });
  expect(authorization?.args.nonce).toBe(funded.nonce);

  await devnet.increaseTime(HOUR);
  const settled = await settle(terms, funded.leaseId, 2n * USDC);
  const closed = await close(terms, funded.leaseId, 3n * USDC - 1n);
  const paidOut = [];
  for (const party of PARTIES) paidOut.push(await withdraw(address(party)));

  const fee = ((3n * USDC - 1n) * 500n) / 10_000n;
  const gained = async (party: (typeof PARTIES)[number]) =>
    (await balance(address(party))) - (before.get(party) ?? 0n);
  expect(await gained("feeRecipient")).toBe(fee);
  expect(await gained("provider")).toBe(3n * USDC - 1n - fee);
  expect(await gained("consumer")).toBe(-(3n * USDC - 1n));
  expect(await balance(devnet.escrow)).toBe(0n);
  const [first] = paidOut;
  const receipts = { fund: funded.receipt, settle: settled, close: closed, withdraw: first };
  for (const [kind, receipt] of Object.entries(receipts)) {
    expect(receipt?.l1Fee, kind).toBeGreaterThan(0n);
    if (process.env.GAS === "1") console.log(kind, receipt?.gasUsed, receipt?.l1Fee);
  }
});
