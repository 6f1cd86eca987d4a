import { readFile, rename, rm, writeFile } from "node:fs/promises";
import { setTimeout as wait } from "node:timers/promises";
import { z } from "zod";
import { type AgentStatus, readStatus, type StatePaths } from "./state-dir.ts";

/**
 * How `gpux-agent drain` speaks to the agent that runs on its folder: a signal carries no number, and the agent listens
 * on nothing. The deadline lies in a file, SIGTERM says to read it.
 */

/** As the edge takes it: a day. */
export const LONGEST_DRAIN_S = 86_400;

const DrainRequest = z.strictObject({ deadline_s: z.int().min(0).max(LONGEST_DRAIN_S) });

const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600 };

/** From `90`, `90s`, `10m` or `2h` to seconds; null for anything else, or more than a day. */
export function parseDeadline(text: string): number | null {
  const [, digits, unit = "s"] = /^(\d{1,6})([smh]?)$/.exec(text) ?? [];
  const seconds = Number(digits) * (UNITS[unit === "" ? "s" : unit] ?? Number.NaN);
  return seconds <= LONGEST_DRAIN_S ? seconds : null;
}

/** Null when no agent runs on this folder; else its status as it was asked. */
export async function requestDrain(paths: StatePaths, deadlineS: number): Promise<AgentStatus | null> {
  const status = await readStatus(paths);
  if (status === null || status.state === "stopped") return null;
  await writeFile(`${paths.drain}.new`, JSON.stringify({ deadline_s: deadlineS }), { mode: 0o600 });
  await rename(`${paths.drain}.new`, paths.drain);
  // A second SIGTERM would cut short a drain that is under way.
  if (status.state !== "draining") process.kill(status.pid, "SIGTERM");
  return status;
}

/** The deadline that was asked for, once; null when nobody did. */
export async function takeDrainRequest(paths: StatePaths): Promise<number | null> {
  const text = await readFile(paths.drain, "utf8").catch(() => null);
  await rm(paths.drain, { force: true });
  if (text === null) return null;
  const parsed = DrainRequest.safeParse(parseJson(text));
  return parsed.success ? parsed.data.deadline_s : null;
}

/** Tells each change of the agent's status until it has left, or until `signal`. */
export async function followDrain(
  paths: StatePaths,
  onChange: (status: AgentStatus) => void,
  signal: AbortSignal,
): Promise<void> {
  let told = "";
  for (;;) {
    const status = await readStatus(paths);
    if (status === null || status.state === "stopped") return;
    const what = JSON.stringify([status.state, status.leases]);
    if (what !== told && status.state === "draining") onChange(status);
    told = what;
    await wait(LOOK_EVERY_MS, undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return;
  }
}

const LOOK_EVERY_MS = 300;

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
