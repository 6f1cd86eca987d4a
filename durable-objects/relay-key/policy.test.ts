import type { Bytes32 } from "@gpux/protocol/ids";
import { describe, expect, test } from "vitest";
import { standingOf } from "./confirm.ts";
import { budgetFor, confirmationFor, isEnough, Policy } from "./policy.ts";
import { admit } from "./rate.ts";
import { healthOf, type KeyReport, metricsOf } from "./report.ts";
import { shareOf } from "./sending.ts";

const NOW = 1_800_000_000_000;

describe("the policy", () => {
  test("may be left out, and knows no field that it does not know", () => {
    expect(Policy.parse({}).inFlight).toBe(16);
    expect(Policy.safeParse({ windowMs: 3 }).success).toBe(false);
    expect(Policy.safeParse({ inFlight: 17 }).success).toBe(false);
    expect(Policy.safeParse({ costCap: "-1" }).success).toBe(false);
  });

  test.each([
    [5_000_000n, "included"],
    [5_000_001n, "confirmed"],
    [50_000_000n, "confirmed"],
    [50_000_001n, "safe"],
  ] as const)("%i base units need %s", (value, needs) => {
    expect(confirmationFor(Policy.parse({}), value)).toBe(needs);
    expect(isEnough("finalized", needs)).toBe(true);
    expect(isEnough("included", needs)).toBe(needs === "included");
  });

  test("a share of the value bounds the cost, the cap whatever the value", () => {
    const policy = Policy.parse({ costShareBps: 500, etherPrice: "4000000000", costCap: "1000000000000000" });
    // 5 % of 1 USDC at 4,000 USDC an ether.
    expect(budgetFor(policy, 1_000_000n)).toBe(12_500_000_000_000n);
    expect(budgetFor(policy, 10n ** 12n)).toBe(10n ** 15n);
    expect(budgetFor(policy, null)).toBe(10n ** 15n);
    expect(budgetFor(Policy.parse({ costCap: "7" }), 1n)).toBe(7n);
  });
});

describe("an account's rate", () => {
  const policy = Policy.parse({ ratePerMinute: 2, gasPerDay: 1_000 });
  const used = (...at: number[]) =>
    at.reduce<ReturnType<typeof admit>>(
      (before, now) => (before.ok ? admit(before.used, 300n, now, policy) : before),
      { ok: true, used: { minute: 0, inMinute: 0, day: 0, gasInDay: 0 } },
    );
  test("counts by the minute and by the day's gas", () => {
    expect(used(NOW, NOW)).toMatchObject({ ok: true });
    expect(used(NOW, NOW, NOW)).toMatchObject({ ok: false, code: "rate_limited" });
    expect(used(NOW, NOW, NOW + 60_000)).toMatchObject({ ok: true });
    expect(used(NOW, NOW, NOW + 60_000, NOW + 60_000)).toMatchObject({ ok: false, code: "daily_cap" });
    expect(used(NOW, NOW, NOW + 60_000, NOW + 86_400_000)).toMatchObject({ ok: true });
  });
});

test("shares of a cost add up to it", () => {
  const cost = { gasUsed: "1000003", effectiveGasPrice: "7", l1Fee: "11", calldataBytes: 5 };
  const shares = [0, 1, 2].map((n) => shareOf(cost, n, 3));
  expect(shares.reduce((sum, { gasUsed }) => sum + BigInt(gasUsed), 0n)).toBe(1_000_003n);
  expect(shares.reduce((sum, { l1Fee }) => sum + BigInt(l1Fee), 0n)).toBe(11n);
  expect(shares.reduce((sum, { calldataBytes }) => sum + calldataBytes, 0)).toBe(5);
});

describe("standing on chain", () => {
  const hash = (fork: string, n: number) => `0x${fork.repeat(2)}${n.toString(16).padStart(62, "0")}` as const;
  /** Height of the fork, then what the node says; asked for anything else it throws. */
  const chainOf = (world: { head: number; safe: number; finalized: number; fork: number }) => {
    const block = (n: number) => ({
      number: n,
      hash: hash(n >= world.fork ? "b" : "a", n),
      timestamp: n,
      baseFeePerGas: 1n,
    });
    const no = () => Promise.reject(new Error("not asked for"));
    return {
      head: async () => block(world.head),
      block: async (at: number | "safe" | "finalized") => {
        const n = at === "safe" ? world.safe : at === "finalized" ? world.finalized : at;
        return n > world.head ? null : block(n);
      },
      transactionCount: no,
      balance: no,
      hasCode: no,
      call: no,
      receipt: no,
      emitted: no,
      at: () => ({ call: no, emitted: no }),
      indexed: no,
      send: no,
      surcharge: no,
      suggestedTip: no,
      endpoints: () => [],
    };
  };
  const policy = Policy.parse({ confirmBlocks: 3 });
  const anchor = (n: number, confirmation: "included" | "safe" = "included", fork = "a") => ({
    number: n,
    hash: hash(fork, n),
    confirmation,
  });
  const none = new Set<Bytes32>();

  test("hardens by depth, safe and finalized", async () => {
    const chain = chainOf({ head: 100, safe: 95, finalized: 90, fork: 1_000 });
    const { gone, hardened } = await standingOf(
      chain,
      [anchor(99), anchor(97), anchor(95), anchor(90)],
      policy,
      none,
    );
    expect(gone.size).toBe(0);
    expect([...hardened.values()]).toEqual(["confirmed", "safe", "finalized"]);
  });

  test("takes back everything above the common ancestor and nothing below", async () => {
    const chain = chainOf({ head: 110, safe: 80, finalized: 80, fork: 96 });
    const { gone } = await standingOf(chain, [anchor(99), anchor(96), anchor(95), anchor(94)], policy, none);
    expect([...gone]).toEqual([hash("a", 99), hash("a", 96)]);
  });

  test("a block vouches only for those below that it stood with before", async () => {
    const chain = chainOf({ head: 97, safe: 80, finalized: 80, fork: 96 });
    const anchors = [anchor(97, "included", "b"), anchor(96), anchor(95)];
    const first = await standingOf(chain, anchors, policy, new Set([hash("a", 96), hash("a", 95)]));
    expect([...first.gone]).toEqual([hash("a", 96)]);
    expect([...first.standing]).toEqual([hash("b", 97), hash("a", 95)]);
    const heights: unknown[] = [];
    const watched = {
      ...chain,
      block: async (at: number | "safe" | "finalized") => {
        heights.push(at);
        return await chain.block(at);
      },
    };
    const left = anchors.filter((each) => !first.gone.has(each.hash));
    const second = await standingOf(watched, left, policy, first.standing);
    expect(heights).toEqual(["safe", "finalized", 97]);
    expect([...second.standing]).toEqual([hash("b", 97), hash("a", 95)]);
  });

  test("a height that the node does not know yet is no verdict", async () => {
    const chain = chainOf({ head: 98, safe: 80, finalized: 80, fork: 1_000 });
    const { gone } = await standingOf(chain, [anchor(99), anchor(98)], policy, none);
    expect(gone.size).toBe(0);
  });

  test("nothing becomes final whose own block is not there", async () => {
    const chain = chainOf({ head: 100, safe: 99, finalized: 99, fork: 96 });
    const { gone, hardened } = await standingOf(
      chain,
      [anchor(97, "safe"), anchor(90, "safe")],
      policy,
      none,
    );
    expect([...gone]).toEqual([hash("a", 97)]);
    expect([...hardened.keys()]).toEqual([hash("a", 90)]);
  });
});

describe("what the relayer says of itself", () => {
  const report: KeyReport = {
    balance: "9",
    lowBalance: "5",
    signs: true,
    intents: [{ state: "included", count: 4 }],
    open: 1,
    stuck: [],
    counters: [{ name: 'gpux_relay_intents_total{kind="fund",end="included"}', value: "4" }],
    spent: "77",
    endpoints: [{ faults: 0, resting: false }],
  };
  const states: [title: string, change: Partial<KeyReport>, status: string, reasons: string[]][] = [
    ["all is well", {}, "ok", []],
    ["little gas money", { balance: "4" }, "degraded", ["low_balance:0xa"]],
    ["none", { balance: "0" }, "down", ["low_balance:0xa"]],
    ["a stuck nonce", { stuck: [7] }, "degraded", ["stuck_nonce:0xa:7"]],
    [
      "one of two nodes rests",
      { endpoints: [{ faults: 3, resting: true }, ...report.endpoints] },
      "degraded",
      ["endpoint_resting:0"],
    ],
    ["all nodes rest", { endpoints: [{ faults: 3, resting: true }] }, "down", ["endpoint_resting:0"]],
    ["a retired key runs dry", { signs: false, balance: "0" }, "down", []],
  ];
  test.each(states)("%s", (_title, change, status, reasons) => {
    expect(healthOf([["0xa", { ...report, ...change }]])).toEqual({ status, reasons });
  });

  test("metrics carry the key, and each family is declared once", () => {
    const text = metricsOf([
      ["0xa", report],
      ["0xb", report],
    ]);
    expect(text).toContain('gpux_relay_spent_wei_total{key="0xb"} 77');
    expect(text).toContain('gpux_relay_intents_total{key="0xa",kind="fund",end="included"} 4');
    const declared = text.split("\n").filter((line) => line.startsWith("# TYPE"));
    expect(new Set(declared).size).toBe(declared.length);
  });
});
