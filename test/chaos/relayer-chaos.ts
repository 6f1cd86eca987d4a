import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { parseArgs } from "node:util";
import type { AttachedDevnet } from "@gpux/contracts/devnet-client";
import { Address } from "@gpux/protocol/ids";
import { IntentAnswer, RelayedTransaction } from "@gpux/protocol/intent";
import { parseEther } from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { z } from "zod";
import { audit } from "./audit.ts";
import { startChain } from "./chain-process.ts";
import { startFaultyNode } from "./faulty-node.ts";
import { KillableRelayer } from "./killable-relayer.ts";
import { postMortem } from "./post-mortem.ts";
import { ChaosStalled, Progress, type WatchOptions, watched } from "./progress.ts";
import { reorganise } from "./reorganisations.ts";
import { FUNDED, type SignedLease, signLease, type Wire } from "./signed-lease.ts";

/**
 * Drives leases through the relayer, from funding to the last payout, while its node fails, the chain reorganises and
 * its workerd is killed; then holds the chain to every base unit and every wei.
 */
export interface ChaosOptions extends WatchOptions {
  readonly leases: number;
  readonly kills: number;
  /** Chooses the faults, their times and the depths; what falls between them is the machine's. */
  readonly seed: number;
  /** A block every so often; 0: one for each transaction, and no mempool. */
  readonly blockMs: number;
  /** Ends it early and cleans up. */
  readonly signal?: AbortSignal;
}

export interface ChaosReport {
  readonly leases: number;
  readonly kills: number;
  readonly seed: number;
  readonly blockMs: number;
  readonly reorgs: number;
  readonly deepest: number;
  readonly faults: Readonly<Record<string, number>>;
  /** What the relayer refused meanwhile, by code: what rests on a funding that was taken back, for one. */
  readonly refusals: Readonly<Record<string, number>>;
  readonly intents: number;
  readonly transactions: number;
  readonly wei: string;
  readonly seconds: number;
}

const ENDOWMENT = parseEther("10");
const POLICY = {
  // Deeper than any reorganisation here, also where a block slips in while it is made.
  safeDepth: 14,
  finalizedDepth: 16,
  // The oracle compresses what it prices inside the EVM, which the local chain does in a second for a full batch.
  rpcTimeoutMs: 3_000,
  replaceAfterMs: 1_500,
  settleWindowMs: 50,
  closeWindowMs: 50,
};
/** Calls at the same time while everything hardens. */
const ASKERS = 16;

/** mulberry32: small, seeded, good enough to choose faults. */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** A part that ends because the run is over has not failed. */
const untilStopped = (part: Promise<void>, signal: AbortSignal) =>
  part.catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });

interface Run {
  readonly options: ChaosOptions;
  readonly signal: AbortSignal;
  readonly chain: AttachedDevnet;
  readonly relayer: KillableRelayer;
  readonly random: () => number;
  readonly progress: Progress;
}

async function ask({ relayer, progress: { refusals } }: Run, wire: Wire): Promise<IntentAnswer> {
  const answer = IntentAnswer.parse(await relayer.call("submit", wire));
  if (answer.status === "rejected") refusals.set(answer.code, (refusals.get(answer.code) ?? 0) + 1);
  return answer;
}

/** Lands every stage of every lease while reorganisations come, one at least, and the relayer is killed. */
async function drive(run: Run, leases: readonly SignedLease[]): Promise<void> {
  const { options, signal, relayer, random, progress } = run;
  const driven = new AbortController();
  const stop = AbortSignal.any([signal, driven.signal]);
  const land = async (wire: Wire) => {
    while ((await ask(run, wire)).status !== "done") await pause(50, undefined, { signal });
    progress.intents += 1;
  };
  const driving = leases.map(async ({ stages }) => {
    for (const stage of stages) await Promise.all(stage.map(land));
    progress.leases += 1;
  });
  // Spread over the run: a relayer that dies before it has done anything is soon only that.
  const total = leases.flatMap(({ stages }) => stages.flat()).length;
  const killing = (async () => {
    while (progress.kills < options.kills) {
      const due = Math.floor((progress.kills * total) / (options.kills + 1));
      while (progress.intents < due) await pause(50, undefined, { signal });
      await pause(500 + random() * 2_000, undefined, { signal });
      await relayer.restart();
      progress.kills += 1;
    }
  })();
  const reorganised = (async () => {
    while (progress.reorgs.count === 0) await pause(50, undefined, { signal });
  })();
  const reorganising = untilStopped(reorganise(run.chain, random, progress.reorgs, stop), stop);
  const end = Promise.all([...driving, killing, reorganised]).finally(() => driven.abort());
  await Promise.all([end, reorganising]);
}

/** Asks until the outcome of each is final, with an honest node and no more reorganisations. */
async function harden(run: Run, wires: readonly Wire[]): Promise<void> {
  const waiting = new Set(wires);
  const asker = async (round: Wire[]) => {
    for (let wire = round.pop(); wire !== undefined; wire = round.pop()) {
      const answer = await ask(run, wire);
      if (answer.status === "done" && answer.confirmation === "finalized") waiting.delete(wire);
    }
  };
  while (waiting.size > 0) {
    // Where nothing else makes blocks, nothing would be final without those on top.
    await run.chain.mine(2);
    const round = [...waiting].reverse();
    await Promise.all(Array.from({ length: ASKERS }, () => asker(round)));
    run.progress.final = wires.length - waiting.size;
    await pause(500, undefined, { signal: run.signal });
  }
}

async function recordOf(relayer: KillableRelayer): Promise<RelayedTransaction[]> {
  const all = new Map<string, RelayedTransaction>();
  for (let since = 0; ; ) {
    const page = z.array(RelayedTransaction).parse(await relayer.call("transactions", since));
    for (const each of page) all.set(each.hash, each);
    const last = page.at(-1);
    if (last === undefined || last.blockNumber === since || page.length < 1_000) return [...all.values()];
    since = last.blockNumber;
  }
}

/** @throws ChaosStalled with what is stuck; another error where a base unit, an event or a wei is not as it must be. */
export async function runChaos(options: ChaosOptions): Promise<ChaosReport> {
  const began = Date.now();
  const over = new AbortController();
  const signal = AbortSignal.any([over.signal, ...(options.signal === undefined ? [] : [options.signal])]);
  const random = randomOf(options.seed);
  const progress = new Progress(options);
  const storage = await mkdtemp(join(tmpdir(), "gpux-relayer-chaos-"));
  const cleanups: (() => Promise<void> | void)[] = [];
  const work = async (): Promise<ChaosReport> => {
    const { chain, close } = await startChain(options.blockMs);
    cleanups.push(close);
    const node = await startFaultyNode(chain.url, random);
    cleanups.push(() => node.close());
    const secrets = [generatePrivateKey(), generatePrivateKey()];
    const keys = secrets.map((key) => Address.parse(privateKeyToAccount(key).address));
    await Promise.all(keys.map((key) => chain.fundEth(key, ENDOWMENT)));
    const leases = await Promise.all(Array.from({ length: options.leases }, () => signLease(chain)));
    // Before any snapshot: what a reorganisation takes away of the test's own nobody brings back.
    for (let n = 0; n < leases.length; n += 50) {
      signal.throwIfAborted();
      await Promise.all(leases.slice(n, n + 50).map(({ terms }) => chain.mint(terms.payer, FUNDED)));
    }
    const bindings = {
      CHAIN_ID: String(chain.chainId),
      ESCROW: chain.escrow,
      RPC_URLS: node.url,
      RELAYER_KEYS: secrets.join(),
      POLICY,
    };
    const relayer = new KillableRelayer(storage, bindings, signal);
    cleanups.push(() => relayer.kill());
    await relayer.ready();
    const run: Run = { options, signal, chain, relayer, random, progress };
    const wires = leases.flatMap(({ stages }) => stages.flat());
    try {
      await watched(progress, "driving", options, signal, () => drive(run, leases));
      node.heal();
      await watched(progress, "hardening", options, signal, () => harden(run, wires));
    } catch (error) {
      if (!(error instanceof ChaosStalled)) throw error;
      relayer.kill();
      throw new ChaosStalled(`${error.message}\n${await postMortem(storage, chain.url)}`);
    }
    const record = await recordOf(relayer);
    const wei = await audit(chain, leases, keys, ENDOWMENT * BigInt(keys.length), record);
    return {
      leases: leases.length,
      kills: progress.kills,
      seed: options.seed,
      blockMs: options.blockMs,
      reorgs: progress.reorgs.count,
      deepest: progress.reorgs.deepest,
      faults: Object.fromEntries(node.faults),
      refusals: Object.fromEntries(progress.refusals),
      intents: wires.length,
      transactions: record.length,
      wei: wei.toString(),
      seconds: Math.round((Date.now() - began) / 1000),
    };
  };
  try {
    const report = await work();
    await rm(storage, { recursive: true, force: true });
    return report;
  } catch (error) {
    if (signal.aborted) await rm(storage, { recursive: true, force: true });
    else options.say?.(`the relayer's tables and log are kept in ${storage}`);
    throw error;
  } finally {
    over.abort();
    for (const clean of cleanups.toReversed()) await clean();
  }
}

const USAGE = `usage: npm run chaos:relayer -- [--leases N] [--kills N] [--seed N] [--block-ms N] [--stall-s N] [--timeout-s N]

  --leases N     leases to drive from funding to the last payout (200)
  --kills N      times that the relayer's workerd is killed (20)
  --seed N       chooses the faults, their times and the depths of reorganisations (random)
  --block-ms N   a block every N milliseconds; 0: one for each transaction, and no mempool (250)
  --stall-s N    fail when nothing gets on for so many seconds (180)
  --timeout-s N  fail after so many seconds of driving, or of hardening (3600)`;

function readOptions(): ChaosOptions | null {
  const text = (value: number) => ({ type: "string" as const, default: String(value) });
  const { values } = parseArgs({
    options: {
      leases: text(200),
      kills: text(20),
      seed: text(Date.now() % 1_000_000),
      "block-ms": text(250),
      "stall-s": text(180),
      "timeout-s": text(3_600),
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return null;
  const number = (name: Exclude<keyof typeof values, "help">) => {
    if (!/^[0-9]{1,9}$/.test(values[name])) throw new TypeError(`--${name} ${values[name]} is not a number`);
    return Number(values[name]);
  };
  return {
    leases: number("leases"),
    kills: number("kills"),
    seed: number("seed"),
    blockMs: number("block-ms"),
    stallSeconds: number("stall-s"),
    timeoutSeconds: number("timeout-s"),
  };
}

async function main(): Promise<void> {
  let options: ChaosOptions | null;
  try {
    options = readOptions();
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n\n${USAGE}`);
    process.exitCode = 2;
    return;
  }
  if (options === null) return console.log(USAGE);
  const stop = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, () => stop.abort());
  const say = (line: string) => console.error(line);
  say(
    `${options.leases} leases, ${options.kills} kills, seed ${options.seed}, blocks every ${options.blockMs} ms`,
  );
  try {
    console.log(JSON.stringify(await runChaos({ ...options, say, signal: stop.signal }), null, 2));
  } catch (error) {
    if (!stop.signal.aborted) console.error(error instanceof ChaosStalled ? error.message : error);
    process.exitCode = stop.signal.aborted ? 130 : 1;
  }
}

if (import.meta.main) await main();
