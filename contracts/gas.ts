/**
 * What each call of the escrow costs as a transaction: gas (intrinsic and calldata included) and bytes of calldata,
 * on the local OP chain, with fixed keys, salts and times, so that it is the same to the unit on every machine.
 *
 * `node gas.ts` writes gas.json; `node gas.ts --check` writes nothing and exits 1 on any difference: a change that
 * costs more, or less, says so in its diff.
 */
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual, parseArgs } from "node:util";
import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import {
  depositNonce,
  escrowDomain,
  fundingNonce,
  type LeaseTerms,
  leaseIdHash,
  tokenTypes,
  types,
} from "@gpux/protocol/eip712";
import { toCompact } from "@gpux/protocol/signature";
import {
  createPublicClient,
  createTestClient,
  createWalletClient,
  encodeFunctionData,
  type Hex,
  http,
  multicall3Abi,
  size,
} from "viem";
import { startDevnet } from "./devnet.ts";
import { devnetChain } from "./devnet-client.ts";
import { type DevnetRole, devnetAccount } from "./roles.ts";

const START = 2_000_000_000;
const USDC = 1_000_000n;
const EVIDENCE = `0x${"e1".repeat(32)}` as const;
const NO_SIG = { r: `0x${"00".repeat(32)}`, vs: `0x${"00".repeat(32)}` } as const;
const NO_KEY = { x: `0x${"00".repeat(32)}`, y: `0x${"00".repeat(32)}` } as const;
const NO_ALLOWANCE = { cumulative: 0n, sig: NO_SIG } as const;
const UNTIL = START + 86_400;

export interface Cost {
  readonly gas: number;
  readonly calldata: number;
}

const devnet = await startDevnet({ host: "127.0.0.1" });
const chain = devnetChain(devnet.url, devnet.chainId);
const transport = http(devnet.url);
const node = createPublicClient({ chain, transport, pollingInterval: 20, cacheTime: 0 });
const clock = createTestClient({ chain, transport, mode: "hardhat" });
const relayer = createWalletClient({ chain, transport, account: devnetAccount("relayer").account });

const address = (role: DevnetRole) => devnetAccount(role).address;
const abi = leaseEscrowAbi;
const domain = escrowDomain({ chainId: devnet.chainId, escrow: devnet.escrow });
const word = (n: number): Hex => `0x${n.toString(16).padStart(2, "0").repeat(32)}`;

let time = START;
const costs: Record<string, Cost> = {};

function terms(n: number): LeaseTerms {
  return {
    payer: address("consumer"),
    consumerSigner: address("consumerSigner"),
    provider: address("provider"),
    providerSigner: address("agent"),
    meter: address("meter"),
    feeRecipient: address("feeRecipient"),
    feeBps: 500,
    upfront: 5n * USDC,
    unattended: 10n * USDC,
    ratePerHour: 2n * USDC,
    expiry: UNTIL,
    quote: word(n),
  };
}

async function send(name: string, data: Hex, to = devnet.escrow): Promise<void> {
  time += 2;
  await clock.setNextBlockTimestamp({ timestamp: BigInt(time) });
  const hash = await relayer.sendTransaction({ to, data, gas: 15_000_000n });
  const receipt = await node.waitForTransactionReceipt({ hash });
  if (receipt.status !== "success") throw new Error(`${name} reverted`);
  costs[name] = { gas: Number(receipt.gasUsed), calldata: size(data) };
}

const batch = (calls: readonly Hex[]) =>
  encodeFunctionData({
    abi: multicall3Abi,
    functionName: "aggregate3",
    args: [calls.map((callData) => ({ target: devnet.escrow, allowFailure: false, callData }))],
  });

type Text =
  | { primaryType: "Usage"; message: { leaseId: Hex; cumulative: bigint; evidence: Hex } }
  | {
      primaryType: "Close";
      message: { leaseId: Hex; cumulative: bigint; evidence: Hex; validBefore: number };
    }
  | { primaryType: "Allowance"; message: { leaseId: Hex; cumulative: bigint } }
  | { primaryType: "Exit"; message: { leaseId: Hex } }
  | { primaryType: "Allocate"; message: { leaseIds: Hex[]; fundedTo: bigint[]; validBefore: number } }
  | { primaryType: "Release"; message: { payer: Hex; spender: Hex; meter: Hex; validBefore: number } }
  | { primaryType: "RevokeMeter"; message: { meter: Hex } };

const sign = (role: DevnetRole, text: Text) =>
  devnetAccount(role).account.signTypedData({ domain, types, ...text });

async function compact(role: DevnetRole, text: Text) {
  const sig = toCompact(await sign(role, text));
  if (sig === null) throw new Error("viem made a signature that is not canonical");
  return sig;
}

async function authorize(value: bigint, nonce: Hex, salt: Hex) {
  const validBefore = BigInt(UNTIL);
  const signature = await devnetAccount("consumer").account.signTypedData({
    domain: { name: "USD Coin", version: "2", chainId: devnet.chainId, verifyingContract: devnet.usdc },
    types: tokenTypes,
    primaryType: "ReceiveWithAuthorization",
    message: { from: address("consumer"), to: devnet.escrow, value, validAfter: 0n, validBefore, nonce },
  });
  return { from: address("consumer"), salt, validAfter: 0n, validBefore, signature };
}

async function fund(leases: readonly LeaseTerms[], amount: bigint, salt: Hex): Promise<Hex> {
  const leaseIds = leases.map((lease) => leaseIdHash(domain, lease));
  const amounts = leases.map(() => amount);
  const nonce = fundingNonce({ leaseIds, amounts, salt });
  return encodeFunctionData({
    abi,
    functionName: "fund",
    args: [leases, amounts, await authorize(amount * BigInt(leases.length), nonce, salt)],
  });
}

async function settle(lease: LeaseTerms, cumulative: bigint, allowed: boolean): Promise<Hex> {
  const leaseId = leaseIdHash(domain, lease);
  const usage: Text = { primaryType: "Usage", message: { leaseId, cumulative, evidence: EVIDENCE } };
  const pair = { roles: 6, a: await compact("agent", usage), b: await compact("meter", usage) };
  const text: Text = { primaryType: "Allowance", message: { leaseId, cumulative } };
  const allowance = allowed ? { cumulative, sig: await compact("consumerSigner", text) } : NO_ALLOWANCE;
  return encodeFunctionData({
    abi,
    functionName: "settle",
    args: [lease, cumulative, EVIDENCE, pair, allowance, NO_KEY],
  });
}

async function close(lease: LeaseTerms, cumulative: bigint): Promise<Hex> {
  const leaseId = leaseIdHash(domain, lease);
  const message = { leaseId, cumulative, evidence: EVIDENCE, validBefore: UNTIL };
  const text: Text = { primaryType: "Close", message };
  const pair = { roles: 3, a: await compact("consumerSigner", text), b: await compact("agent", text) };
  return encodeFunctionData({
    abi,
    functionName: "close",
    args: [lease, cumulative, EVIDENCE, UNTIL, pair, NO_ALLOWANCE, NO_KEY],
  });
}

async function exit(lease: LeaseTerms, cosigned: boolean): Promise<Hex> {
  const text: Text = { primaryType: "Exit", message: { leaseId: leaseIdHash(domain, lease) } };
  const meterSig = cosigned ? await compact("meter", text) : NO_SIG;
  return encodeFunctionData({
    abi,
    functionName: "requestExit",
    args: [lease, await sign("consumerSigner", text), meterSig],
  });
}

async function deposit(amount: bigint, salt: Hex): Promise<Hex> {
  const [payer, spender, meter] = [address("consumer"), address("consumerSigner"), address("meter")];
  const nonce = depositNonce({ payer, spender, meter, amount, salt });
  return encodeFunctionData({
    abi,
    functionName: "deposit",
    args: [spender, meter, amount, await authorize(amount, nonce, salt)],
  });
}

async function allocate(leases: readonly LeaseTerms[], target: bigint): Promise<Hex> {
  const leaseIds = leases.map((lease) => leaseIdHash(domain, lease));
  const fundedTo = leases.map(() => target);
  const text: Text = { primaryType: "Allocate", message: { leaseIds, fundedTo, validBefore: UNTIL } };
  const [spender, meter] = [await sign("consumerSigner", text), await compact("meter", text)];
  return encodeFunctionData({
    abi,
    functionName: "allocate",
    args: [leases, fundedTo, UNTIL, spender, meter],
  });
}

async function release(validBefore: number, cosigned: boolean): Promise<Hex> {
  const [payer, spender, meter] = [address("consumer"), address("consumerSigner"), address("meter")];
  const text: Text = { primaryType: "Release", message: { payer, spender, meter, validBefore } };
  const meterSig = cosigned ? await compact("meter", text) : NO_SIG;
  return encodeFunctionData({
    abi,
    functionName: "release",
    args: [payer, spender, meter, validBefore, await sign("consumerSigner", text), meterSig],
  });
}

const range = (from: number, count: number) => Array.from({ length: count }, (_, i) => terms(from + i));

async function measure(): Promise<void> {
  await devnet.mint(address("consumer"), 100_000n * USDC);
  const [one] = range(1, 1);
  if (one === undefined) throw new Error("no lease");
  await send("fund 1 lease", await fund([one], 20n * USDC, word(1)));
  await send("top up 1 lease", await fund([one], 20n * USDC, word(2)));
  await send("settle, the first of a provider", await settle(one, 1n * USDC, false));
  await send("settle", await settle(one, 2n * USDC, false));
  await send("settle with an allowance", await settle(one, 3n * USDC, true));
  await send("close, the first refund of a payer", await close(one, 4n * USDC));
  await send(
    "withdraw to a new holder",
    encodeFunctionData({ abi, functionName: "withdraw", args: [address("provider")] }),
  );
  await send("withdraw", encodeFunctionData({ abi, functionName: "withdraw", args: [address("consumer")] }));

  const three = range(10, 3);
  await send("fund 3 leases", await fund(three, 20n * USDC, word(3)));
  await send("top up 3 leases", await fund(three, 20n * USDC, word(4)));
  const closes = await Promise.all(three.map((lease) => close(lease, 4n * USDC)));
  await send("close 3 leases in one batch", batch(closes), devnet.multicall3);

  const twenty = range(20, 20);
  await send("fund 20 leases", await fund(twenty, 20n * USDC, word(5)));
  const settles = await Promise.all(twenty.map((lease) => settle(lease, 1n * USDC, false)));
  await send("settle 20 leases in one batch", batch(settles), devnet.multicall3);
  const ends = await Promise.all(twenty.map((lease) => close(lease, 2n * USDC)));
  await send("close 20 leases in one batch", batch(ends), devnet.multicall3);

  const [left, hurried] = range(50, 2);
  if (left === undefined || hurried === undefined) throw new Error("no leases");
  await send("fund 2 leases", await fund([left, hurried], 20n * USDC, word(6)));
  await send("requestExit", await exit(left, false));
  await send("requestExit with the meter", await exit(hurried, true));
  time += 3_600;
  await send("reclaim", encodeFunctionData({ abi, functionName: "reclaim", args: [hurried] }));

  await send("deposit", await deposit(500n * USDC, word(7)));
  await send("deposit more", await deposit(500n * USDC, word(8)));
  await send("allocate 1 lease", await allocate(range(60, 1), 20n * USDC));
  await send("allocate 3 leases", await allocate(range(70, 3), 20n * USDC));
  await send("release", await release(UNTIL - 1, false));
  await send("release with the meter", await release(UNTIL, true));
  await send("deposit again", await deposit(500n * USDC, word(9)));
  await send("release a second time", await release(UNTIL - 2, false));
  time += 3_600;
  const key = [address("consumer"), address("consumerSigner"), address("meter")] as const;
  await send("reclaimCredit", encodeFunctionData({ abi, functionName: "reclaimCredit", args: key }));
  const revoke: Text = { primaryType: "RevokeMeter", message: { meter: address("meter") } };
  await send(
    "revokeMeter",
    encodeFunctionData({
      abi,
      functionName: "revokeMeter",
      args: [address("meter"), await compact("meter", revoke)],
    }),
  );
}

const { values } = parseArgs({ options: { check: { type: "boolean", default: false } } });
try {
  await measure();
} finally {
  await devnet.close();
}
const path = fileURLToPath(new URL("gas.json", import.meta.url));
if (values.check) {
  const stored: unknown = JSON.parse(await readFile(path, "utf8"));
  if (!isDeepStrictEqual(stored, costs)) {
    console.error("gas.json is not what the calls cost now. Run: npm --workspace contracts run gas");
    process.exitCode = 1;
  }
} else {
  const rows = Object.entries(costs).map(
    ([name, cost]) => `  ${JSON.stringify(name)}: ${JSON.stringify(cost)}`,
  );
  await writeFile(
    path,
    `{\n${rows
      .join(",\n")
      .replaceAll(/([:,{])"/g, '$1 "')
      .replaceAll(/:(\d)/g, ": $1")
      .replaceAll("}", " }")}\n}\n`,
  );
  console.table(costs);
}
