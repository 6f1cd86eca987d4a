import { setTimeout as pause } from "node:timers/promises";
import type { AttachedDevnet } from "@gpux/contracts/devnet-client";
import { createPublicClient, http } from "viem";

export const REORG_MAX = 10;

export interface Reorganisations {
  count: number;
  /** Blocks that the deepest one replaced. */
  deepest: number;
}

/**
 * Replaces the last one to ten blocks again and again until told to stop, and counts into `seen`. Where the chain makes
 * too few blocks by itself, strangers make the rest.
 */
export async function reorganise(
  chain: AttachedDevnet,
  random: () => number,
  seen: Reorganisations,
  stop: AbortSignal,
): Promise<void> {
  const client = createPublicClient({ transport: http(chain.url), cacheTime: 0 });
  const wait = (ms: number) => pause(ms, undefined, { signal: stop });
  while (!stop.aborted) {
    // Optimism has not had one in years; here they come every few seconds, so that something lands between them.
    await wait(2_000 + random() * 4_000);
    const from = await chain.snapshot();
    const depth = 1 + Math.floor(random() * REORG_MAX);
    const above = async () => Number((await client.getBlockNumber()) - from.blockNumber);
    await wait(depth * 200);
    while ((await above()) < depth) await chain.mine();
    const height = await above();
    if (height > REORG_MAX) continue;
    await chain.reorg(from);
    seen.count += 1;
    seen.deepest = Math.max(seen.deepest, height);
  }
}
