/**
 * Holding costs others: who holds cards and does not pay for them may do so only for so long (SPEC QTE-5). Counted in
 * GPU-seconds of holds that were not funded; one a second is forgotten.
 */

/** Free for everybody: one GPU-hour, which comes back within the hour. */
export const FREE_GPU_S = 3_600;
/** What each USDC of the asker's escrow credit adds. */
const GPU_S_PER_USDC = 3_600n;
const USDC = 1_000_000n;

/** `gpuS` as it was at `at` (ms). */
export interface Holding {
  readonly gpuS: number;
  readonly at: number;
}

export const NOTHING_HELD: Holding = { gpuS: 0, at: 0 };

/** GPU-seconds that count now. */
export function heldAt({ gpuS, at }: Holding, now: number): number {
  return Math.max(0, gpuS - Math.max(0, now - at) / 1_000);
}

/** `credit` in base units. */
export function holdLimit(credit: bigint): number {
  return FREE_GPU_S + Number((credit * GPU_S_PER_USDC) / USDC);
}

/** Takes `gpuS` more, or says in how many seconds there will be room for it; never: `null`. */
export function takeHold(
  holding: Holding,
  gpuS: number,
  limit: number,
  now: number,
):
  | { readonly ok: true; readonly next: Holding }
  | { readonly ok: false; readonly retryAfterS: number | null } {
  const held = heldAt(holding, now);
  if (held + gpuS <= limit) return { ok: true, next: { gpuS: held + gpuS, at: now } };
  return { ok: false, retryAfterS: gpuS > limit ? null : Math.ceil(held + gpuS - limit) };
}

/** What was not held after all, or is paid for now. */
export function giveBackHold(holding: Holding, gpuS: number, now: number): Holding {
  return { gpuS: Math.max(0, heldAt(holding, now) - gpuS), at: now };
}
