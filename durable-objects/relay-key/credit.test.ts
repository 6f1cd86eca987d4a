import { exports } from "cloudflare:workers";
import { Address, type Bytes32 } from "@gpux/protocol/ids";
import { type Intent, type IntentDone, type RelayerRpc, SettleIntent } from "@gpux/protocol/intent";
import { privateKeyToAddress } from "viem/accounts";
import { beforeEach, describe, expect, test, vi } from "vitest";
import { z } from "zod";
import {
  allocateOf,
  depositOf,
  reclaimCreditOf,
  releaseOf,
  revokeOf,
} from "../../test/setup/devnet-credit.ts";
import {
  closeOf,
  type DevnetLease,
  fundOf,
  hasher,
  newLease,
  node,
  settleOf,
  weiOf,
} from "../../test/setup/devnet-lease.ts";
import { newP256Key } from "../../test/setup/p256-key.ts";
import { RELAYER_KEY } from "../../test/setup/provided-context.ts";

const relayer = z.custom<RelayerRpc>((found) => found !== undefined).parse(Reflect.get(exports, "Relayer"));
type Wire = z.input<typeof Intent>;

beforeEach(() => {
  for (const level of ["log", "warn", "error"] as const)
    vi.spyOn(console, level).mockImplementation(() => undefined);
});

async function done(wire: Wire): Promise<IntentDone> {
  const answer = await relayer.submit(wire);
  if (answer.status !== "done") throw new Error(JSON.stringify(answer));
  return answer;
}
const codeOf = async (wire: Wire) => {
  const answer = await relayer.submit(wire);
  return answer.status === "rejected" ? answer.code : answer.status;
};
/** Another lease of the same credit. */
const sibling = async (lease: DevnetLease): Promise<DevnetLease> => {
  const { payer, consumerSigner, meter, unattended } = lease.terms;
  const other = await newLease(0n, { payer, consumerSigner, meter, unattended });
  return { ...other, payer: lease.payer, consumer: lease.consumer, meter: lease.meter };
};
const creditOf = ({ terms }: DevnetLease) => ({
  payer: terms.payer,
  spender: terms.consumerSigner,
  meter: terms.meter,
});

describe("credit", () => {
  test("RLY-1 is deposited, spent on two leases, comes back from them, and is released at once", async () => {
    const lease = await newLease(1_000n);
    const second = await sibling(lease);
    const credit = creditOf(lease);
    const deposit = await depositOf(lease, 1_000n);
    const put = await done(deposit);
    expect(put.result).toEqual({ kind: "deposit", ...credit, amount: "1000" });
    expect(await done(deposit)).toMatchObject({ txHash: put.txHash });

    const allocate = await allocateOf([lease, second], [300n, 200n]);
    const opened = await done(allocate);
    const openedAt = opened.blockTimestamp;
    expect(opened.result).toEqual({
      kind: "allocate",
      leases: [
        { leaseId: lease.id, funded: "300", openedAt },
        { leaseId: second.id, funded: "200", openedAt },
      ],
      amount: "500",
    });
    // The same targets, signed again, are the same wish.
    const again = await allocateOf([lease, second], [300n, 200n], { validBefore: lease.terms.expiry });
    expect(await done(again)).toMatchObject({ key: opened.key, txHash: opened.txHash });
    // One target is reached, the other is raised.
    expect((await done(await allocateOf([lease, second], [300n, 250n]))).result).toEqual({
      kind: "allocate",
      leases: [
        { leaseId: lease.id, funded: "300", openedAt },
        { leaseId: second.id, funded: "250", openedAt },
      ],
      amount: "50",
    });

    expect((await done(await closeOf(lease, 100n))).result).toMatchObject({ paid: "100", refunded: "200" });
    const released = await done(await releaseOf(lease, { cosigned: true }));
    expect(released.result).toEqual({ kind: "release", ...credit, releaseAt: null, amount: "650" });
    expect(
      (await done({ kind: "withdraw", account: lease.terms.payer, occasion: lease.id })).result,
    ).toMatchObject({
      amount: "650",
    });
  });

  test("RLY-1 what a stranger landed is done: targets that are reached, a deposit that arrived", async () => {
    const lease = await newLease(100n);
    const sent = async () => (await relayer.transactions()).length;
    await done(await depositOf(lease, 100n));
    await done(await allocateOf([lease], [60n]));
    const before = await sent();
    expect(await done(await allocateOf([lease], [40n]))).toMatchObject({
      superseded: true,
      result: { kind: "allocate", leases: [{ funded: "60" }], amount: null },
    });
    expect(await sent()).toBe(before);
  });

  test("a release has served once: brought again after new money came, it moves none", async () => {
    const lease = await newLease(20n);
    const release = await releaseOf(lease, { cosigned: true });
    await done(await depositOf(lease, 10n));
    await done(release);
    await done(await depositOf(lease, 10n));
    // As an observer would try, under another key of meaning: with the payer's word alone.
    const { meterSignature: _, ...alone } = release;
    expect(await done(alone)).toMatchObject({ superseded: true, txHash: null });
    await done(await allocateOf([lease], [10n]));
  });

  test("a payer's release runs its hour, and the meter's word gives it at once", async () => {
    const lease = await newLease(10n);
    await done(await depositOf(lease, 10n));
    const validBefore = lease.terms.expiry;
    const asked = await done(await releaseOf(lease, { validBefore }));
    expect(asked.result).toMatchObject({ releaseAt: asked.blockTimestamp + 3_600, amount: null });
    const hastened = await done(await releaseOf(lease, { cosigned: true, validBefore }));
    expect(hastened.key).toBe(`${asked.key}:cosigned`);
    expect(hastened.result).toMatchObject({ releaseAt: null, amount: "10" });
  });

  test("RLY-7 deposits and allocations of several payers share a transaction, those of one credit do not", async () => {
    const leases = await Promise.all([1, 2, 3].map(() => newLease(100n)));
    const ends = await Promise.all(leases.map(async (lease) => await done(await depositOf(lease, 50n))));
    expect(new Set(ends.map(({ txHash }) => txHash)).size).toBeLessThan(3);
    const [lease] = leases;
    if (lease === undefined) throw new Error("no lease");
    const twice = await Promise.all([depositOf(lease, 20n), depositOf(lease, 30n)]);
    const both = await Promise.all(twice.map(done));
    expect(both.map(({ result }) => result)).toMatchObject([{ amount: "20" }, { amount: "30" }]);
    expect(new Set(both.map(({ txHash }) => txHash)).size).toBe(2);
  });
});

describe("RLY-5 refusals of credit are decoded", () => {
  const cases: [title: string, code: string, make: () => Promise<Wire>][] = [
    ["a deposit without the money", "insufficient_balance", async () => depositOf(await newLease(9n), 10n)],
    [
      "a deposit signed for another amount",
      "bad_signature",
      async () => ({ ...(await depositOf(await newLease(20n), 10n)), amount: "11" }),
    ],
    ["nothing deposited", "intent_invalid", async () => depositOf(await newLease(1n), 0n)],
    [
      "more than there is",
      "insufficient_credit",
      async () => {
        const lease = await newLease(10n);
        await done(await depositOf(lease, 10n));
        return allocateOf([lease], [11n]);
      },
    ],
    [
      "leases of two credits",
      "other_credit",
      async () => allocateOf([await newLease(0n), await newLease(0n)], [1n, 1n]),
    ],
    [
      "an allocation without the spender",
      "bad_signature",
      async () => {
        const lease = await newLease(10n);
        await done(await depositOf(lease, 10n));
        return { ...(await allocateOf([lease], [5n])), fundedTo: ["6"] };
      },
    ],
    [
      "an allocation whose time is over",
      "expired",
      async () => allocateOf([await newLease(0n)], [1n], { validBefore: Math.floor(Date.now() / 1000) - 1 }),
    ],
    ["a release of nothing", "nothing_owed", async () => releaseOf(await newLease(0n))],
    [
      "a second release while one runs",
      "release_pending",
      async () => {
        const lease = await newLease(10n);
        await done(await depositOf(lease, 10n));
        await done(await releaseOf(lease));
        return releaseOf(lease, { validBefore: lease.terms.expiry - 1 });
      },
    ],
    [
      "a reclaim before its time",
      "too_early",
      async () => {
        const lease = await newLease(10n);
        await done(await depositOf(lease, 10n));
        const { result } = await done(await releaseOf(lease));
        return reclaimCreditOf(lease, (result.kind === "release" && result.releaseAt) || 1);
      },
    ],
    [
      "a lease that names a meter which resigned",
      "meter_revoked",
      async () => {
        const lease = await newLease(10n);
        await done(await revokeOf(lease));
        return fundOf([lease], [10n]);
      },
    ],
    [
      "terms with one key in two roles",
      "terms_refused",
      async () => {
        const lease = await newLease(10n);
        const twice = await newLease(10n, { meter: lease.terms.meter, consumerSigner: lease.terms.meter });
        return fundOf([twice], [10n]);
      },
    ],
    [
      "a stranger's money for a lease that is not open",
      "not_payer",
      async () => {
        const lease = await newLease(0n);
        const donor = await newLease(10n);
        return fundOf([lease], [10n], undefined, donor);
      },
    ],
    [
      "a revocation by another key",
      "bad_signature",
      async () => ({ ...(await revokeOf(await newLease(0n))), meter: (await newLease(0n)).terms.meter }),
    ],
  ];
  test.each(cases)("%s: %s", async (_title, code, make) => {
    expect(await codeOf(await make())).toBe(code);
  });
});

test("a meter resigns once, and asking again answers the same", async () => {
  const lease = await newLease(0n);
  const revoked = await done(await revokeOf(lease));
  expect(revoked.result).toEqual({
    kind: "revoke_meter",
    meter: lease.terms.meter,
    revokedAt: revoked.blockTimestamp,
  });
  expect(await done(await revokeOf(lease))).toMatchObject({ txHash: revoked.txHash });
});

describe("RLY-13 a consumer whose key is P-256", () => {
  /** Usage that the consumer signs with the provider. */
  async function usageOf(
    lease: DevnetLease,
    cumulative: bigint,
    sign: (digest: Bytes32) => Promise<`0x${string}`>,
  ) {
    const settle = SettleIntent.parse(await settleOf(lease, cumulative));
    const digest = hasher.usage({ leaseId: lease.id, cumulative, evidence: settle.evidence });
    const signatures = {
      consumer: await sign(digest),
      provider: await lease.provider.sign({ hash: digest }),
    };
    return z.encode(SettleIntent, { ...settle, signatures });
  }

  test("spends credit, signs usage and allowances, closes and leaves, with whatever s WebCrypto makes", async () => {
    const browser = await newP256Key();
    const base = await newLease(10_000n, { consumerSigner: browser.address, unattended: 0n });
    await done(await depositOf(base, 10_000n));
    const leases = [base, await sibling(base), await sibling(base), await sibling(base)];
    for (const lease of leases)
      await done(await allocateOf([lease], [1_000n], { sign: (digest) => browser.sign(digest) }));
    const [usage, allowed, closed, left] = leases;
    if (!usage || !allowed || !closed || !left) throw new Error("four leases");

    for (const cumulative of [10n, 20n, 30n])
      expect((await done(await usageOf(usage, cumulative, browser.sign))).result).toMatchObject({
        paid: cumulative.toString(),
      });

    const allowance = async (lease: DevnetLease, cumulative: bigint) => ({
      cumulative: cumulative.toString(),
      signature: await browser.sign(hasher.allowance({ leaseId: lease.id, cumulative })),
    });
    const settle = await settleOf(allowed, 70n);
    expect((await done({ ...settle, allowance: await allowance(allowed, 40n) })).result).toMatchObject({
      paid: "40",
    });

    const close = await closeOf(closed, 50n);
    const digest = hasher.close({
      leaseId: closed.id,
      cumulative: 50n,
      evidence: close.evidence,
      validBefore: close.validBefore,
    });
    const signatures = { consumer: await browser.sign(digest), provider: close.signatures.provider };
    expect((await done({ ...close, signatures })).result).toMatchObject({ paid: "50", refunded: "950" });

    const exit = hasher.exit({ leaseId: left.id });
    const { terms } = await settleOf(left, 1n);
    expect(await done({ kind: "exit", terms, signature: await browser.sign(exit) })).toMatchObject({
      result: { kind: "exit", leaseId: left.id },
    });
  });

  test("is not another: its signature by another key is refused", async () => {
    const [browser, other] = [await newP256Key(), await newP256Key()];
    const lease = await newLease(100n, { consumerSigner: browser.address });
    await done(await depositOf(lease, 100n));
    expect(await codeOf(await allocateOf([lease], [9n], { sign: other.sign }))).toBe("bad_signature");
    await done(await allocateOf([lease], [10n], { sign: browser.sign }));
    expect(await codeOf(await usageOf(lease, 5n, other.sign))).toBe("bad_signature");
  });
});

test("RLY-7 RLY-15 a wallet with code never shares a transaction, also when it deposits or releases", async () => {
  const leases = await Promise.all([1, 2, 3].map(() => newLease(100n)));
  const [wallet] = leases;
  const wires = await Promise.all(leases.map((lease) => depositOf(lease, 50n)));
  // Answers the magic value of ERC-1271 to everything.
  const code = "0x631626ba7e60e01b60005260206000f3";
  await node("hardhat_setCode", [wallet?.terms.payer, code]);
  const together = await Promise.all(wires.map(done));
  const releases = await Promise.all(leases.map((lease) => releaseOf(lease)));
  const released = await Promise.all(releases.map(done));
  const carried = await relayer.transactions();
  for (const end of [together[0], released[0]]) {
    expect(carried.find(({ hash }) => hash === end?.txHash)?.intents).toEqual([end?.key]);
  }
});

// Moves the chain's clock, so it comes last.
test("a payer alone has its credit back after the delay, and every wei is accounted for", async () => {
  const key = Address.parse(privateKeyToAddress(RELAYER_KEY));
  const lease = await newLease(500n);
  const credit = creditOf(lease);
  const before = { wei: await weiOf(key), since: Number(await node("eth_blockNumber", [])) };
  await done(await depositOf(lease, 500n));
  const asked = await done(await releaseOf(lease));
  const releaseAt = asked.blockTimestamp + 3_600;
  expect(asked.result).toEqual({ kind: "release", ...credit, releaseAt, amount: null });
  const reclaim = reclaimCreditOf(lease, releaseAt);
  expect(await codeOf(reclaim)).toBe("too_early");
  await node("evm_increaseTime", [3_601]);
  await node("evm_mine", []);
  const back = await done(reclaim);
  expect(back.result).toEqual({ kind: "reclaim_credit", ...credit, amount: "500" });
  expect(await done(reclaim)).toMatchObject({ txHash: back.txHash });
  // Complete, whoever says so, and under whatever time.
  expect(await done(reclaimCreditOf(lease, releaseAt + 1))).toMatchObject({ superseded: true });
  const spent = (await relayer.transactions(before.since + 1)).reduce(
    (sum, { cost }) => sum + BigInt(cost.gasUsed) * BigInt(cost.effectiveGasPrice) + BigInt(cost.l1Fee),
    0n,
  );
  expect(before.wei - (await weiOf(key))).toBe(spent);
});
