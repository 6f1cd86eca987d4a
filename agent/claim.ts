import { readFile, rename, writeFile } from "node:fs/promises";
import { z } from "zod";
import { readStatus, type StatePaths } from "./state-dir.ts";

/**
 * GPUs that the owner uses for himself, as `gpux-agent yield` leaves word of them: a file that holds over restarts, and
 * SIGUSR2 to an agent that runs (Node keeps SIGUSR1 for its debugger).
 */

const MOST = 64;
const Claim = z.strictObject({ gpus: z.int().min(0).max(MOST) });

/** All of them when nothing is said; null for what is no such number. */
export function parseClaim(text: string | undefined): number | null {
  if (text === undefined) return MOST;
  const gpus = /^\d{1,2}$/.test(text) ? Number(text) : 0;
  return gpus >= 1 && gpus <= MOST ? gpus : null;
}

/** None where nothing, or nothing readable, was written. */
export async function readClaim(paths: StatePaths): Promise<number> {
  const text = await readFile(paths.claim, "utf8").catch(() => null);
  if (text === null) return 0;
  try {
    return Claim.parse(JSON.parse(text)).gpus;
  } catch {
    // Torn or edited by hand: better to rent out what the owner did not clearly claim than to fail at start.
    return 0;
  }
}

/** Whether an agent runs that was told. */
export async function writeClaim(paths: StatePaths, gpus: number): Promise<boolean> {
  await writeFile(`${paths.claim}.new`, JSON.stringify({ gpus }), { mode: 0o600 });
  await rename(`${paths.claim}.new`, paths.claim);
  const status = await readStatus(paths);
  if (status === null || status.state === "stopped") return false;
  process.kill(status.pid, "SIGUSR2");
  return true;
}
