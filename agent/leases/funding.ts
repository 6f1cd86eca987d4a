import { performance } from "node:perf_hooks";
import { setTimeout as wait } from "node:timers/promises";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { Bytes32 } from "@gpux/protocol/ids";
import { backoff } from "../link/backoff.ts";
import type { Log } from "../log.ts";
import { uncovered } from "./allowance.ts";
import type { Chain, ChainLease, ChainView } from "./chain.ts";

/** The owner's RPC may be this far behind the one that saw the funding land. */
const NOT_YET_MS = 60_000;
/** Blocks become safe within minutes; while L1 cannot be reached, later. */
const NOT_SAFE_YET_MS = 30 * 60_000;
/** What the chain said counts for so long; then the next job has it read again, without waiting for it. */
const FRESH_MS = 60_000;
/** A top-up may be one block away. */
const TOP_UP_READS = 4;
const TOP_UP_PAUSE_MS = 1_000;

/** What the agent knows of a lease's money, from the chain and from nobody else. */
export interface Funding {
  /** Null once the lease is open and funded; else why this provider will not work for it. Waits out a failing RPC. */
  verified(): Promise<string | null>;
  /** What the escrow held when it was last read; null before. */
  funded(): bigint | null;
  /** Null when a job up to `committed` can be paid. */
  covers(terms: LeaseTerms, allowed: bigint, committed: bigint): Promise<string | null>;
}

export interface FundingOptions {
  readonly chain: Chain;
  readonly leaseId: Bytes32;
  /** Base units: a lease funded with more is worked for only once its funding is in a safe block. */
  readonly safeAbove: bigint;
  readonly log: Log;
  /** Ends every wait; then the promises reject with its reason. */
  readonly signal: AbortSignal;
}

export function createFunding({ chain, leaseId, safeAbove, log, signal }: FundingOptions): Funding {
  let known: { lease: ChainLease; at: number } | null = null;
  let verifying: Promise<string | null> | null = null;
  let refreshing = false;

  const read = async (view: ChainView = "latest"): Promise<ChainLease> => {
    for (let failures = 1; ; failures += 1) {
      signal.throwIfAborted();
      try {
        const lease = await chain.lease(leaseId, view);
        if (view === "latest") known = { lease, at: performance.now() };
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

  const opened = async (
    view: ChainView,
    withinMs: number,
  ): Promise<{ refusal: string } | { refusal: null; funded: bigint }> => {
    const since = performance.now();
    for (;;) {
      const { status, funded } = await read(view);
      if (status === "open" && funded > 0n) return { refusal: null, funded };
      if (status !== "open" && status !== "none") return { refusal: `on chain the lease is ${status}` };
      if (performance.now() - since > withinMs)
        return { refusal: `on chain the lease is not funded${view === "safe" ? " in a safe block" : ""}` };
      await wait(500, undefined, { signal });
    }
  };

  const verify = async (): Promise<string | null> => {
    const landed = await opened("latest", NOT_YET_MS);
    if (landed.refusal !== null || landed.funded <= safeAbove) return landed.refusal;
    return (await opened("safe", NOT_SAFE_YET_MS)).refusal;
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
    funded: () => known?.lease.funded ?? null,
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
