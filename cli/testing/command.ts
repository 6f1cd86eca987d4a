import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

export interface Finished {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

const BIN = fileURLToPath(new URL("../bin.ts", import.meta.url));

/** Starts `gpux` as a process of its own, with nothing of this one's environment but PATH. */
export function startCommand(
  args: readonly string[],
  environment: Record<string, string>,
): { child: ChildProcess; said(text: string): Promise<void>; finished: Promise<Finished> } {
  const env = { PATH: process.env.PATH ?? "", ...environment };
  const child = spawn(process.execPath, [BIN, ...args], { env, stdio: ["ignore", "pipe", "pipe"] });
  let out = "";
  let err = "";
  const waiting = new Set<() => void>();
  child.stdout.on("data", (chunk: Buffer) => {
    out += chunk.toString();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    err += chunk.toString();
    for (const check of waiting) check();
  });
  const finished = new Promise<Finished>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, out, err }));
  });
  const said = (text: string) =>
    new Promise<void>((resolve, reject) => {
      const check = () => {
        if (!err.includes(text)) return;
        waiting.delete(check);
        resolve();
      };
      waiting.add(check);
      check();
      void finished.then(() => reject(new Error(`it ended without saying "${text}":\n${err}`)));
    });
  return { child, said, finished };
}

export function runCommand(args: readonly string[], environment: Record<string, string>): Promise<Finished> {
  return startCommand(args, environment).finished;
}
