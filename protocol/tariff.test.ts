import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { charged, mostStart, mostUpfront, paidMs, startPriceOf, upfrontOf } from "./tariff.ts";

const tariff = { ratePerHour: 3_600_000n, gpus: 1, start: 5_000n };

describe("MTR-12 a start price", () => {
  test("is charged once, with the first millisecond", () => {
    expect([0, 1, 2, 1_000].map((ms) => charged(tariff, ms))).toEqual([0n, 5_001n, 5_002n, 6_000n]);
    expect(charged({ ...tariff, start: 0n }, 1_000)).toBe(1_000n);
  });

  test("has to be paid for before any time is", () => {
    expect([0n, 4_999n, 5_000n, 5_001n, 6_000n].map((amount) => paidMs(tariff, amount))).toEqual([
      0, 0, 0, 1, 1_000,
    ]);
  });

  test("is nothing in a text that says nothing of it", () => {
    expect([undefined, {}, { start_price: "5000" }].map(startPriceOf)).toEqual([0n, 0n, 5_000n]);
  });

  const amounts = fc.bigInt(0n, 10n ** 12n);
  const tariffs = fc
    .record({
      gpuHour: amounts,
      share: fc.integer({ min: 0, max: 100 }),
      gpus: fc.integer({ min: 1, max: 8 }),
    })
    .map(({ gpuHour, share, gpus }) => ({
      ratePerHour: gpuHour * BigInt(gpus),
      gpus,
      start: (mostStart({ gpu_hour: gpuHour }) * BigInt(share)) / 100n,
    }));

  test("never falls, and what an amount pays for costs no more than that, and a millisecond more would", () => {
    fc.assert(
      fc.property(tariffs, amounts, fc.integer({ min: 0, max: 10 ** 9 }), (of, amount, ms) => {
        expect(charged(of, ms + 1)).toBeGreaterThanOrEqual(charged(of, ms));
        const paid = paidMs(of, amount);
        expect(charged(of, paid) <= amount).toBe(true);
        if (paid < Number.MAX_SAFE_INTEGER) expect(charged(of, paid + 1) > amount).toBe(true);
      }),
    );
  });

  test("is within what the contract lets any pair have, from the first moment on, however many GPUs work at once", () => {
    fc.assert(
      fc.property(tariffs, fc.integer({ min: 0, max: 10 ** 9 }), (of, elapsed) => {
        const upfront = upfrontOf(of.ratePerHour, of.start);
        expect(upfront).toBeLessThanOrEqual(mostUpfront(of.ratePerHour));
        const cap = upfront + (of.ratePerHour * BigInt(elapsed)) / 3_600_000n;
        expect(charged(of, elapsed * of.gpus)).toBeLessThanOrEqual(cap);
      }),
    );
  });
});
