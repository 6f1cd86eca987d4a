import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { usdcAbi } from "@gpux/protocol/abi/usdc";
import { calldataOf } from "@gpux/protocol/calldata";
import { Address } from "@gpux/protocol/ids";
import {
  Intent,
  type IntentAnswer,
  type IntentDone,
  intentKey,
  type RelayerRpc,
} from "@gpux/protocol/intent";
import { encodeFunctionData } from "viem";
import { generatePrivateKey, privateKeyToAddress } from "viem/accounts";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { z } from "zod";
import {
  cancelFunding,
  closeOf,
  escrow,
  fundOf,
  hasher,
  newLease,
  node,
  settleOf,
  stranger,
  usdc,
  weiOf,
} from "../../test/setup/devnet-lease.ts";
import { fixNetwork, network } from "../../test/setup/faulty-network.ts";
import { RELAYER_KEY } from "../../test/setup/provided-context.ts";
import type { RelayKeyObject } from "./object.ts";

// `exports` is typed as the edge's; here the main module is workers/relayer.
const relayer = z.custom<RelayerRpc>((found) => found !== undefined).parse(Reflect.get(exports, "Relayer"));
const address = Address.parse(privateKeyToAddress(RELAYER_KEY));
const namespace: DurableObjectNamespace<RelayKeyObject> = env.RELAY_KEY;
const key = () => namespace.getByName(address);

type Wire = z.input<typeof Intent>;

afterEach(fixNetwork);
// What the relayer logs about broken nodes is what these tests break.
beforeEach(() => {
  vi.spyOn(console, "log").mockImplementation(() => undefined);
  vi.spyOn(console, "warn").mockImplementation(() => undefined);
  vi.spyOn(console, "error").mockImplementation(() => undefined);
});

async function done(intent: Wire): Promise<IntentDone> {
  const answer = await relayer.submit(intent);
  if (answer.status !== "done") throw new Error(JSON.stringify(answer));
  return answer;
}

/** Follows the alarm's work without asking the relayer to do anything. */
async function ending(keyOf: string): Promise<IntentAnswer> {
  return await vi.waitFor(
    async () => {
      const answer = await relayer.status(keyOf);
      if (answer === null || answer.status === "pending") throw new Error(`${keyOf} is pending`);
      return answer;
    },
    { timeout: 90_000, interval: 50 },
  );
}

describe("a lease's money", () => {
  test("RLY-1 RLY-6 fund, settle, close and withdraw land, and asking again answers the same transaction", async () => {
    const lease = await newLease(1_000_000n);
    const ethBefore = await weiOf(address);
    const since = Number(await node("eth_blockNumber", []));

    const fund = await fundOf([lease], [600_000n]);
    const funded = await done(fund);
    expect(funded.result).toEqual({
      kind: "fund",
      leases: [{ leaseId: lease.id, funded: "600000", openedAt: funded.blockTimestamp }],
    });
    // It may have hardened meanwhile.
    const again = { ...funded, confirmation: expect.any(String), enough: true };
    expect(await relayer.submit(fund)).toEqual(again);
    expect(await relayer.status(funded.key)).toEqual(again);

    const settled = await done(await settleOf(lease, 100_000n));
    expect(settled.result).toEqual({ kind: "settle", leaseId: lease.id, paid: "100000", fee: "5000" });

    const closed = await done(await closeOf(lease, 250_001n));
    expect(closed.result).toEqual({
      kind: "close",
      leaseId: lease.id,
      paid: "250001",
      refunded: "349999",
      fee: "7500",
    });

    for (const [account, amount] of [
      [lease.terms.provider, "237501"],
      [lease.terms.feeRecipient, "12500"],
      [lease.terms.payer, "349999"],
    ] as const) {
      const paid = await done({ kind: "withdraw", account, occasion: lease.id });
      expect(paid.result).toEqual({ kind: "withdraw", account, amount });
    }

    const transactions = await relayer.transactions(since + 1);
    expect(transactions.map((each) => each.intents.map((key) => key.split(":")[0]).join())).toEqual([
      "fund",
      "settle",
      "close",
      "withdraw",
      "withdraw",
      "withdraw",
    ]);
    expect(transactions[0]).toMatchObject({ hash: funded.txHash, succeeded: true, cost: funded.cost });
    const spent = transactions.reduce(
      (sum, { cost }) => sum + BigInt(cost.gasUsed) * BigInt(cost.effectiveGasPrice) + BigInt(cost.l1Fee),
      0n,
    );
    expect(ethBefore - (await weiOf(address))).toBe(spent);
    expect(transactions.every(({ cost }) => BigInt(cost.l1Fee) > 0n && cost.calldataBytes > 0)).toBe(true);
  });

  test("one authorization opens several leases and a second one tops up", async () => {
    const first = await newLease(1_000_000n);
    const second = { ...(await newLease(0n, { payer: first.terms.payer })), payer: first.payer };
    const opened = await done(await fundOf([first, second], [10n, 20n]));
    const topped = await done(await fundOf([second], [5n]));
    expect(topped.result).toEqual({
      kind: "fund",
      leases: [{ leaseId: second.id, funded: "25", openedAt: opened.blockTimestamp }],
    });
  });

  test("RLY-2 submissions at the same time land once each, and share transactions", async () => {
    const leases = await Promise.all([1, 2, 3, 4, 5, 6].map(() => newLease(10n)));
    const intents = await Promise.all(leases.map((lease) => fundOf([lease], [10n])));
    const answers = await Promise.all([...intents, ...intents].map((intent) => relayer.submit(intent)));
    const ends = await Promise.all(answers.map((answer) => ending(answer.key ?? "")));
    expect(ends.every((end) => end.status === "done")).toBe(true);
    const since = Math.min(...ends.map((end) => (end.status === "done" ? end.blockNumber : 0)));
    const carried = (await relayer.transactions(since)).flatMap((each) => each.intents);
    expect(carried.toSorted()).toEqual(
      ends
        .map((end) => end.key)
        .filter((name, i, all) => all.indexOf(name) === i)
        .toSorted(),
    );
  });
});

describe("RLY-5 refusals are decoded and leave nothing on chain", () => {
  const cases: [title: string, code: string, make: () => Promise<Wire>][] = [
    ["a payer without the money", "insufficient_balance", async () => fundOf([await newLease(9n)], [10n])],
    [
      "a funding signed for other amounts",
      "bad_signature",
      async () => ({ ...(await fundOf([await newLease(10n)], [9n])), amounts: ["10"] }),
    ],
    [
      "an authorization whose time is over",
      "expired",
      async () => fundOf([await newLease(10n)], [10n], Math.floor(Date.now() / 1000) - 1),
    ],
    [
      "terms that have expired",
      "expired",
      async () => fundOf([await newLease(10n, { expiry: Math.floor(Date.now() / 1000) - 1 })], [10n]),
    ],
    ["usage of a lease that is not open", "lease_not_open", async () => settleOf(await newLease(0n), 1n)],
    [
      "usage signed by another meter",
      "bad_signature",
      async () => {
        const lease = await newLease(10n);
        await done(await fundOf([lease], [10n]));
        return settleOf({ ...lease, meter: (await newLease(0n)).meter }, 5n);
      },
    ],
    [
      "a malformed signature",
      "bad_signature",
      async () => {
        const settle = await settleOf(await newLease(0n), 1n);
        return { ...settle, signatures: { ...settle.signatures, meter: `0x${"ff".repeat(65)}` } };
      },
    ],
    [
      "a close above the funding",
      "above_due",
      async () => {
        const lease = await newLease(10n);
        await done(await fundOf([lease], [10n]));
        return closeOf(lease, 11n);
      },
    ],
    [
      "usage after close",
      "lease_closed",
      async () => {
        const lease = await newLease(10n);
        await done(await fundOf([lease], [10n]));
        await done(await closeOf(lease, 3n));
        return settleOf(lease, 4n);
      },
    ],
    [
      "reclaiming too early",
      "too_early",
      async () => {
        const lease = await newLease(10n);
        const fund = await fundOf([lease], [10n]);
        await done(fund);
        const [terms] = fund.terms;
        if (terms === undefined) throw new Error("no terms");
        return { kind: "reclaim", terms };
      },
    ],
    [
      "a funding while the token is paused",
      "token_refused",
      async () => {
        const intent = await fundOf([await newLease(10n)], [10n]);
        await stranger(usdc, encodeFunctionData({ abi: usdcAbi, functionName: "pause" }));
        return intent;
      },
    ],
  ];
  test.each(cases)("%s: %s", async (_title, code, make) => {
    const intent = await make();
    const sent = async () => (await relayer.transactions()).map(({ hash }) => hash);
    const before = await sent();
    expect(await relayer.submit(intent)).toMatchObject({ status: "rejected", code });
    expect(await sent()).toEqual(before);
    await stranger(usdc, encodeFunctionData({ abi: usdcAbi, functionName: "unpause" }));
  });

  test("what does not fit the schema has no key", async () => {
    const fund = await fundOf([await newLease(10n)], [10n]);
    for (const wrong of [{ ...fund, amounts: [] }, { ...fund, extra: 1 }, { ...fund, kind: "steal" }, null]) {
      // @ts-expect-error -- a caller that does not keep to the type
      expect(await relayer.submit(wrong)).toMatchObject({ key: null, code: "intent_invalid" });
    }
    expect(await relayer.status("fund:unknown")).toBeNull();
    expect(await relayer.status("' OR 1=1")).toBeNull();
  });

  test("a rejected intent lands once what was wrong is mended", async () => {
    const lease = await newLease(0n);
    const fund = await fundOf([lease], [10n]);
    expect(await relayer.submit(fund)).toMatchObject({ code: "insufficient_balance" });
    await stranger(
      usdc,
      encodeFunctionData({ abi: usdcAbi, functionName: "mint", args: [lease.terms.payer, 10n] }),
    );
    expect((await done(fund)).result.kind).toBe("fund");
  });

  test("RLY-4 a key that cannot pay says so before it signs, and goes on once it can", async () => {
    const fund = await fundOf([await newLease(10n)], [10n]);
    const balance = await weiOf(address);
    await node("hardhat_setBalance", [address, "0x1000"]);
    expect(await relayer.submit(fund)).toMatchObject({ status: "rejected", code: "relayer_low_balance" });
    await node("hardhat_setBalance", [address, `0x${balance.toString(16)}`]);
    await done(fund);
  });
});

describe("others may land it", () => {
  const byStranger = async (wire: Wire) => {
    const calldata = calldataOf(Intent.parse(wire));
    if (calldata === null) throw new Error("no calldata");
    await stranger(escrow, calldata.data);
  };

  test("RLY-1 what is done already is done, without a transaction of ours", async () => {
    const lease = await newLease(10n);
    const [fund, settle, close] = [
      await fundOf([lease], [10n]),
      await settleOf(lease, 4n),
      await closeOf(lease, 6n),
    ];
    const sent = async () => (await relayer.transactions()).map(({ hash }) => hash);
    const before = await sent();
    for (const intent of [fund, settle, close]) {
      await byStranger(intent);
      expect(await done(intent)).toMatchObject({ superseded: true, txHash: null, cost: null });
    }
    expect(await done({ kind: "withdraw", account: lease.terms.meter, occasion: "x" })).toMatchObject({
      superseded: true,
      result: { amount: "0" },
    });
    expect(await sent()).toEqual(before);
  });

  test("RLY-6 overtaken after its simulation, ours reverts, is accounted for, and the intent is done", async () => {
    const lease = await newLease(10n);
    await done(await fundOf([lease], [10n]));
    const settle = await settleOf(lease, 4n);
    network.before("eth_sendRawTransaction", () => byStranger(settle));
    expect(await done(settle)).toMatchObject({ superseded: true, result: { paid: "4" } });
    await expect
      .poll(async () => (await relayer.transactions()).at(-1))
      .toMatchObject({
        intents: [expect.stringMatching(/^settle:/)],
        succeeded: false,
      });
  });

  test("an authorization that the payer cancelled is refused, also for a lease that is open", async () => {
    const lease = await newLease(20n);
    const opening = await fundOf([lease], [10n]);
    const topUp = await fundOf([lease], [10n]);
    await cancelFunding(lease, opening);
    expect(await relayer.submit(opening)).toMatchObject({ status: "rejected", code: "authorization_used" });
    await done(await fundOf([lease], [10n]));
    await cancelFunding(lease, topUp);
    expect(await relayer.submit(topUp)).toMatchObject({ status: "rejected", code: "authorization_used" });
  });
});

describe("nothing is lost or sent twice", () => {
  /** Does up to `steps` duties one by one, `between` them what is told, without the alarm's help. */
  async function walk(wire: Wire, steps: number, between = async () => {}): Promise<IntentAnswer> {
    const intent = Intent.parse(wire);
    const name = intentKey(hasher, intent);
    await runInDurableObject(key(), (object: RelayKeyObject) => object.receive(intent));
    for (let step = 0; step < steps && (await key().status(name))?.status === "pending"; step++) {
      await between();
      await runInDurableObject(key(), async (object: RelayKeyObject, state) => {
        await object.advance();
        await state.storage.deleteAlarm();
      });
    }
    const answer = await key().status(name);
    if (answer === null) throw new Error(`${name} is gone`);
    return answer;
  }
  const evict = () => evictDurableObject(key());

  test("RLY-2 killed between storing and sending, it sends the stored transaction and no other", async () => {
    const fund = await fundOf([await newLease(10n)], [10n]);
    network.break("eth_sendRawTransaction");
    const pending = await walk(fund, 4);
    if (pending.status !== "pending" || pending.txHash === null) throw new Error(JSON.stringify(pending));
    await evict();
    network.fix();
    // A woken object arms its alarm again, which does the rest.
    expect(await ending(pending.key)).toMatchObject({ status: "done", txHash: pending.txHash });
    expect(new Set(network.sent).size).toBe(1);
  });

  test("ACK-4 an answer that is lost after the node took it is pending, then the same transaction", async () => {
    const fund = await fundOf([await newLease(10n)], [10n]);
    network.loseAnswers("eth_sendRawTransaction");
    const pending = await walk(fund, 6);
    if (pending.status !== "pending" || pending.txHash === null) throw new Error(JSON.stringify(pending));
    network.fix();
    expect(await walk(fund, 9)).toMatchObject({ status: "done", superseded: false, txHash: pending.txHash });
    expect(new Set(network.sent).size).toBe(1);
  });

  test("RLY-2 with an eviction between every two steps it lands all the same", async () => {
    const lease = await newLease(10n);
    for (const wire of [await fundOf([lease], [10n]), await settleOf(lease, 4n), await closeOf(lease, 6n)]) {
      expect(await walk(wire, 20, evict)).toMatchObject({ status: "done", superseded: false });
    }
  });

  const someHash = `0x${"1".repeat(64)}`;
  const lies: [answer: string, method: string, body: string][] = [
    ["nonsense", "eth_sendRawTransaction", "<html>"],
    ["an error without sense", "eth_call", '{"error":{"code":-32005,"message":"limit exceeded"}}'],
    ["no hex", "eth_call", '{"result":"0xzz"}'],
    ["without end", "eth_getBalance", `{"result":"0x${"f".repeat(2_000_000)}"}`],
    [
      "another transaction's receipt",
      "eth_getTransactionReceipt",
      `{"result":{"transactionHash":"${someHash}","status":"0x1","blockNumber":"0x1","blockHash":"${someHash}","gasUsed":"0x1","effectiveGasPrice":"0x1","logs":[]}}`,
    ],
    ["no block", "eth_getBlockByNumber", '{"result":null}'],
  ];
  test.each(lies)("RLY-3 a node that answers %s to %s changes no verdict", async (_answer, method, body) => {
    const fund = await fundOf([await newLease(10n)], [10n]);
    network.lie(method, body);
    expect((await walk(fund, 6)).status).toBe("pending");
    network.fix();
    expect(await walk(fund, 9)).toMatchObject({ status: "done", superseded: false });
    expect(new Set(network.sent).size).toBe(1);
  });

  test("RLY-3 a node on another chain is not believed", async () => {
    const fund = await fundOf([await newLease(10n)], [10n]);
    await evict();
    network.lie("eth_chainId", '{"result":"0xa"}');
    expect(await walk(fund, 6)).toMatchObject({ status: "pending", txHash: null });
    network.fix();
    expect(await walk(fund, 9)).toMatchObject({ status: "done" });
  });
});

test("without its key in the secret nothing is signed, and nothing is lost", async () => {
  const strange = namespace.getByName(privateKeyToAddress(generatePrivateKey()).toLowerCase());
  const intent = Intent.parse(await fundOf([await newLease(10n)], [10n]));
  expect(await strange.submit(intent)).toMatchObject({ status: "pending", txHash: null });
  expect(await strange.transactions(0)).toEqual([]);
});

test("nothing but health and metrics is served over HTTP", async () => {
  const health = await exports.default.fetch("https://relayer/healthz");
  expect(health.status).toBe(200);
  expect(await health.json()).toEqual({ status: "ok", reasons: [] });
  const metrics = await exports.default.fetch("https://relayer/metrics");
  expect(await metrics.text()).toContain(`gpux_relay_balance_wei{key="${address}"} `);
  expect((await exports.default.fetch("https://relayer/submit", { method: "POST" })).status).toBe(404);
});
