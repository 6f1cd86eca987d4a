import { Address } from "@gpux/protocol/ids";
import { keyAccount } from "@gpux/protocol/key-account";
import { createHasher } from "@gpux/protocol/typed-data-encoder";
import type { PrivateKeyAccount } from "viem/accounts";
import type { AgentConfig } from "./config.ts";
import type { House } from "./control/admission.ts";
import { createChallenges } from "./control/challenges.ts";
import { createControl } from "./control/control.ts";
import { enterHold, HoldEntry, type Holds, rememberedHolds } from "./control/holds.ts";
import type { Executor, FunctionJob } from "./executors/executor.ts";
import { type AgentEnd, AgentStartError, END_CODES, END_TEXTS, EXIT } from "./exit.ts";
import { takeInventory } from "./hardware/inventory.ts";
import { openJournal } from "./journal.ts";
import { openKeystore } from "./keystore.ts";
import { createChain } from "./leases/chain.ts";
import { createExposure } from "./leases/exposure.ts";
import { createPreparation } from "./leases/job.ts";
import { createObjects } from "./leases/objects.ts";
import { createRoster } from "./leases/roster.ts";
import { createSlots } from "./leases/slots.ts";
import { clearAside } from "./leases/vouchers.ts";
import type { Workshop } from "./leases/workshop.ts";
import { createEdgeClock } from "./link/edge-clock.ts";
import type { Log } from "./log.ts";
import { type AgentStatus, createStatusBoard, lockState, type StatePaths, statePaths } from "./state-dir.ts";

export interface AgentOptions {
  readonly config: AgentConfig;
  /** The node's key itself, or a keystore with its password. */
  readonly key: `0x${string}` | { readonly keystore: string; readonly password: string };
  readonly stateDir: string;
  readonly log: Log;
  /** Runs the functions; closed with the agent. */
  readonly executor: Executor<FunctionJob>;
  /** GPUs that the owner uses for himself; none when left out. */
  readonly claimed?: number;
}

export interface RunningAgent {
  readonly address: Address;
  /** Resolves once, when the agent has ended by itself or by `stop` or `kill`. Never rejects. */
  readonly ended: Promise<AgentEnd>;
  /**
   * Takes nothing new, lets running jobs end within so long, has each lease closed, and leaves. What still runs then is
   * broken off.
   */
  drain(deadlineS: number): Promise<void>;
  /** The owner uses so many GPUs for himself: yieldable leases give them back within the edge's notice. */
  claim(gpus: number): void;
  /** Drains for as long as the config says (`drain_s`). */
  stop(): Promise<void>;
  /** Leaves at once: running jobs are broken off, nothing is flushed. What the journals say is said at the next start. */
  kill(): Promise<void>;
}

/**
 * Starts the provider's program: locks the folder, probes the device, takes up the journals, dials. It dials only
 * outward and never listens.
 * @throws AgentStartError with the exit code, for what the owner has to mend; other errors are bugs or the disk.
 */
export async function startAgent(options: AgentOptions): Promise<RunningAgent> {
  const account = await accountOf(options.key);
  const paths = statePaths(options.stateDir);
  const lock = await lockState(paths);
  if (!lock.ok)
    throw new AgentStartError(EXIT.replaced, `The agent with process id ${lock.pid} uses ${paths.folder}.`);
  try {
    const description = await options.executor.describe().catch((error: unknown) => {
      const text = error instanceof Error ? error.message : String(error);
      throw new AgentStartError(EXIT.noDevice, `No GPU device works here: ${text}`);
    });
    if (options.config.simulated !== undefined && !description.software)
      throw new AgentStartError(
        EXIT.usage,
        "config.json simulates a machine, which is for the software device alone: start with --adapter software, or remove `simulated`.",
      );
    const offer = await takeInventory(description, options.config);
    return await run(options, account, paths, lock, offer);
  } catch (error) {
    await options.executor.close();
    await lock.release();
    throw error;
  }
}

async function accountOf(key: AgentOptions["key"]): Promise<PrivateKeyAccount> {
  if (typeof key === "string") return keyAccount(key);
  const opened = await openKeystore(key.keystore, key.password);
  if (opened.ok) return opened.account;
  const code = opened.code === "wrong_password" ? EXIT.forbidden : EXIT.usage;
  throw new AgentStartError(code, opened.detail);
}

async function run(
  options: AgentOptions,
  account: PrivateKeyAccount,
  paths: StatePaths,
  lock: { release(): Promise<void> },
  offer: House["offer"],
): Promise<RunningAgent> {
  const { config, executor, log } = options;
  const address = Address.parse(account.address);
  const place = { chainId: config.chain_id, escrow: config.escrow };
  const clock = createEdgeClock((aheadS) =>
    log({
      level: "warn",
      event: "clock",
      text: `this machine's clock is ${Math.abs(aheadS)} s ${aheadS < 0 ? "behind" : "ahead of"} the edge's: set it`,
      facts: { ahead_s: aheadS },
    }),
  );
  const credentials = { account, chainId: config.chain_id, clock };
  const gpu = offer.gpus[0]?.model ?? "UNKNOWN_GPU";
  const house: House = { config, offer, address, hasher: createHasher(place) };
  let jobsEnded = 0;
  const objects = createObjects(config.edge, credentials);
  const workshop: Workshop = {
    house,
    credentials,
    paths,
    chain: createChain({ rpc: config.rpc, ...place }),
    objects,
    prepare: createPreparation(objects, config.limits),
    executor,
    slots: createSlots(config.concurrency),
    exposure: createExposure(config.max_unsecured),
    gpu,
    log,
  };

  const roster = createRoster({
    workshop,
    onFault,
    onChange: (what) => {
      if (what === "ended") jobsEnded += 1;
      publish(published, "");
    },
  });
  let claimed = Math.min(options.claimed ?? 0, offer.gpus.length);
  let verdict: AgentStatus["verdict"] = null;
  let ending: Promise<void> | null = null;
  const ended = Promise.withResolvers<AgentEnd>();
  /** Cuts a drain short. */
  const hurry = Promise.withResolvers<void>();

  const heldJournal = await openJournal(paths.holds, HoldEntry);
  const holds = rememberedHolds(heldJournal.entries.reduce<Holds>(enterHold, new Map()), Date.now());
  const control = createControl({
    house,
    credentials,
    holds,
    journal: heldJournal.journal,
    leases: roster,
    challenges:
      config.simulated === undefined
        ? createChallenges({ executor, slots: workshop.slots, limits: config.limits }, () =>
            performance.now(),
          )
        : null,
    claimed,
    log,
    onVerdict: (seen) => {
      verdict = seen;
      publish(published, "");
    },
    onState: (state, detail) => {
      if (state.state === "up") publish("online", "");
      if (state.state === "waiting" && detail !== "") {
        log({ level: "warn", event: "offline", text: `lost the edge: ${detail}` });
        publish("connecting", detail);
      }
    },
    onEnd: (end) => {
      if (end.reason === "stopped") return;
      log({ level: "error", event: "ended", text: `${END_TEXTS[end.reason]} (${end.detail})` });
      void finish(END_CODES[end.reason], `${END_TEXTS[end.reason]} (${end.detail})`);
    },
    onFault,
  });

  function onFault(error: unknown): void {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    log({ level: "error", event: "fault", text });
    void finish(EXIT.failed, text);
  }

  let published: AgentStatus["state"] = "connecting";
  const board = createStatusBoard(paths);
  function publish(state: AgentStatus["state"], detail: string): void {
    published = state;
    board.publish(() => ({
      pid: process.pid,
      address,
      state,
      edge: config.edge,
      gpu,
      leases: roster.serving().map((lease) => ({ id: lease.id, executing: lease.executing() })),
      resting: roster.list().length - roster.serving().length,
      claimed,
      jobs_ended: jobsEnded,
      verdict,
      detail,
      updated_at: new Date().toISOString(),
    }));
  }

  async function leave(): Promise<void> {
    control.stop();
    // Stopped first: what the closing executor breaks off must not count as the job's end.
    const left = roster.leave();
    await executor.close();
    await left;
    await heldJournal.journal.close();
    publish("stopped", "");
    await board.close();
    await lock.release();
  }

  function finish(exitCode: number, detail: string, before?: () => Promise<void>): Promise<void> {
    ending ??= (async () => {
      await Promise.race([before?.(), hurry.promise]);
      await leave();
    })()
      .catch((error: unknown) => {
        log({
          level: "error",
          event: "fault",
          text: `while stopping: ${error instanceof Error ? error.message : error}`,
        });
      })
      .then(() => ended.resolve({ exitCode, detail }));
    return ending;
  }

  async function drain(deadlineS: number): Promise<void> {
    const busy = roster.serving().reduce((sum, lease) => sum + lease.executing(), 0);
    log({
      level: "info",
      event: "draining",
      text: busy === 0 ? "no job runs; stopping" : `waiting up to ${deadlineS} s for ${busy} running job(s)`,
    });
    publish("draining", `until ${new Date(Date.now() + deadlineS * 1_000).toISOString()} at the latest`);
    await Promise.all([control.drain(deadlineS), roster.drain(deadlineS)]);
  }

  const leaveBy = (deadlineS: number) => finish(EXIT.stopped, "The agent stopped.", () => drain(deadlineS));

  publish("connecting", "");
  log({
    level: "info",
    event: "started",
    text: `node ${address} with ${gpu}, paid to ${config.payout}, dials ${config.edge}`,
    facts: { address, gpu, payout: config.payout, edge: config.edge },
  });
  if (config.simulated !== undefined)
    log({
      level: "warn",
      event: "simulated",
      text: `offers a simulated machine: ${offer.gpus.length} GPUs, ${offer.cpu} cores, ${offer.memory_gb} GB`,
    });
  await roster.takeUp();
  clearAside(paths, place, workshop.chain).catch(onFault);
  control.start();
  return {
    address,
    ended: ended.promise,
    claim(gpus) {
      claimed = Math.min(gpus, offer.gpus.length);
      log({
        level: "info",
        event: "claimed",
        text: `${claimed} of ${offer.gpus.length} GPU(s) are the owner's`,
      });
      control.claim(claimed);
      publish(published, "");
    },
    drain: leaveBy,
    stop: () => leaveBy(config.drain_s),
    kill() {
      hurry.resolve();
      return finish(EXIT.forced, "The agent was killed.");
    },
  };
}
