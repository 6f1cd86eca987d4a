import { readdirSync, readlinkSync } from "node:fs";

/** What each open descriptor of the process points to (proc_pid_fd(5)); sockets and pipes without their numbers. */
export function openFiles(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`).replace(/:\[[0-9]+\]$/, "")];
    } catch {
      return []; // it was closed while we looked
    }
  });
}
