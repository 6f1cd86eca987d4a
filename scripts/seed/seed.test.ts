import { describe, expect, it } from "vitest";
import { DEPOSIT, FEE_BPS, NODES, TOP_UP, USED } from "./scenario.ts";
import { type Run, runSeed } from "./seed.ts";

describe("the seed example", { timeout: 120_000 }, () => {
  it("pays and refunds the same to the base unit in nine transactions and in three, and three cost less gas", async () => {
    const nine = await runSeed("nine");
    const three = await runSeed("three");
    expect([nine.steps.length, three.steps.length]).toEqual([9, 3]);
    expect(three.balances).toEqual(nine.balances);

    const fee = (USED * BigInt(FEE_BPS)) / 10_000n;
    const refund = DEPOSIT + TOP_UP - USED;
    const paidIn = BigInt(NODES) * (DEPOSIT + TOP_UP);
    expect(nine.balances).toEqual({
      consumer: 100_000_000n - paidIn + BigInt(NODES) * refund,
      "node 1": USED - fee,
      "node 2": USED - fee,
      "node 3": USED - fee,
      "fee recipient": BigInt(NODES) * fee,
      escrow: 0n,
    });
    const gas = (run: Run) => run.steps.reduce((sum, step) => sum + step.gas, 0n);
    expect(gas(three)).toBeLessThan(gas(nine));
    expect(three.steps.every((step) => step.l1Fee > 0n)).toBe(true);
  });
});
