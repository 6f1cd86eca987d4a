import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const START = fileURLToPath(new URL("../../../scripts/start.ts", import.meta.url));

/** `npm start` without npm: what it said so far, and how it ended. */
export interface StartProcess {
  readonly child: ChildProcess;
  output(): string;
  /** Resolves when the text has come, rejects when the process ends without it. */
  said(text: string): Promise<void>;
  readonly ended: Promise<number | null>;
}

export interface StartOptions {
  /** Put before the command: a shell that stands for npm, a smaller set of rights. */
  readonly within?: readonly string[];
  readonly cwd?: string;
}

export function startProcess(args: readonly string[], { within = [], cwd = ROOT }: StartOptions = {}) {
  const [command = process.execPath, ...rest] = [...within, process.execPath, START, ...args];
  return follow(spawn(command, rest, { cwd, stdio: ["ignore", "pipe", "pipe"] }));
}

/** A line as a person pastes it into a terminal. */
export function shell(line: string): StartProcess {
  return follow(spawn("/bin/sh", ["-c", line], { cwd: "/", stdio: ["ignore", "pipe", "pipe"] }));
}

function follow(child: ChildProcess): StartProcess {
  let output = "";
  const waiting = new Set<() => void>();
  for (const stream of [child.stdout, child.stderr])
    stream?.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      for (const check of waiting) check();
    });
  // Of the process itself: what it left behind could keep its pipes open.
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => resolve(code));
  });
  return {
    child,
    output: () => output,
    ended,
    said: (text) =>
      new Promise((resolve, reject) => {
        const check = () => {
          if (!output.includes(text)) return;
          waiting.delete(check);
          resolve();
        };
        waiting.add(check);
        check();
        void ended.then(() => reject(new Error(`it ended without saying "${text}":\n${output}`)), reject);
      }),
  };
}
