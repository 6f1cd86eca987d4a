import { devnetAccount } from "@gpux/contracts/roles";
import { authorizationDigest, Deposit, LeaseTerms, type TokenDomain } from "@gpux/protocol/eip712";
import { ERRORS, type ErrorCode } from "@gpux/protocol/errors";
import { Bytes32 } from "@gpux/protocol/ids";
import { intentHints } from "@gpux/protocol/intent";
import { createHasher, type TypedDataHasher } from "@gpux/protocol/typed-data-encoder";
import type { Client, IntentInput } from "@gpux/sdk";
import { createTestClient, http, parseEther, publicActions } from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { newP256Key } from "../setup/p256-key.ts";
import { type Market, openMarket, until } from "./testing/market.ts";
import { problemOf, type Requests, requestsTo } from "./testing/signed-requests.ts";

// `POST /v1/relay` on a whole market: what anybody may land, with nothing but the signatures.

const payer = devnetAccount("consumer");
const meter = devnetAccount("meter");
const relayer = devnetAccount("relayer");

let market: Market;
let client: Client;
let requests: Requests;
let hasher: TypedDataHasher;
const node = () =>
  createTestClient({ mode: "hardhat", transport: http(market.devnet.url) }).extend(publicActions);
const hour = () => Math.floor(Date.now() / 1_000) + 3_600;

beforeAll(async () => {
  market = await openMarket();
  client = market.client();
  requests = requestsTo(market.edge.url, market.devnet.chainId);
  hasher = createHasher({ chainId: market.devnet.chainId, escrow: market.devnet.escrow });
});
afterAll(() => market?.stop());

/** Of `amount` for a spender under the market's meter, signed by the payer; `chainId` that of the local chain. */
async function deposit(
  spender: `0x${string}`,
  amount: bigint,
  chainId = market.devnet.chainId,
): Promise<IntentInput> {
  const { usdc, escrow } = market.devnet;
  const plan: Deposit = Deposit.parse({
    payer: payer.address,
    spender,
    meter: meter.address,
    amount: amount.toString(),
    salt: generatePrivateKey(),
  });
  const domain: TokenDomain = { name: "USD Coin", version: "2", chainId, verifyingContract: usdc };
  const validBefore = hour();
  const hash = authorizationDigest(domain, {
    from: payer.address,
    to: escrow,
    value: amount,
    validAfter: 0n,
    validBefore: BigInt(validBefore),
    nonce: hasher.depositNonce(plan),
  });
  const signature = await payer.account.sign({ hash });
  const { payer: from, ...rest } = plan;
  return { kind: "deposit", from, ...rest, amount: amount.toString(), validAfter: 0, validBefore, signature };
}

async function release(spender: `0x${string}`, of = hasher): Promise<IntentInput> {
  const text = { payer: payer.address, spender, meter: meter.address, validBefore: hour() };
  const hash = of.release(text);
  const [signature, meterSignature] = await Promise.all([
    payer.account.sign({ hash }),
    privateKeyToAccount(meter.privateKey).sign({ hash }),
  ]);
  return { kind: "release", ...text, signature, meterSignature };
}

async function post(intent: unknown, headers: Record<string, string> = {}) {
  return await requests.send(requests.of("/v1/relay", { json: intent, headers }));
}

test("RLY-13 a browser's key spends a payer's credit on a lease, and all of it comes back, by no more than signatures", async () => {
  const before = await market.ledger.balances();
  const browser = await newP256Key();
  const put = await client.intents.relay(await deposit(browser.address, 5_000_000n));
  expect(put).toMatchObject({ superseded: false, result: { kind: "deposit", amount: "5000000" } });

  const terms = {
    payer: payer.address,
    consumerSigner: browser.address,
    provider: devnetAccount("provider").address,
    providerSigner: devnetAccount("agent").address,
    meter: meter.address,
    feeRecipient: devnetAccount("feeRecipient").address,
    feeBps: 500,
    upfront: "1000000",
    unattended: "0",
    ratePerHour: "1000000",
    expiry: hour(),
    quote: Bytes32.parse(generatePrivateKey()),
  };
  const leaseId = hasher.leaseTerms(LeaseTerms.parse(terms));
  const validBefore = hour();
  const plan = hasher.allocate({ leaseIds: [leaseId], fundedTo: [2_000_000n], validBefore });
  const opened = await client.intents.relay({
    kind: "allocate",
    terms: [terms],
    fundedTo: ["2000000"],
    validBefore,
    signature: await browser.sign(plan),
    meterSignature: await meter.account.sign({ hash: plan }),
  });
  expect(opened.result).toMatchObject({ kind: "allocate", amount: "2000000", leases: [{ leaseId }] });

  const close = { leaseId, cumulative: 0n, evidence: Bytes32.parse(`0x${"00".repeat(32)}`), validBefore };
  const end = hasher.close(close);
  const closed = await client.intents.relay({
    kind: "close",
    terms,
    cumulative: "0",
    evidence: close.evidence,
    validBefore,
    signatures: {
      consumer: await browser.sign(end),
      provider: await devnetAccount("agent").account.sign({ hash: end }),
    },
  });
  expect(closed.result).toMatchObject({ kind: "close", paid: "0", refunded: "2000000" });

  const released = await client.intents.relay(await release(browser.address));
  expect(released.result).toMatchObject({ kind: "release", amount: "5000000", releaseAt: null });
  const paid = await client.intents.relay({ kind: "withdraw", account: payer.address, occasion: leaseId });
  expect(paid.result).toMatchObject({ kind: "withdraw", amount: "5000000" });
  expect(await market.ledger.balances()).toEqual(before);
});

test("the same intent again is the same transaction, and its key says how it stands", async () => {
  const intent = await deposit(privateKeyToAccount(generatePrivateKey()).address, 1n);
  // Nobody asked it to wait.
  const first = await post(intent);
  expect(first).toMatchObject({ status: 202, body: { object: "intent", status: "pending", txHash: null } });
  const where = first.headers.get("location") ?? "";
  expect(where).toMatch(/^\/v1\/relay\/deposit:0x/);
  const ended = await requests.send(requests.of(where, { headers: { prefer: "wait=30" } }));
  expect(ended).toMatchObject({ status: 200, body: { status: "done", superseded: false } });
  expect(ended.headers.get("preference-applied")).toBe("wait=30");
  const done = await client.intents.relay(intent);
  const again = await post(intent, { prefer: "wait=30" });
  expect(again).toMatchObject({ status: 200, body: { status: "done", txHash: done.txHash } });
  expect(await client.intents.get(done.key, { wait: 5 })).toMatchObject({ txHash: done.txHash });
  expect((await requests.send(requests.of(`${where}?wait=5`))).body).toMatchObject({ txHash: done.txHash });
});

describe("what the chain would refuse is refused with what helps, and costs the relayer nothing", () => {
  const cases: [
    title: string,
    code: ErrorCode,
    refusal: keyof typeof intentHints,
    make: () => Promise<unknown>,
  ][] = [
    [
      "a deposit that was signed for another chain",
      "intent_signature_invalid",
      "bad_signature",
      () => deposit(payer.address, 1n, market.devnet.chainId + 1),
    ],
    [
      "a release that was signed for another chain",
      "intent_signature_invalid",
      "bad_signature",
      () => {
        const place = { chainId: market.devnet.chainId + 1, escrow: market.devnet.escrow };
        return release(payer.address, createHasher(place));
      },
    ],
    [
      "RLY-15 a smart wallet that is not deployed yet (ERC-6492)",
      "wallet_not_deployed",
      "wallet_not_deployed",
      async () => {
        const wallet = privateKeyToAccount(generatePrivateKey()).address;
        const intent = await deposit(payer.address, 1n);
        return { ...intent, from: wallet, signature: `0x${"00".repeat(96)}${"6492".repeat(16)}` };
      },
    ],
    [
      "a payer that does not hold so much",
      "insufficient_funds",
      "insufficient_balance",
      () => deposit(payer.address, 10n ** 15n),
    ],
    [
      "credit that is not there",
      "nothing_owed",
      "nothing_owed",
      () => release(privateKeyToAccount(generatePrivateKey()).address),
    ],
  ];
  test.each(cases)("%s: %s", async (_title, code, refusal, make) => {
    const wei = () => node().getBalance({ address: relayer.address });
    const before = await wei();
    const answer = await post(await make(), { prefer: "wait=10" });
    expect(answer.status).toBe(ERRORS[code].status);
    expect(answer.headers.get("content-type")).toBe("application/problem+json");
    expect(problemOf(answer)).toMatchObject({ code, refusal, hint: intentHints[refusal] });
    expect(await wei()).toBe(before);
  });
});

test("healthz tells of the relayer's empty purse within seconds, and metrics are for nobody without a token", async () => {
  const health = async () => (await requests.send(requests.of("/healthz"))).body;
  await until(async () => JSON.stringify(await health()).startsWith('{"status":"ok"'), "the edge is well");
  await node().setBalance({ address: relayer.address, value: parseEther("0.001") });
  const reasons = [`low_balance:${relayer.address}`];
  await until(async () => JSON.stringify(await health()).includes("degraded"), "the edge is degraded");
  expect(await health()).toEqual({ status: "degraded", relayer: { status: "degraded", reasons } });
  expect((await requests.send(requests.of("/metrics"))).status).toBe(404);
});
