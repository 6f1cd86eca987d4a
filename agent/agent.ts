import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Share } from "@gpux/protocol/capacity";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import { Address, LeaseId } from "@gpux/protocol/ids";
import { createHasher } from "@gpux/protocol/typed-data-encoder";
import { type PrivateKeyAccount, privateKeyToAccount } from "viem/accounts";
import type { AgentConfig } from "./config.ts";
import type { House } from "./control/admission.ts";
import { createControl } from "./control/control.ts";
import { enterHold, HoldEntry, type Holds, rememberedHolds } from "./control/holds.ts";
import type { Executor, FunctionJob } from "./executors/executor.ts";
import { type AgentEnd, AgentStartError, END_CODES, END_TEXTS, EXIT } from "./exit.ts";
import { takeInventory } from "./hardware/inventory.ts";
import { type Journal, openJournal } from "./journal.ts";
import { openKeystore } from "./keystore.ts";
import { type Book, BookEntry, newBook, readBook } from "./leases/book.ts";
import { createChain } from "./leases/chain.ts";
import { createPreparation } from "./leases/job.ts";
import { type ServedLease, serveLease } from "./leases/lease.ts";
import { createObjects } from "./leases/objects.ts";
import { createSlots } from "./leases/slots.ts";
import { clearAside } from "./leases/vouchers.ts";
import type { Workshop } from "./leases/workshop.ts";
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
}

export interface RunningAgent {
  readonly address: Address;
  /** Resolves once, when the agent has ended by itself or by `stop` or `kill`. Never rejects. */
  readonly ended: Promise<AgentEnd>;
  /** Drains: no more holds, running jobs may end within `drain_s`, what is unacknowledged is flushed. */
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
  if (typeof key === "string") return privateKeyToAccount(key);
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
  const credentials = { account, chainId: config.chain_id };
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
    gpu,
    log,
  };

  const leases = new Map<LeaseId, ServedLease>();
  let ending: Promise<void> | null = null;
  const ended = Promise.withResolvers<AgentEnd>();
  /** Cuts a drain short. */
  const hurry = Promise.withResolvers<void>();

  await mkdir(paths.leases, { recursive: true, mode: 0o700 });
  const heldJournal = await openJournal(paths.holds, HoldEntry);
  const holds = rememberedHolds(heldJournal.entries.reduce<Holds>(enterHold, new Map()), Date.now());
  const control = createControl({
    house,
    credentials,
    holds,
    journal: heldJournal.journal,
    leases: {
      list: () => [...leases.values()],
      open: openLease,
      forget: forgetLease,
    },
    log,
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
      leases: [...leases.values()].map((lease) => ({ id: lease.id, executing: lease.executing() })),
      jobs_ended: jobsEnded,
      detail,
      updated_at: new Date().toISOString(),
    }));
  }

  function serve(id: LeaseId, book: Book, journal: Journal<BookEntry>): void {
    const lease = serveLease({
      workshop,
      id,
      book,
      journal,
      onEnd: (end) => {
        if (end.reason === "stopped") return;
        void forgetLease(id, `its socket was closed: ${end.detail}`, end.reason === "gone").catch(onFault);
      },
      onFault,
      onChange: (what) => {
        if (what === "ended") jobsEnded += 1;
        publish(published, "");
      },
    });
    leases.set(id, lease);
    lease.start();
    publish(published, "");
  }

  function openBook(id: LeaseId) {
    return openJournal(join(paths.leases, `${id}.jsonl`), BookEntry);
  }

  async function openLease(id: LeaseId, terms: LeaseTerms, share: Share, refusal: string | null) {
    if (leases.has(id) || ending !== null) return;
    const opened = await openBook(id);
    const known = readBook(opened.entries);
    if (known === null)
      opened.journal.append({ is: "lease", terms, ...share, gpus: [...share.gpus], refusal });
    await opened.journal.sync();
    log({ level: "info", event: "lease.opened", text: `${id} is ours to serve` });
    serve(id, known ?? newBook(terms, share, refusal), opened.journal);
  }

  /** `over`: the edge said that the lease has ended; else its journal stays for a later start. */
  async function forgetLease(id: LeaseId, why: string, over = true): Promise<void> {
    const lease = leases.get(id);
    if (lease === undefined) return;
    leases.delete(id);
    await (over ? lease.forget() : lease.stop());
    log({ level: over ? "info" : "error", event: over ? "lease.over" : "lease.lost", text: `${id}: ${why}` });
    publish(published, "");
  }

  async function takeUp(): Promise<void> {
    for (const name of await readdir(paths.leases)) {
      const id = LeaseId.safeParse(name.replace(/\.jsonl$/, ""));
      if (!id.success) continue;
      const opened = await openBook(id.data);
      if (opened.cutBytes > 0)
        log({
          level: "warn",
          event: "journal.cut",
          text: `${id.data}: ${opened.cutBytes} torn bytes dropped`,
        });
      const book = readBook(opened.entries);
      // It was being created when the agent died, and nobody was told of it.
      if (book === null) await opened.journal.remove();
      else serve(id.data, book, opened.journal);
    }
  }

  async function leave(): Promise<void> {
    control.stop();
    // Stopped first: what the closing executor breaks off must not count as the job's end.
    const stopped = [...leases.values()].map((lease) => lease.stop());
    await executor.close();
    await Promise.all(stopped);
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

  async function drain(): Promise<void> {
    const busy = [...leases.values()].reduce((sum, lease) => sum + lease.executing(), 0);
    log({
      level: "info",
      event: "draining",
      text:
        busy === 0 ? "no job runs; stopping" : `waiting up to ${config.drain_s} s for ${busy} running job(s)`,
    });
    publish("draining", "");
    await Promise.all([
      control.drain(config.drain_s),
      ...[...leases.values()].map((lease) => lease.drain(config.drain_s * 1_000)),
    ]);
  }

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
  await takeUp();
  clearAside(paths, place, workshop.chain).catch(onFault);
  control.start();
  return {
    address,
    ended: ended.promise,
    stop: () => finish(EXIT.stopped, "The agent stopped.", drain),
    kill() {
      hurry.resolve();
      return finish(EXIT.forced, "The agent was killed.");
    },
  };
}
