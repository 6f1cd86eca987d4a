import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { tiedToUs } from "../../scripts/stack/agent-process.ts";
import type { Child } from "../child.ts";
import { onPath } from "./contenders/contender.ts";

/** Why they cannot be counted here. */
export const SYNCS_MISSING = "there is no strace on the PATH (Debian: apt-get install strace)";

const CALLS = "fsync,fdatasync,sync_file_range,syncfs";
/** A line of strace's summary: % time, seconds, usecs/call, calls, errors (or none), name. */
const SUMMARY = /^ *[0-9.]+ +[0-9.]+ +[0-9]+ +([0-9]+) +(?:[0-9]+ +)?[a-z_]+$/gm;

/** Counts how often processes have files written to disk; null where there is no strace. */
export async function countSyncs(
  folder: string,
  processes: readonly Child[],
): Promise<{ stop(): Promise<number[]> } | null> {
  const strace = onPath("strace");
  if (strace === null) return null;
  const tracers = await Promise.all(processes.map(({ name, pid }) => trace(strace, folder, name, pid)));
  return { stop: () => Promise.all(tracers.map((stop) => stop())) };
}

/** Resolves when all threads of the process are traced, with what ends that and tells the number. */
async function trace(
  strace: string,
  folder: string,
  name: string,
  pid: number,
): Promise<() => Promise<number>> {
  const summary = join(folder, `${name}.syncs`);
  const [program = strace, ...args] = [
    ...tiedToUs(),
    ...[strace, "-f", "-c", "-e", `trace=${CALLS}`, "-o", summary, "-p", `${pid}`],
  ];
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"] });
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  let said = "";
  await new Promise<void>((resolve, reject) => {
    child.once("error", reject);
    child.stderr.on("data", (chunk: Buffer) => {
      said += chunk;
      if (said.includes("attached")) resolve();
    });
    ended.then(() => reject(new Error(`strace of ${name} ended: ${said.trim()}`)));
  });
  return async () => {
    // It then lets go of the process and writes its summary.
    child.kill("SIGINT");
    await ended;
    const text = await readFile(summary, "utf8");
    return [...text.matchAll(SUMMARY)]
      .filter(([line]) => !line.endsWith(" total"))
      .reduce((sum, [, calls]) => sum + Number(calls), 0);
  };
}
