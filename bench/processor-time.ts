import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as wait } from "node:timers/promises";

/**
 * Microseconds that a process with its threads and living children has spent on a processor, from Linux's scheduler
 * (Documentation/scheduler/sched-stats.rst); null where there is no such account. Wall time grows with every
 * neighbour on the machine, this hardly.
 */
export function processorUs(pid: number): number | null {
  try {
    let ns = 0;
    let children = 0;
    for (const task of readdirSync(`/proc/${pid}/task`)) {
      ns += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, "utf8").split(" ", 1)[0]);
      for (const child of childrenOf(pid, task)) children += processorUs(child) ?? 0;
    }
    return ns / 1_000 + children;
  } catch {
    return null;
  }
}

/** Those that a thread has started; none where the kernel does not list them (proc(5), CONFIG_PROC_CHILDREN). */
function childrenOf(pid: number, task: string): number[] {
  try {
    const listed = readFileSync(`/proc/${pid}/task/${task}/children`, "utf8");
    return listed.split(" ").filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

const LOOK_MS = 100;
/** Below this share of one processor a process is at rest: heartbeats and timers. */
const REST = 0.05;
const LONGEST_MS = 10_000;

/**
 * Waits until the processes rest, so that work which they do after they have answered (receipts, vouchers, commits)
 * is counted to the jobs that caused it and slows nobody else's section. At most 10 s.
 */
export async function atRest(pids: readonly number[]): Promise<void> {
  const spent = () => pids.reduce((sum, pid) => sum + (processorUs(pid) ?? 0), 0);
  const until = performance.now() + LONGEST_MS;
  for (let before = spent(); performance.now() < until; ) {
    const since = performance.now();
    await wait(LOOK_MS);
    const now = spent();
    if (now - before < (performance.now() - since) * 1_000 * REST) return;
    before = now;
  }
}
