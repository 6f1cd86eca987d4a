import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** A process as Linux knows it; the start time tells it from a later one that got the same number. */
export interface Process {
  readonly pid: number;
  readonly parent: number;
  /** Clock ticks since the machine came up. */
  readonly started: string;
  readonly command: string;
  readonly zombie: boolean;
}

/** Every process of the machine (proc_pid_stat(5)). Those that end meanwhile are left out. */
export function processes(): Process[] {
  return readdirSync("/proc")
    .filter((name) => /^[0-9]+$/.test(name))
    .flatMap((pid) => {
      // The command may hold blanks and brackets: its end is the last bracket of the line.
      const [, command = "", rest = ""] = /^[0-9]+ \((.*)\) (.*)$/s.exec(read(`/proc/${pid}/stat`)) ?? [];
      const fields = rest.trim().split(" ");
      const [state, parent] = fields;
      const started = fields[19];
      if (parent === undefined || started === undefined) return [];
      return [{ pid: Number(pid), parent: Number(parent), started, command, zombie: state === "Z" }];
    });
}

/** `pid` and all that came of it. */
export function familyOf(pid: number): Process[] {
  const all = processes();
  const family = all.filter((each) => each.pid === pid);
  for (const member of family) family.push(...all.filter((each) => each.parent === member.pid));
  return family;
}

/** Those that still run. A zombie does not: it only waits for its parent to look. */
export function running(which: readonly Process[]): Process[] {
  const now = processes();
  return which.filter((one) =>
    now.some((each) => each.pid === one.pid && each.started === one.started && !each.zombie),
  );
}

/** A socket over which somebody else could begin to talk to its owner. */
export interface OpenEar {
  readonly kind: "tcp" | "udp" | "unix";
  readonly address: string;
}

const TCP_LISTEN = "0A";
/** An unconnected UDP socket is in the state that TCP calls CLOSE; it takes datagrams from anyone. */
const UDP_UNCONNECTED = "07";
/** SO_ACCEPTCON in the flags of a unix socket. */
const ACCEPTS = 0x10000;

/** What a process listens on, of the sockets that it holds itself (proc_net(5), in its own network namespace). */
export function earsOf(pid: number): OpenEar[] {
  const held = new Set(
    readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      const inode = /^socket:\[([0-9]+)\]$/.exec(link(`/proc/${pid}/fd/${fd}`))?.[1];
      return inode === undefined ? [] : [inode];
    }),
  );
  const rows = (table: string) =>
    read(`/proc/${pid}/net/${table}`)
      .split("\n")
      .slice(1)
      .map((line) => line.trim().split(/\s+/));
  const internet = (kind: "tcp" | "udp", state: string) =>
    [kind, `${kind}6`].flatMap((table) =>
      rows(table).flatMap((row) =>
        row[3] === state && held.has(row[9] ?? "") ? [{ kind, address: row[1] ?? "" }] : [],
      ),
    );
  const unix = rows("unix").flatMap((row) =>
    held.has(row[6] ?? "") && (Number.parseInt(row[3] ?? "0", 16) & ACCEPTS) !== 0
      ? [{ kind: "unix" as const, address: row[7] ?? "" }]
      : [],
  );
  return [...internet("tcp", TCP_LISTEN), ...internet("udp", UDP_UNCONNECTED), ...unix];
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // the process is gone
  }
}

function link(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return ""; // the descriptor was closed while we looked
  }
}
