import { performance } from "node:perf_hooks";
import { setTimeout as wait } from "node:timers/promises";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { Bytes32 } from "@gpux/protocol/ids";
import { backoff } from "../link/backoff.ts";
import type { Log } from "../log.ts";
import { uncovered } from "./allowance.ts";
import type { Chain, ChainLease } from "./chain.ts";

/** The owner's RPC may be this far behind the one that saw the funding land. */
const NOT_YET_MS = 60_000;
/** What the chain said counts for so long; then the next job has it read again, without waiting for it. */
const FRESH_MS = 60_000;
/** A top-up may be one block away. */
const TOP_UP_READS = 4;
const TOP_UP_PAUSE_MS = 1_000;

/** What the agent knows of a lease's money, from the chain and from nobody else. */
export interface Funding {
  /** Null once the lease is open and funded; else why this provider will not work for it. Waits out a failing RPC. */
  verified(): Promise<string | null>;
  /** Null when a job up to `committed` can be paid. */
  covers(terms: LeaseTerms, allowed: bigint, committed: bigint): Promise<string | null>;
}

/** `signal` ends every wait; then the promises reject with its reason. */
export function createFunding(chain: Chain, leaseId: Bytes32, log: Log, signal: AbortSignal): Funding {
  let known: { lease: ChainLease; at: number } | null = null;
  let verifying: Promise<string | null> | null = null;
  let refreshing = false;

  const read = async (): Promise<ChainLease> => {
    for (let failures = 1; ; failures += 1) {
      signal.throwIfAborted();
      try {
        const lease = await chain.lease(leaseId);
        known = { lease, at: performance.now() };
        return lease;
      } catch (error) {
        const text = error instanceof Error ? (error.message.split("\n", 1)[0] ?? "") : String(error);
        // The first says it; after that silence until it works again.
        if (failures === 1)
          log({ level: "warn", event: "rpc.failed", text: `the chain cannot be read: ${text}` });
        await wait(Math.min(10_000, backoff(failures, Math.random())), undefined, { signal });
      }
    }
  };

  const verify = async (): Promise<string | null> => {
    const since = performance.now();
    for (;;) {
      const lease = await read();
      if (lease.status === "open" && lease.funded > 0n) return null;
      if (lease.status !== "open" && lease.status !== "none") return `on chain the lease is ${lease.status}`;
      if (performance.now() - since > NOT_YET_MS) return "on chain the lease is not funded";
      await wait(500, undefined, { signal });
    }
  };

  const refresh = () => {
    if (refreshing) return;
    refreshing = true;
    const done = () => {
      refreshing = false;
    };
    // It fails only when the lease is left.
    read().then(done, done);
  };

  return {
    verified() {
      verifying ??= verify();
      return verifying;
    },
    async covers(terms, allowed, committed) {
      for (let reads = 0; ; reads += 1) {
        const lease = known?.lease ?? (await read());
        if (known !== null && performance.now() - known.at > FRESH_MS) refresh();
        if (lease.status !== "open") return `on chain the lease is ${lease.status}`;
        const missing = uncovered(terms, allowed, lease.funded, committed);
        // Only money can still come; an allowance comes with its job or not at all.
        if (missing === null || committed <= lease.funded || reads >= TOP_UP_READS) return missing;
        await wait(TOP_UP_PAUSE_MS, undefined, { signal });
        await read();
      }
    },
  };
}
