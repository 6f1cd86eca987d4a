import { z } from "zod";

/**
 * Money is counted in base units of the settlement token (USDC: 1 unit = 0.000001 USDC).
 * In code it is a bigint, on every wire and in SQL a decimal string; a float never touches it.
 */
const decimal = /^(0|[1-9][0-9]{0,26})$/;

/** The contract packs amounts into uint88; nothing larger can ever be owed. */
export const MAX_AMOUNT = (1n << 88n) - 1n;

/** Wire form `"1500000"`, decoded to `1500000n`. Refuses signs, leading zeros, exponents, and above uint88. */
export const Amount = z.codec(
  z
    .string()
    // Aborts, because the next check would throw on what is no number.
    .regex(decimal, { error: "a decimal string of token base units", abort: true })
    .refine((text) => BigInt(text) <= MAX_AMOUNT, "at most 2^88 - 1"),
  z.bigint(),
  { decode: (text) => BigInt(text), encode: (amount) => amount.toString() },
);

const MS_PER_HOUR = 3_600_000n;

/**
 * What `ms` of use cost at `ratePerHour`, rounded down. A job's price is the difference of two of these
 * over the lease's cumulative time, so that rounding never adds up, however many jobs a lease has. `gpus`: how many
 * the rate is for when `ms` are those of one; jobs that run side by side then cost together what the rate says.
 */
export function accrued(ratePerHour: bigint, ms: number, gpus = 1): bigint {
  return (ratePerHour * BigInt(ms)) / (MS_PER_HOUR * BigInt(gpus));
}

/** The inverse of {@link accrued}: the longest time that costs at most `amount`, in milliseconds. */
export function affordedMs(ratePerHour: bigint, amount: bigint, gpus = 1): number {
  if (ratePerHour === 0n) return Number.MAX_SAFE_INTEGER;
  const ms = ((amount + 1n) * MS_PER_HOUR * BigInt(gpus) - 1n) / ratePerHour;
  return ms > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(ms);
}

/** For people: `1500000n` is `"1.50"` at 6 decimals; keeps every digit that is not zero, and at least two. */
export function formatAmount(amount: bigint, decimals = 6): string {
  const digits = amount.toString().padStart(decimals + 1, "0");
  const fraction = digits.slice(-decimals).replace(/0+$/, "").padEnd(2, "0");
  return `${digits.slice(0, -decimals)}.${fraction}`;
}

/** The inverse of {@link formatAmount}, for command lines and config; `null` when the text is no amount. */
export function parseAmount(text: string, decimals = 6): bigint | null {
  const match = /^([0-9]{1,20})(?:\.([0-9]+))?$/.exec(text);
  const whole = match?.[1];
  const fraction = match?.[2] ?? "";
  if (whole === undefined || fraction.length > decimals) return null;
  const amount = BigInt(whole + fraction.padEnd(decimals, "0"));
  return amount <= MAX_AMOUNT ? amount : null;
}
