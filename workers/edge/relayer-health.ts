import type { RelayerHealth, RelayerRpc } from "@gpux/protocol/intent";

/** Asked anew after so long: whoever looks, the nodes behind the relayer are not asked more often by one isolate. */
const FRESH_MS = 5_000;
/** A look at the health must not hang on what is unwell. */
const PATIENCE_MS = 2_000;

/** `unreachable`: the relayer's Worker did not answer, or not in time. */
const UNREACHABLE: RelayerHealth = { status: "down", reasons: ["unreachable"] };

/** Remembers the last answer; nothing of one request's I/O is shared with another. */
export function openRelayerHealth(patienceMs = PATIENCE_MS) {
  let last: { readonly at: number; readonly health: RelayerHealth } | null = null;
  return async (relayer: Pick<RelayerRpc, "health">, now: number): Promise<RelayerHealth> => {
    if (last !== null && now - last.at < FRESH_MS) return last.health;
    const { promise: patience, resolve } = Promise.withResolvers<RelayerHealth>();
    const timer = setTimeout(() => resolve(UNREACHABLE), patienceMs);
    const health = await Promise.race([relayer.health().catch(() => UNREACHABLE), patience]);
    clearTimeout(timer);
    last = { at: now, health };
    return health;
  };
}
