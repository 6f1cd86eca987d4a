import { Address } from "@gpux/protocol/ids";
import type { Confirmation, IntentKind } from "@gpux/protocol/intent";
import { z } from "zod";

/**
 * How the relayer spends: the variable `POLICY` of workers/relayer/wrangler.toml, one object, where every field may be
 * left out and an unknown one is an error. What a field left out means is what a local chain wants; docs/operate.md
 * says what to set on Optimism. Wei and token base units are decimal strings, times milliseconds.
 */
const wei = (fallback: string) =>
  z
    .string()
    .regex(/^[0-9]{1,30}$/)
    .default(fallback)
    .transform(BigInt);
const count = (fallback: number, max: number) => z.int().min(0).max(max).default(fallback);
const TEN_MINUTES = 600_000;
const DAY = 86_400_000;

export const Policy = z.strictObject({
  /** How long a funding waits at most for others that are being judged right now; alone it never waits. */
  fundWindowMs: count(2_000, 2_000),
  settleWindowMs: count(0, TEN_MINUTES),
  closeWindowMs: count(0, TEN_MINUTES),
  withdrawWindowMs: count(200, DAY),
  /** What moves at least so much waits for nobody. */
  urgentValue: wei("20000000"),
  batchEntries: z.int().min(1).max(20).default(20),
  /** Of one transaction, by the static bounds. */
  batchGas: z.int().min(1_000_000).max(30_000_000).default(6_000_000),
  multicall: Address.default("0xca11bde05977b3631167028862be2a173976ca11"),
  /** Transactions of one key that have not landed: nodes keep 16 of an account for sure. */
  inFlight: z.int().min(1).max(16).default(16),
  replaceAfterMs: count(6_000, TEN_MINUTES),
  replaceAfterBlocks: count(3, 100),
  /** Wei per gas; above it nothing is signed, and at it a stuck nonce is given up. */
  feeCap: wei("20000000000"),
  /** The most wei that one intent may cost. */
  costCap: wei("5000000000000000"),
  /** Of the value that an intent moves, the most that it may cost, in basis points; 0: not asked. */
  costShareBps: count(0, 10_000),
  /** Token base units for 1 ETH, to compare cost and value. Only policy hangs on it, so roughly is enough. */
  etherPrice: wei("4000000000"),
  /** Per account and key of ours, for intents that strangers bring (`relay`). */
  ratePerMinute: count(60, 100_000),
  gasPerDay: count(20_000_000, 10_000_000_000),
  /** Intents of strangers that a key of ours looks at, all accounts together: each costs the nodes a few calls. */
  looksPerMinute: count(600, 1_000_000),
  /** Wei; a key below it raises the alarm. */
  lowBalance: wei("5000000000000000"),
  /** Token base units: up to here inclusion is enough, up to there `confirmBlocks`, above `safe`. */
  includedUpTo: wei("5000000"),
  blocksUpTo: wei("50000000"),
  confirmBlocks: count(5, 1_000),
  /** Blocks that must lie on top besides the chain's own `safe` and `finalized`. */
  safeDepth: count(0, 10_000),
  finalizedDepth: count(0, 10_000),
  /** A held voucher lands by itself once so much is unsettled, in token base units. */
  holdValue: wei("5000000"),
  /** How often the chain is asked for exits while vouchers are held. */
  watchEveryMs: z.int().min(100).max(TEN_MINUTES).default(15_000),
  /** Also logs what goes as it should, a line each step. */
  logRoutine: z.boolean().default(false),
  rpcTimeoutMs: z.int().min(100).max(30_000).default(5_000),
});
export type Policy = z.output<typeof Policy>;

export function windowOf(policy: Policy, kind: IntentKind): number {
  switch (kind) {
    case "settle":
      return policy.settleWindowMs;
    case "close":
      return policy.closeWindowMs;
    case "withdraw":
      return policy.withdrawWindowMs;
    case "fund":
    case "deposit":
    case "allocate":
    case "exit":
    case "reclaim":
    case "release":
    case "reclaim_credit":
    case "revoke_meter":
      return 0;
  }
}

const order: readonly Confirmation[] = ["included", "confirmed", "safe", "finalized"];

/** Whether `has` is at least as hard as `needs`. */
export function isEnough(has: Confirmation, needs: Confirmation): boolean {
  return order.indexOf(has) >= order.indexOf(needs);
}

/** How hard the funding of `value` token base units has to be before work worth as much is done for it. */
export function confirmationFor(policy: Policy, value: bigint): Confirmation {
  if (value <= policy.includedUpTo) return "included";
  return value <= policy.blocksUpTo ? "confirmed" : "safe";
}

/** The most wei that an intent moving `value` may cost; `value` null where it moves none or nobody asked. */
export function budgetFor(policy: Policy, value: bigint | null): bigint {
  if (policy.costShareBps === 0 || value === null || policy.etherPrice === 0n) return policy.costCap;
  const share = (value * BigInt(policy.costShareBps) * 10n ** 18n) / (10_000n * policy.etherPrice);
  return share < policy.costCap ? share : policy.costCap;
}
