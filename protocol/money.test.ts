import { expect, it } from "vitest";
import { Uint64 } from "./eip712.ts";
import { Amount, formatAmount, MAX_AMOUNT, parseAmount } from "./money.ts";

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
