import { type ChildProcess, type Serializable, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { tiedToUs } from "../scripts/stack/agent-process.ts";

/** A process that a bench started; its output lies in `NAME.log` of the bench's folder. */
export interface Child {
  readonly name: string;
  readonly pid: number;
  /** Sends one message and resolves with the next one that comes back. Only for our own programs. */
  ask(message: Serializable): Promise<unknown>;
  /** The next message. Rejects with the end of its log when it ends first. */
  next(): Promise<unknown>;
  /** Rejects when the process ends before `stop`. */
  readonly failed: Promise<never>;
  /** SIGKILL: workerd with open sockets ends at nothing less, and nobody's data matters after a bench. */
  stop(): Promise<void>;
}

const alive = new Set<ChildProcess>();

// Also where the system cannot tie a child's life to ours, an orderly exit leaves nothing behind.
process.once("exit", () => {
  for (const child of alive) child.kill("SIGKILL");
});

/** Starts any program. On Linux it dies with us, however we go. */
export function startProgram(name: string, folder: string, command: readonly string[]): Child {
  return start(name, folder, command, false);
}

/** Starts one of our own TypeScript programs, with a channel for messages. */
export function startOurs(name: string, folder: string, file: URL, args: readonly string[] = []): Child {
  return start(name, folder, [process.execPath, file.pathname, ...args], true);
}

function start(name: string, folder: string, command: readonly string[], channel: boolean): Child {
  const logFile = join(folder, `${name}.log`);
  const log = openSync(logFile, "a");
  const [program = process.execPath, ...args] = [...tiedToUs(), ...command];
  const child = spawn(program, args, {
    stdio: channel ? ["ignore", log, log, "ipc"] : ["ignore", log, log],
    serialization: "advanced",
    env: { ...process.env, NO_COLOR: "1" },
  });
  closeSync(log);
  alive.add(child);
  let stopping = false;
  const ended = new Promise<void>((resolve) => {
    child.once("error", () => resolve());
    child.once("exit", () => resolve());
  });
  const failed = ended.then(() => {
    alive.delete(child);
    if (stopping) return new Promise<never>(() => {});
    const lines = readFileSync(logFile, "utf8").trim().split("\n").slice(-15).join("\n");
    throw new Error(`${name} ended; its log ends with:\n${lines}`);
  });
  // Who waits for it hears of it; an end that nobody waits for shows in what fails next.
  failed.catch(() => {});
  const next = () => Promise.race([failed, message(child)]);
  return {
    name,
    pid: child.pid ?? -1,
    failed,
    next,
    ask(question) {
      const answer = next();
      child.send(question);
      return answer;
    },
    async stop() {
      stopping = true;
      child.kill("SIGKILL");
      await ended;
    },
  };
}

/** Asks every 50 ms until it is so. @throws when the program ends first, or after `ms`. */
export async function cameUp(child: Child, isUp: () => Promise<boolean>, ms: number): Promise<void> {
  const over = new AbortController();
  const up = async () => {
    const until = Date.now() + ms;
    while (!(await isUp())) {
      if (Date.now() > until) throw new Error(`${child.name} is not up after ${ms / 1_000} s`);
      await wait(50, undefined, { signal: over.signal });
    }
  };
  try {
    await Promise.race([child.failed, up()]);
  } finally {
    over.abort();
  }
}

function message(child: ChildProcess): Promise<unknown> {
  return new Promise((resolve) => child.once("message", resolve));
}
