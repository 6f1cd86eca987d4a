import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { consumer } from "../../scripts/seed/scenario.ts";
import { Report } from "../report.ts";
import { deployForwarder, type ForwarderPlace, forwarder } from "./forwarder.ts";
import { type Ledger, openLedger } from "./ledger.ts";
import { live } from "./life.ts";
import { ours } from "./ours.ts";
import { PARTS, partsOf } from "./parts.ts";
import { measureSettlement } from "./settlement.ts";

const WAYS = ["forwarder", "forwarder batched", "ours", "ours without fee"];

describe("npm run bench settlement", () => {
  let report: Report;

  beforeAll(async () => {
    report = Report.parse(await measureSettlement({ sizes: [2], jobs: 3 }, () => {}));
  }, 120_000);

  const value = (variant: string, metric: string) =>
    report.rows.find((row) => row.variant === variant && row.metric === metric)?.value ?? Number.NaN;

  test("the seed example takes nine transactions and a permit through the forwarder, and three of ours", () => {
    expect(WAYS.map((way) => value(way, "seed, transactions"))).toEqual([9, 3, 3, 3]);
    expect(value("forwarder", "seed, gas of the permit")).toBeGreaterThan(21_000);
    expect(value("ours", "seed, gas of the permit")).toBeNaN();
    const goal = report.goals.find(({ goal }) => goal.startsWith("gas of the seed example"));
    expect(goal?.measured).toBe(value("ours", "seed, gas") / value("forwarder", "seed, gas"));
  });

  test.each(WAYS)("%s: the parts of a lease's gas add up to the receipts', both ways", (way) => {
    const whole = value(way, "2 leases, gas_per_lease");
    const parts = PARTS.map((part) => value(way, `2 leases, gas_per_lease for ${part}`));
    expect(parts.reduce((sum, gas) => sum + gas, 0)).toBeCloseTo(whole, 6);
    const purposes = ["fund", "close"].map((purpose) => value(way, `2 leases, gas_per_lease to ${purpose}`));
    expect(purposes.reduce((sum, gas) => sum + gas, 0)).toBeCloseTo(whole, 6);
  });

  test("a job is a share of its lease, and stands beside a payment of its own as a ratio", () => {
    for (const way of WAYS)
      expect(value(way, "2 leases, gas_per_job")).toBeCloseTo(value(way, "2 leases, gas_per_lease") / 3, 6);
    const row = report.rows.find(
      ({ variant, metric, ratio_to }) =>
        variant === "ours" && metric === "2 leases, gas_per_job" && ratio_to === "exact",
    );
    expect(row?.ratio).toBe(value("ours", "2 leases, gas_per_job") / value("exact", "2 leases, gas_per_job"));
  });

  test("every variant pays for its data on L1", () => {
    for (const way of WAYS) expect(value(way, "2 leases, l1_fee_wei_per_lease")).toBeGreaterThan(0);
    expect(value("exact", "2 leases, l1_fee_wei_per_job")).toBeGreaterThan(0);
  });
});

describe("what the bench rests on", () => {
  let ledger: Ledger;
  let place: ForwarderPlace;

  beforeAll(async () => {
    ledger = await openLedger();
    place = await deployForwarder(ledger);
  }, 60_000);
  afterAll(() => ledger.chain.close());

  const life = { leases: 1, owners: 1, topUp: false };

  test("money that does not arrive where it is due stops the bench", async () => {
    const lazy = { ...ours(ledger, 500), finish: async () => [] };
    await expect(live(ledger, lazy, life, async () => null)).rejects.toThrow(/^ours: 0x.* holds 1, not /);
  });

  test("a life leaves the books as they were, so that all start alike", async () => {
    const way = forwarder(ledger, place, false);
    const gas = () => live(ledger, way, life, async (sent) => sent.map((each) => each.gas));
    const [first, second] = [await gas(), await gas()];
    expect(await ledger.balanceOf(consumer.address)).toBe(0n);
    // Times and signatures differ by some bytes of calldata; a slot that is not new any more differs by 17,100.
    for (const [n, once] of first.entries())
      expect(Math.abs(once - (second[n] ?? 0)), `transaction ${n}`).toBeLessThan(1_000);
  });

  test("a trace that is read wrongly is noticed, and a call nobody told of too", async () => {
    const { chain } = ledger;
    await live(ledger, ours(ledger, 500), life, async ([funding]) => {
      if (funding === undefined) throw new Error("nothing was sent");
      const layers = () => ["escrow", "token"] as const;
      const parts = await partsOf(chain.url, funding, layers);
      expect(parts.relaying).toBe(0);
      // One recovery is the token's, so the escrow has none.
      expect(parts.signatures).toBe(0);
      expect(parts.slots).toBeGreaterThanOrEqual(22_100);
      await expect(partsOf(chain.url, { ...funding, gas: funding.gas + 1 }, layers)).rejects.toThrow(
        "its receipt says",
      );
      await expect(partsOf(chain.url, funding, () => ["escrow"])).rejects.toThrow("deeper than it should");
    });
  });

  test("a transaction that reverts stops the bench", async () => {
    await expect(ledger.send("fund", ledger.chain.escrow, "0xdeadbeef")).rejects.toThrow("reverted");
  });
});
