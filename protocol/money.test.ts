import fc from "fast-check";
import { expect, it } from "vitest";
import { z } from "zod";
import { Uint64 } from "./eip712.ts";
import { Amount, accrued, formatAmount, MAX_AMOUNT, parseAmount } from "./money.ts";

it.each(["free", "", "-1", "+1", "01", "1.5", "1e3", " 1", "0x10", 1, null])(
  "refuses %j as an amount or a rate, and does not throw",
  (value) => {
    expect(Amount.safeParse(value).success).toBe(false);
    expect(Uint64.safeParse(value).success).toBe(false);
  },
);

it("takes amounts up to uint88 and none above", () => {
  expect(Amount.parse(MAX_AMOUNT.toString())).toBe(MAX_AMOUNT);
  expect(Amount.safeParse((MAX_AMOUNT + 1n).toString()).success).toBe(false);
});

it.each([
  [0n, "0.00"],
  [1n, "0.000001"],
  [50_000n, "0.05"],
  [1_500_000n, "1.50"],
  [12_345_678n, "12.345678"],
])("writes %s as %s for people, and reads it back", (amount, text) => {
  expect(formatAmount(amount)).toBe(text);
  expect(parseAmount(text)).toBe(amount);
});

it.each(["", ".5", "1.", "-1", "1.2345678", "1,5", "1e3"])("reads no amount in %j", (text) => {
  expect(parseAmount(text)).toBeNull();
});

it("comes back the same from the wire and from people", () => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: 0n, max: MAX_AMOUNT }),
      fc.integer({ min: 2, max: 18 }),
      (amount, decimals) => {
        expect(Amount.parse(z.encode(Amount, amount))).toBe(amount);
        const whole = amount / 10n ** BigInt(decimals);
        if (whole < 10n ** 20n) expect(parseAmount(formatAmount(amount, decimals), decimals)).toBe(amount);
      },
    ),
  );
});

it("refuses to write what no party can owe", () => {
  expect(z.safeEncode(Amount, -1n).success).toBe(false);
  expect(z.safeEncode(Amount, MAX_AMOUNT + 1n).success).toBe(false);
});

it("MTR-1 prices split over any number of jobs add up to the price of their time, and never round up", () => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: 0n, max: 10n ** 15n }),
      fc.array(fc.integer({ min: 0, max: 3_600_000 }), { maxLength: 30 }),
      (rate, jobs) => {
        let ms = 0;
        let spent = 0n;
        for (const job of jobs) {
          const price = accrued(rate, ms + job) - spent;
          ms += job;
          spent += price;
          expect(price).toBeGreaterThanOrEqual(0n);
          expect(price * 3_600_000n).toBeLessThan(rate * BigInt(job) + 3_600_000n);
        }
        expect(spent * 3_600_000n).toBeLessThanOrEqual(rate * BigInt(ms));
        expect((spent + 1n) * 3_600_000n).toBeGreaterThan(rate * BigInt(ms));
      },
    ),
  );
});
