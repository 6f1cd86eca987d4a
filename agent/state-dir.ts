import { mkdir, open, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Verdict } from "@gpux/protocol/challenge/verdict";
import { z } from "zod";

/** Where the agent keeps what it owns; everything in it is readable by its owner alone. */
export interface StatePaths {
  readonly folder: string;
  readonly config: string;
  readonly keystore: string;
  readonly holds: string;
  readonly leases: string;
  /** Vouchers of leases that the edge calls over and the chain does not. */
  readonly vouchers: string;
  readonly cache: string;
  readonly status: string;
  readonly lock: string;
  /** What `gpux-agent drain` asks of the agent that runs. */
  readonly drain: string;
  /** How many GPUs the owner uses for himself. */
  readonly claim: string;
}

export function statePaths(folder: string): StatePaths {
  return {
    folder,
    config: join(folder, "config.json"),
    keystore: join(folder, "keystore.json"),
    holds: join(folder, "holds.jsonl"),
    leases: join(folder, "leases"),
    vouchers: join(folder, "vouchers"),
    cache: join(folder, "cache"),
    status: join(folder, "status.json"),
    lock: join(folder, "agent.pid"),
    drain: join(folder, "drain.json"),
    claim: join(folder, "claim.json"),
  };
}

export type Lock = { ok: true; release(): Promise<void> } | { ok: false; pid: number };

/**
 * Takes the folder for this process: two agents on one journal would tear it. A lock whose process is gone (kill -9,
 * power loss) is taken over.
 */
export async function lockState(paths: StatePaths): Promise<Lock> {
  await mkdir(paths.folder, { recursive: true, mode: 0o700 });
  for (;;) {
    try {
      const file = await open(paths.lock, "wx", 0o600);
      await file.writeFile(`${process.pid}\n`);
      await file.close();
      return { ok: true, release: () => rm(paths.lock, { force: true }) };
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
    }
    const holder = Number((await readFile(paths.lock, "utf8").catch(() => "")).trim());
    if (isAlive(holder)) return { ok: false, pid: holder };
    await rm(paths.lock, { force: true });
  }
}

export function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // It runs, but is another user's.
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

/** What `gpux-agent status` reads. The agent listens on nothing, so it leaves a file. */
export const AgentStatus = z.strictObject({
  pid: z.int(),
  address: z.string(),
  state: z.enum(["connecting", "online", "draining", "stopped"]),
  edge: z.string(),
  gpu: z.string(),
  leases: z.array(z.strictObject({ id: z.string(), executing: z.int() })),
  /** Leases without work, whose resources others may have. */
  resting: z.int().default(0),
  /** GPUs that the owner uses for himself. */
  claimed: z.int().default(0),
  jobs_ended: z.int(),
  /** What the edge's last challenge has shown of the GPU, since this start; null before there was one. */
  verdict: Verdict.nullable().default(null),
  detail: z.string(),
  updated_at: z.iso.datetime(),
});
export type AgentStatus = z.infer<typeof AgentStatus>;

/** Where the running agent writes its status, at most once in this time: a busy lease must not wear the disk. */
const STATUS_EVERY_MS = 500;

export interface StatusBoard {
  /** The newest wins; `status` is asked when it is written. */
  publish(status: () => AgentStatus): void;
  /** Writes what is left. */
  close(): Promise<void>;
}

export function createStatusBoard(paths: StatePaths): StatusBoard {
  let latest: (() => AgentStatus) | null = null;
  let timer: NodeJS.Timeout | null = null;
  let writing: Promise<void> = Promise.resolve();
  const write = (): Promise<void> => {
    timer = null;
    const status = latest;
    latest = null;
    if (status === null) return writing;
    const text = `${JSON.stringify(status(), null, 2)}\n`;
    // The file is for the owner's eyes: that it cannot be written must not end the work, and it needs no fsync.
    writing = writing
      .then(() => writeFile(`${paths.status}.new`, text, { mode: 0o600 }))
      .then(() => rename(`${paths.status}.new`, paths.status))
      .catch(() => {});
    return writing;
  };
  return {
    publish(status) {
      latest = status;
      timer ??= setTimeout(write, STATUS_EVERY_MS);
    },
    close() {
      if (timer !== null) clearTimeout(timer);
      return write();
    },
  };
}

/** Null when no agent has run on this folder. A process that is gone leaves `stopped`, whatever it last wrote. */
export async function readStatus(paths: StatePaths): Promise<AgentStatus | null> {
  const text = await readFile(paths.status, "utf8").catch(() => null);
  if (text === null) return null;
  const parsed = AgentStatus.safeParse(JSON.parse(text));
  if (!parsed.success) return null;
  return isAlive(parsed.data.pid) ? parsed.data : { ...parsed.data, state: "stopped", leases: [] };
}
