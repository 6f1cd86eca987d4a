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
  bytesToHex,
  concat,
  createPublicClient,
  createWalletClient,
  encodeFunctionData,
  type Hex,
  hashTypedData,
  hexToBytes,
  http,
  keccak256,
  multicall3Abi,
  numberToHex,
  parseEventLogs,
  parseSignature,
  signatureToCompactSignature,
  slice,
} from "viem";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { type Devnet, PortTaken, startDevnet } from "./devnet.ts";
import { devnetChain } from "./devnet-client.ts";
import { type DevnetRole, devnetAccount } from "./roles.ts";

const USDC = 1_000_000n;
const HOUR = 3_600;
const ZERO_SIG = { r: `0x${"00".repeat(32)}`, vs: `0x${"00".repeat(32)}` } as const;
const NO_ALLOWANCE = { cumulative: 0n, sig: ZERO_SIG } as const;
const NO_KEY = { x: `0x${"00".repeat(32)}`, y: `0x${"00".repeat(32)}` } as const;
const P256_ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
const EVIDENCE = `0x${"e1".repeat(32)}` as const;

let devnet: Devnet;
beforeAll(async () => {
  devnet = await startDevnet({ host: "127.0.0.1" });
});
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

async function settleData(terms: LeaseTerms, leaseId: Hex, cumulative: bigint) {
  const signatures = await pair(
    { roles: 6, a: "agent", b: "meter" },
    signUsage({ leaseId, cumulative, evidence: EVIDENCE }),
  );
  return encodeFunctionData({
    abi: leaseEscrowAbi,
    functionName: "settle",
    args: [terms, cumulative, EVIDENCE, signatures, NO_ALLOWANCE, NO_KEY],
  });
}

async function closeData(terms: LeaseTerms, leaseId: Hex, cumulative: bigint) {
  const validBefore = (await now()) + HOUR;
  const signatures = await pair(
    { roles: 3, a: "consumerSigner", b: "agent" },
    signClose({ leaseId, cumulative, evidence: EVIDENCE, validBefore }),
  );
  return encodeFunctionData({
    abi: leaseEscrowAbi,
    functionName: "close",
    args: [terms, cumulative, EVIDENCE, validBefore, signatures, NO_ALLOWANCE, NO_KEY],
  });
}

const withdrawData = (account: Hex) =>
  encodeFunctionData({ abi: leaseEscrowAbi, functionName: "withdraw", args: [account] });

/** By the relayer, the only one of the parties with ETH. */
const relay = async (data: Hex) =>
  await included(await clients().wallet.sendTransaction({ to: devnet.escrow, data }));

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
  const settled = await relay(await settleData(terms, funded.leaseId, 2n * USDC));
  const closed = await relay(await closeData(terms, funded.leaseId, 3n * USDC - 1n));
  const paidOut = [];
  for (const party of PARTIES) paidOut.push(await relay(withdrawData(address(party))));

  const fee = ((3n * USDC - 1n) * 500n) / 10_000n;
  const gained = async (party: (typeof PARTIES)[number]) =>
    (await balance(address(party))) - (before.get(party) ?? 0n);
  expect(await gained("feeRecipient")).toBe(fee);
  expect(await gained("provider")).toBe(3n * USDC - 1n - fee);
  expect(await gained("consumer")).toBe(-(3n * USDC - 1n));
  expect(await balance(devnet.escrow)).toBe(0n);
  const [first] = paidOut;
  // Gas is part of the product: a change that costs more has to say so here.
  const receipts = [
    { kind: "fund", receipt: funded.receipt, budget: 150_500n },
    { kind: "settle, the first of a provider", receipt: settled, budget: 101_500n },
    { kind: "close", receipt: closed, budget: 92_500n },
    { kind: "withdraw", receipt: first, budget: 47_500n },
  ];
  for (const { kind, receipt, budget } of receipts) {
    expect(receipt?.l1Fee, kind).toBeGreaterThan(0n);
    expect(receipt?.gasUsed, kind).toBeLessThan(budget);
  }
});

test("one poisoned call of a batch fails alone, and order inside the batch holds", async () => {
  const { wallet } = clients();
  await devnet.mint(address("consumer"), 5n * USDC);
  const terms = await termsFor(`0x${"02".repeat(32)}`);
  const { leaseId } = await fund(terms, 5n * USDC, `0x${"5b".repeat(32)}`);
  const before = await balance(address("provider"));
  const otherLease = await termsFor(`0x${"03".repeat(32)}`);
  const calls = [
    await settleData(terms, leaseId, 400_000n),
    await settleData(otherLease, leaseIdHash(domain(), otherLease), 1n),
    await settleData(terms, leaseId, 300_000n),
    await closeData(terms, leaseId, 500_000n),
    withdrawData(address("provider")),
  ];
  const hash = await wallet.writeContract({
    address: devnet.multicall3,
    abi: multicall3Abi,
    functionName: "aggregate3",
    args: [calls.map((callData) => ({ target: devnet.escrow, allowFailure: true, callData }))],
  });
  const { logs } = await included(hash);
  const events = parseEventLogs({ abi: leaseEscrowAbi, logs }).map((log) => log.eventName);
  expect(events).toEqual(["UsageSettled", "UsageSettled", "LeaseClosed", "Withdrawn"]);
  expect((await balance(address("provider"))) - before).toBe(475_000n);
});

test("a WebCrypto key that nobody can export is a consumer: it signs usage and leaves", async () => {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const { privateKey, publicKey } = await crypto.subtle.generateKey(algorithm, false, ["sign", "verify"]);
  const point = bytesToHex(new Uint8Array(await crypto.subtle.exportKey("raw", publicKey)));
  const consumerKey = { x: slice(point, 1, 33), y: slice(point, 33, 65) };
  const consumerSigner = slice(keccak256(slice(point, 1)), 12);
  const p256 = async (digest: Hex) => {
    const signature = bytesToHex(
      new Uint8Array(await crypto.subtle.sign(algorithm, privateKey, Uint8Array.from(hexToBytes(digest)))),
    );
    const s = BigInt(slice(signature, 32));
    // WebCrypto makes high and low values of s alike; the chain takes the low one (as EIP-2 asks of secp256k1).
    const low = s > P256_ORDER / 2n ? P256_ORDER - s : s;
    return { r: slice(signature, 0, 32), vs: numberToHex(low, { size: 32 }) };
  };

  await devnet.mint(address("consumer"), 5n * USDC);
  const terms = { ...(await termsFor(`0x${"04".repeat(32)}`)), consumerSigner };
  const { leaseId } = await fund(terms, 5n * USDC, `0x${"5c".repeat(32)}`);
  const usage = { leaseId, cumulative: 400_000n, evidence: EVIDENCE };
  const a = await p256(hashTypedData({ domain: domain(), types, primaryType: "Usage", message: usage }));
  const b = compact(await signUsage(usage)("agent"));
  await relay(
    encodeFunctionData({
      abi: leaseEscrowAbi,
      functionName: "settle",
      args: [terms, usage.cumulative, EVIDENCE, { roles: 3, a, b }, NO_ALLOWANCE, consumerKey],
    }),
  );
  const exit = await p256(
    hashTypedData({ domain: domain(), types, primaryType: "Exit", message: { leaseId } }),
  );
  await relay(
    encodeFunctionData({
      abi: leaseEscrowAbi,
      functionName: "requestExit",
      args: [terms, concat([exit.r, exit.vs, consumerKey.x, consumerKey.y]), ZERO_SIG],
    }),
  );
  const lease = await clients().chain.readContract({
    address: devnet.escrow,
    abi: leaseEscrowAbi,
    functionName: "leases",
    args: [leaseId],
  });
  expect(lease).toMatchObject([5n * USDC, 400_000n, expect.any(Number), expect.any(Number), 2, false]);
});

test("mines by the interval when told, and a pending transaction waits for its block", async () => {
  const slow = await startDevnet({ host: "127.0.0.1", chainId: 31_338, intervalMs: 200 });
  try {
    await slow.mint(address("consumer"), USDC);
    const chain = createPublicClient({ chain: devnetChain(slow.url, 31_338), transport: http(slow.url) });
    const number = await chain.getBlockNumber({ cacheTime: 0 });
    await vi.waitUntil(async () => (await chain.getBlockNumber({ cacheTime: 0 })) > number + 1n, 60_000);
  } finally {
    await slow.close();
  }
});
