import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { usdcAbi } from "@gpux/protocol/abi/usdc";
import { calldataOf } from "@gpux/protocol/calldata";
import { Address } from "@gpux/protocol/ids";
import { Intent, type IntentAnswer, intentKey, type RelayerRpc } from "@gpux/protocol/intent";
import { encodeFunctionData, keccak256, parseTransaction } from "viem";
import { privateKeyToAddress } from "viem/accounts";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { z } from "zod";
import { depositOf, reclaimCreditOf, releaseOf } from "../../test/setup/devnet-credit.ts";
import {
  closeOf,
  type DevnetLease,
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
import { Policy } from "./policy.ts";

const relayer = z.custom<RelayerRpc>((found) => found !== undefined).parse(Reflect.get(exports, "Relayer"));
const address = Address.parse(privateKeyToAddress(RELAYER_KEY));
const namespace: DurableObjectNamespace<RelayKeyObject> = env.RELAY_KEY;
const key = () => namespace.getByName(address);
type Wire = z.input<typeof Intent>;
const { multicall: MULTICALL } = Policy.parse({});
const SWALLOWED = `{"result":"0x${"1".repeat(64)}"}`;

afterEach(fixNetwork);
beforeEach(() => {
  for (const level of ["log", "warn", "error"] as const)
    vi.spyOn(console, level).mockImplementation(() => undefined);
});

const nameOf = (wire: Wire) => intentKey(hasher, Intent.parse(wire));

/** Stores them without doing anything for them yet. */
async function receive(...wires: Wire[]): Promise<string[]> {
  const intents = wires.map((wire) => Intent.parse(wire));
  return await runInDurableObject(key(), (object: RelayKeyObject) =>
    intents.map((intent) => object.receive(intent)),
  );
}

/** One round of whatever is to be done. */
const advance = () => runInDurableObject(key(), (object: RelayKeyObject) => object.advance());

/** Rounds until the answer is as told. */
async function until<T>(look: () => Promise<T | null | false | undefined>): Promise<T> {
  return await vi.waitFor(
    async () => {
      await advance();
      const found = await look();
      if (!found) throw new Error("not yet");
      return found;
    },
    { timeout: 90_000, interval: 20 },
  );
}

async function done(name: string) {
  return await until(async () => {
    const answer = await relayer.status(name);
    return answer?.status === "done" ? answer : null;
  });
}

async function land(wire: Wire) {
  await receive(wire);
  return await done(nameOf(wire));
}

async function byStranger(wire: Wire): Promise<void> {
  const calldata = calldataOf(Intent.parse(wire));
  if (calldata === null) throw new Error("no calldata");
  await stranger(escrow, calldata.data);
}

const mine = async (blocks: number) => {
  // EDR aborts on hardhat_mine of eight blocks or more.
  for (let i = 0; i < blocks; i++) await node("evm_mine", []);
};

async function spent(): Promise<bigint> {
  const all = await relayer.transactions();
  return all.reduce(
    (sum, { cost }) => sum + BigInt(cost.gasUsed) * BigInt(cost.effectiveGasPrice) + BigInt(cost.l1Fee),
    0n,
  );
}

/**
 * The key's balance fell by exactly what is on record since `before`. A transaction may be on record a round after what
 * it did was seen.
 */
async function books() {
  const before = { wei: await weiOf(address), spent: await spent() };
  const difference = async () => before.wei - (await weiOf(address)) - ((await spent()) - before.spent);
  return { close: async () => await until(async () => (await difference()) === 0n) };
}

/** Of these nonces, in their order, once all are on record. */
async function onRecord(first: number, count: number) {
  const all = await until(async () => {
    const found = (await relayer.transactions()).filter(({ nonce }) => nonce >= first);
    return found.length >= count && found;
  });
  return all.sort((a, b) => a.nonce - b.nonce);
}

const leases = (count: number) => Promise.all(Array.from({ length: count }, () => newLease(1_000n)));
const fundings = async (of: readonly DevnetLease[]) =>
  await Promise.all(of.map((lease) => fundOf([lease], [1_000n])));

describe("RLY-7 a batch", () => {
  test("with an entry that was poisoned after signing lands the others, and that one is found to be done", async () => {
    const book = await books();
    const wires = await fundings(await leases(4));
    const [poisoned] = wires;
    if (poisoned === undefined) throw new Error("no wire");
    network.before("eth_sendRawTransaction", () => byStranger(poisoned));
    await receive(...wires);
    const ends = await Promise.all(wires.map((wire) => done(nameOf(wire))));
    expect(ends[0]).toMatchObject({ superseded: true, txHash: null });
    expect(new Set(ends.slice(1).map((end) => end.txHash)).size).toBe(1);
    const [batch] = (await relayer.transactions()).filter(({ hash }) => hash === ends[1]?.txHash);
    expect(batch).toMatchObject({ succeeded: true });
    expect(batch?.intents.toSorted()).toEqual(wires.map(nameOf).toSorted());
    const shares = ends.slice(1).reduce((sum, { cost }) => sum + BigInt(cost?.gasUsed ?? 0), 0n);
    expect(shares).toBeGreaterThan((BigInt(batch?.cost.gasUsed ?? 0) * 3n) / 4n - 4n);
    await book.close();
  });

  test("leaves behind what fails in company before it is signed", async () => {
    const wires = await fundings(await leases(3));
    const [poisoned] = wires;
    if (poisoned === undefined) throw new Error("no wire");
    // Each was simulated by itself; then one is done by somebody else before all are simulated together.
    network.before("eth_call", () => byStranger(poisoned), MULTICALL);
    const names = await receive(...wires);
    const ends = await Promise.all(names.map((name) => done(name)));
    expect(ends[0]?.superseded).toBe(true);
    for (const end of ends.slice(1)) expect(end.superseded).toBe(false);
    const carried = (await relayer.transactions()).flatMap(({ intents }) => intents);
    expect(carried).not.toContain(names[0]);
  });

  test("carries the payouts of several leases at once", async () => {
    const all = await leases(2);
    for (const wire of await fundings(all)) await land(wire);
    for (const lease of all) await land(await closeOf(lease, 500n));
    const payouts = all.flatMap((lease) =>
      [lease.terms.provider, lease.terms.feeRecipient, lease.terms.payer].map(
        (account): Wire => ({ kind: "withdraw", account, occasion: lease.id }),
      ),
    );
    const before = (await relayer.transactions()).length;
    await receive(...payouts);
    for (const wire of payouts) expect((await done(nameOf(wire))).superseded).toBe(false);
    const [one, ...others] = (await relayer.transactions()).slice(before);
    expect(one?.intents).toHaveLength(6);
    expect(others).toEqual([]);
  });

  test("never holds a funding of a smart wallet, whose code is asked", async () => {
    const all = await leases(3);
    const wires = await fundings(all);
    // Answers the magic value of ERC-1271 to everything.
    const [wallet] = all;
    await node("hardhat_setCode", [wallet?.terms.payer, "0x631626ba7e60e01b60005260206000f3"]);
    await receive(...wires);
    const ends = await Promise.all(wires.map((wire) => done(nameOf(wire))));
    const transactions = await relayer.transactions();
    const of = (end: (typeof ends)[number] | undefined) =>
      transactions.find(({ hash }) => hash === end?.txHash)?.intents.toSorted();
    expect(of(ends[0])).toEqual([ends[0]?.key]);
    expect(of(ends[1])).toEqual([ends[1]?.key, ends[2]?.key].toSorted());
  });
});

describe("RLY-8 a reorganisation", () => {
  test.each([1, 2, 5, 10])(
    "of %i blocks puts back what was in them, and the same transaction lands again",
    async (depth) => {
      const lease = await newLease(1_000n);
      const stay = await land(await fundOf([lease], [400n]));
      const book = await books();
      await mine(1);
      const snapshot = await node("evm_snapshot", []);
      const lost = await land(await fundOf([lease], [600n]));
      expect(lost).toMatchObject({ confirmation: "included", result: { leases: [{ funded: "1000" }] } });
      await mine(depth - 1);
      await node("evm_revert", [snapshot]);
      await node("evm_increaseTime", [1]);
      await mine(depth + 1);
      const again = await until(async () => {
        const answer = await relayer.status(lost.key);
        return answer?.status === "done" && answer.blockHash !== lost.blockHash ? answer : null;
      });
      expect(again.txHash).toBe(lost.txHash);
      expect(again.blockHash).not.toBe(lost.blockHash);
      expect(await relayer.status(stay.key)).toMatchObject({ status: "done", blockHash: stay.blockHash });
      await book.close();
    },
  );

  test("that takes another's transaction away makes us land it ourselves", async () => {
    const wire = await fundOf([await newLease(1_000n)], [1_000n]);
    await mine(1);
    const snapshot = await node("evm_snapshot", []);
    await byStranger(wire);
    expect(await land(wire)).toMatchObject({ superseded: true });
    await node("evm_revert", [snapshot]);
    await node("evm_increaseTime", [1]);
    await mine(3);
    const own = await until(async () => {
      const answer = await relayer.status(nameOf(wire));
      return answer?.status === "done" && !answer.superseded ? answer : null;
    });
    expect(own.txHash).not.toBeNull();
  });

  test("between two questions is no verdict: why an intent cannot be done is asked of one block", async () => {
    const wire = await fundOf([await newLease(1_000n)], [1_000n]);
    await mine(1);
    const snapshot = await node("evm_snapshot", []);
    await byStranger(wire);
    // The call has seen the authorization used; then the block that used it is gone.
    const reorganise = async () => {
      await node("evm_revert", [snapshot]);
      await node("evm_increaseTime", [1]);
      await mine(2);
    };
    network.before("eth_getBlockByNumber", reorganise, '"latest"');
    expect(await land(wire)).toMatchObject({ superseded: false });
  });

  test("of a close leaves its payouts waiting, though nothing is owed meanwhile", async () => {
    const lease = await newLease(1_000n);
    await land(await fundOf([lease], [1_000n]));
    await mine(1);
    const snapshot = await node("evm_snapshot", []);
    await land(await closeOf(lease, 400n));
    await node("evm_revert", [snapshot]);
    await node("evm_increaseTime", [1]);
    await mine(2);
    network.lie("eth_sendRawTransaction", SWALLOWED);
    const payout: Wire = { kind: "withdraw", account: lease.terms.payer, occasion: lease.id };
    await receive(payout);
    for (let round = 0; round < 5; round++) await advance();
    expect(await relayer.status(nameOf(payout))).toMatchObject({ status: "pending" });
    network.fix();
    expect(await done(nameOf(payout))).toMatchObject({
      superseded: false,
      result: { kind: "withdraw", amount: "600" },
    });
  });

  test("of a release does not pass for the credit's return", async () => {
    const lease = await newLease(50n);
    await land(await depositOf(lease, 50n));
    await mine(1);
    const snapshot = await node("evm_snapshot", []);
    const release = await land(await releaseOf(lease));
    const { releaseAt } = z.object({ releaseAt: z.number() }).parse(release.result);
    await node("evm_revert", [snapshot]);
    await node("evm_increaseTime", [1]);
    await mine(2);
    network.lie("eth_sendRawTransaction", SWALLOWED);
    const reclaim = reclaimCreditOf(lease, releaseAt);
    await receive(reclaim);
    for (let round = 0; round < 5; round++) await advance();
    expect(await relayer.status(nameOf(reclaim))).toMatchObject({ status: "pending" });
    network.fix();
    const refused = await until(async () => {
      const answer = await relayer.status(nameOf(reclaim));
      return answer?.status === "rejected" ? answer : null;
    });
    expect(refused.code).toBe("too_early");
  });

  test("cannot undo what is final; outcomes harden as blocks lie on them", async () => {
    const funded = await land(await fundOf([await newLease(1_000n)], [1_000n]));
    const level = async () => {
      await advance();
      const answer = await relayer.status(funded.key);
      return answer?.status === "done" ? answer.confirmation : null;
    };
    const levels = [await level()];
    for (const blocks of [5, 3, 8]) {
      await mine(blocks);
      levels.push(await level());
    }
    expect(levels).toEqual(["included", "confirmed", "safe", "finalized"]);
    network.lie("eth_getBlockByNumber", '{"result":null}');
    await advance();
    expect(await relayer.status(funded.key)).toMatchObject({ status: "done", confirmation: "finalized" });
  });
});

describe("RLY-9 a transaction that is not included", () => {
  const sent = () =>
    network.sent.map((raw) => parseTransaction(z.templateLiteral(["0x", z.string()]).parse(raw)));

  test("is outbid at the same nonce by an eighth, and lands once", async () => {
    const book = await books();
    const wire = await fundOf([await newLease(1_000n)], [1_000n]);
    network.lie("eth_sendRawTransaction", SWALLOWED);
    await receive(wire);
    await until(async () => {
      // Blocks that come before the relayer has noted the height at which it sent do not count.
      await mine(1);
      return new Set(network.sent).size > 1;
    });
    network.fix();
    const end = await done(nameOf(wire));
    const [first, second] = [...new Map(sent().map((each) => [each.maxFeePerGas, each])).values()];
    expect(second?.nonce).toBe(first?.nonce);
    expect(second?.data).toBe(first?.data);
    for (const field of ["maxFeePerGas", "maxPriorityFeePerGas"] as const)
      expect((second?.[field] ?? 0n) * 10n).toBeGreaterThan((first?.[field] ?? 0n) * 11n);
    expect(network.sent.map((raw) => keccak256(z.templateLiteral(["0x", z.string()]).parse(raw)))).toContain(
      end.txHash,
    );
    await book.close();
  });

  test("may still be the one that lands after it was replaced", async () => {
    const wire = await fundOf([await newLease(1_000n)], [1_000n]);
    network.lie("eth_sendRawTransaction", SWALLOWED);
    await receive(wire);
    await until(async () => {
      // Blocks that come before the relayer has noted the height at which it sent do not count.
      await mine(1);
      return new Set(network.sent).size > 1;
    });
    const [first] = network.sent;
    await node("eth_sendRawTransaction", [first]);
    const end = await done(nameOf(wire));
    expect(end.txHash).toBe(keccak256(z.templateLiteral(["0x", z.string()]).parse(first)));
  });

  test("frees its nonce when its fee reaches the cap, and goes again by another", async () => {
    const book = await books();
    const wire = await fundOf([await newLease(1_000n)], [1_000n]);
    network.lie("eth_sendRawTransaction", SWALLOWED);
    await receive(wire);
    await until(async () => {
      await mine(3);
      return sent().some(({ to }) => to?.toLowerCase() === address);
    });
    network.fix();
    const end = await done(nameOf(wire));
    const canceled = await until(async () =>
      (await relayer.transactions()).find(
        ({ purpose, intents }) => purpose === "cancel" && intents.includes(end.key),
      ),
    );
    expect(canceled).toMatchObject({ succeeded: true });
    expect(end.txHash).not.toBe(canceled.hash);
    await book.close();
  });

  test("has no gap before it: a nonce that nothing was signed for is filled", async () => {
    const book = await books();
    await runInDurableObject(key(), (_object, state) => {
      state.storage.sql.exec("UPDATE key SET next_nonce = next_nonce + 2");
    });
    const count = Number(await node("eth_getTransactionCount", [address, "latest"]));
    const end = await land(await fundOf([await newLease(1_000n)], [1_000n]));
    const last = await onRecord(count, 3);
    expect(last.map(({ purpose, intents }) => [purpose, intents.length])).toEqual([
      ["cancel", 0],
      ["cancel", 0],
      ["call", 1],
    ]);
    expect(last[2]?.hash).toBe(end.txHash);
    await book.close();
  });

  test("is not held up by a nonce that another used until a reorganisation took that back", async () => {
    const book = await books();
    const count = Number(await node("eth_getTransactionCount", [address, "latest"]));
    const wire = await fundOf([await newLease(1_000n)], [1_000n]);
    network.lie("eth_getTransactionCount", `{"result":"0x${(count + 1).toString(16)}"}`);
    network.break("eth_sendRawTransaction");
    await receive(wire);
    await until(async () => network.sent.length > 0);
    network.fix();
    const end = await done(nameOf(wire));
    expect(await onRecord(count, 2)).toMatchObject([
      { nonce: count, purpose: "cancel", intents: [] },
      { nonce: count + 1, hash: end.txHash },
    ]);
    await book.close();
  });

  test("flies again when it was given up and its nonce is free after all", async () => {
    const book = await books();
    const count = Number(await node("eth_getTransactionCount", [address, "latest"]));
    const wire = await fundOf([await newLease(1_000n)], [1_000n]);
    network.lie("eth_sendRawTransaction", '{"error":{"code":-32000,"message":"nonce too low"}}');
    await receive(wire);
    await until(async () => sent().some(({ nonce }) => nonce === count + 1));
    network.fix();
    const end = await done(nameOf(wire));
    // The first did the work; the second had to land for what comes after it, and is on record.
    const [first] = await onRecord(count, 2);
    expect(first).toMatchObject({ nonce: count, succeeded: true, intents: [end.key] });
    await book.close();
  });

  test("is on record also when its receipt came long after it was given up", async () => {
    const book = await books();
    const wire = await fundOf([await newLease(1_000n)], [1_000n]);
    network.lie("eth_getTransactionReceipt", '{"result":null}');
    await receive(wire);
    // Its own work, found on chain without a transaction that it could name.
    expect(await done(nameOf(wire))).toMatchObject({ superseded: true, cost: null });
    network.fix();
    await until(async () => (await relayer.transactions()).at(-1)?.intents.includes(nameOf(wire)));
    await book.close();
  });

  test("waits for its turn where a node queues nothing, and what the node forgot goes at once", async () => {
    const warned = vi.spyOn(console, "warn").mockImplementation(() => undefined);
    const book = await books();
    const wires = await fundings(await leases(2));
    const [first, second] = wires;
    if (first === undefined || second === undefined) throw new Error("no wire");
    network.lie("eth_sendRawTransaction", SWALLOWED);
    await receive(first);
    await until(async () => network.sent.length > 0);
    await receive(second);
    await until(async () => new Set(sent().map(({ nonce }) => nonce)).size === 2);
    network.fix();
    const ends = await Promise.all([first, second].map((wire) => done(nameOf(wire))));
    for (const end of ends) expect(end.superseded).toBe(false);
    // Blocks went by for neither, so no fee was too low; and a node that queues nothing is no failing node.
    expect(new Set(network.sent).size).toBe(2);
    expect(warned.mock.calls.join()).not.toContain("relay_node_fault");
    await book.close();
  });

  test("is planned again after a crash in the middle of the planning", async () => {
    const wire = await fundOf([await newLease(1_000n)], [1_000n]);
    const planAt: unknown[] = [];
    await runInDurableObject(key(), (_object, { storage: { sql } }) => {
      network.before("eth_maxPriorityFeePerGas", async () => {
        planAt.push(sql.exec("SELECT plan_at FROM key").one().plan_at);
      });
    });
    await land(wire);
    expect(planAt).toEqual([expect.any(Number)]);
  });

  const troubles: [title: string, make: () => void][] = [
    ["429", () => network.lie("eth_getTransactionReceipt", "slow down", 429)],
    ["nothing in time", () => network.break("eth_getTransactionReceipt")],
    [
      "a limit",
      () => network.lie("eth_getTransactionReceipt", '{"error":{"code":-32005,"message":"limit"}}'),
    ],
  ];
  test.each(troubles)(
    "a node that answers %s after the broadcast delays it, and a restart sends it again",
    async (_title, make) => {
      const book = await books();
      const wire = await fundOf([await newLease(1_000n)], [1_000n]);
      make();
      await receive(wire);
      await until(async () => network.sent.length > 0);
      expect(await relayer.status(nameOf(wire))).toMatchObject({ status: "pending" });
      await evictDurableObject(key());
      network.fix();
      expect((await done(nameOf(wire))).superseded).toBe(false);
      expect(new Set(network.sent).size).toBe(1);
      await book.close();
    },
  );
});

describe("RLY-10 a held voucher", () => {
  const funded = async (amount: bigint) => {
    const lease = await newLease(amount);
    await land(await fundOf([lease], [amount]));
    return lease;
  };

  test("waits, and lands when the payer asks to exit", async () => {
    const lease = await funded(1_000n);
    const voucher = await settleOf(lease, 700n);
    expect(await relayer.hold(voucher)).toMatchObject({ status: "pending", txHash: null });
    await advance();
    expect(await relayer.status(nameOf(voucher))).toMatchObject({ status: "pending", txHash: null });
    const signature = await lease.consumer.sign({ hash: hasher.exit({ leaseId: lease.id }) });
    await byStranger({ kind: "exit", terms: voucher.terms, signature });
    expect((await done(nameOf(voucher))).result).toMatchObject({ kind: "settle", paid: "700" });
  });

  test("gives way to a higher one, and goes at once when it is worth it or asked for", async () => {
    const lease = await funded(20_000_000n);
    const [low, high] = [await settleOf(lease, 5n), await settleOf(lease, 9n)];
    await relayer.hold(low);
    await relayer.hold(high);
    expect(await relayer.status(nameOf(low))).toMatchObject({ status: "rejected", code: "stale" });
    expect(await relayer.hold(low)).toMatchObject({ status: "rejected", code: "stale" });
    expect(await relayer.submit(high)).toMatchObject({ status: "done" });
  });

  test("goes by itself once enough is unsettled", async () => {
    const lease = await newLease(20_000_000n, { upfront: 20_000_000n, unattended: 20_000_000n });
    await land(await fundOf([lease], [20_000_000n]));
    const voucher = await settleOf(lease, 5_000_000n);
    await relayer.hold(voucher);
    expect((await done(nameOf(voucher))).result).toMatchObject({ paid: "5000000" });
  });
});

describe("what anybody may bring", () => {
  test("RLY-11 is bounded by the account, and asking again for the same is free", async () => {
    const payer = await newLease(1_000n);
    const answers: IntentAnswer[] = [];
    for (let i = 0; i < 4; i++) {
      const lease = { ...(await newLease(0n, { payer: payer.terms.payer })), payer: payer.payer };
      const wire = await fundOf([lease], [10n]);
      answers.push(await relayer.relay(wire), await relayer.relay(wire));
    }
    expect(answers.map((answer) => (answer.status === "rejected" ? answer.code : answer.status))).toEqual([
      ...Array.from({ length: 6 }, () => "done"),
      "rate_limited",
      "rate_limited",
    ]);
    expect(await relayer.relay({ kind: "steal" })).toMatchObject({ code: "intent_invalid" });
  });

  test("RLY-15 a wallet that is yet to be deployed is told so", async () => {
    const wire = await fundOf([await newLease(10n)], [10n]);
    const signature = `${wire.signature}${"6492".repeat(16)}` as const;
    expect(await relayer.submit({ ...wire, signature })).toMatchObject({ code: "wallet_not_deployed" });
  });

  test("a token that is paused stops nothing but itself", async () => {
    const lease = await newLease(1_000n);
    await land(await fundOf([lease], [1_000n]));
    const paused = async (name: "pause" | "unpause") =>
      await stranger(usdc, encodeFunctionData({ abi: usdcAbi, functionName: name }));
    await paused("pause");
    expect(await land(await closeOf(lease, 400n))).toMatchObject({ superseded: false });
    await paused("unpause");
  });
});
