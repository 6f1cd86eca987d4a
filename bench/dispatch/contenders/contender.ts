import { accessSync, constants } from "node:fs";
import { connect as connectTcp } from "node:net";
import { delimiter, join } from "node:path";
import { z } from "zod";
import { type Child, cameUp } from "../../child.ts";
import type { Loaded } from "../../load/closed-loop.ts";
import type { HttpLoad } from "../../load/http.ts";
import type { StreamLoad } from "../../load/stream.ts";
import type { BenchMarket } from "../market.ts";

/** One way to get a job done, as the bench measures it: named, started, and then asked for sections of work. */
export interface Contender {
  readonly name: string;
  /** What a request crosses, in a line. */
  readonly about: string;
  /** Started once, before the first round. */
  start(stage: Stage): Promise<Started | Lacking>;
}

/** A program that this machine does not have, and how Debian has it. */
export interface Lacking {
  readonly lacks: string;
}

export interface Started {
  /** All processes whose work a job is. */
  readonly processes: readonly Child[];
  /** What belongs to a job and is done up to so long after its answer; 0 by default. */
  readonly settledMs?: number;
  /** How many connections it can be asked for; any number by default. */
  readonly most?: number;
  /** Jobs of one turn; 1 by default. */
  readonly jobsPerTurn?: number;
  /** Of a turn's answer, where it is a matter of bytes rather than of jobs. */
  readonly bytesPerTurn?: number;
  /** It says that a job is taken when that is on disk: then it is known how many syncs of a file one takes. */
  readonly durable?: boolean;
  /** Readies what is to be done, such as signatures, and resolves with what does it. */
  prepare(shape: Shape): Promise<Section>;
}

/** Does turns until `ms` are over or what was prepared is spent. */
export type Section = (ms: number) => Promise<Loaded>;

export interface Shape {
  /** Used at once. */
  readonly connections: number;
  /** The most turns that any of them may need. */
  readonly turns: number;
  /** Over how many leases they are spread, where there are leases; as many as connections by default. */
  readonly leases?: number;
}

/** What all contenders of one run share. What is started on it is stopped at the run's end, the newest first. */
export interface Stage {
  readonly folder: string;
  /** For what is asked over HTTP. */
  load(load: HttpLoad): Promise<Loaded>;
  /** For large answers. */
  stream(load: StreamLoad): Promise<Loaded>;
  /** The whole GPUX, brought up for the first who asks for it. */
  market(): Promise<BenchMarket>;
  owned<T extends { stop(): Promise<void> }>(started: T): T;
}

const UP_MS = 10_000;
const Serving = z.strictObject({ port: z.int() });

/** What one of our programs says when it serves: its port, 0 where it has none. */
export async function servingPort(child: Child): Promise<number> {
  return Serving.parse(await child.next()).port;
}

/** Waits until a program takes TCP connections on a port of 127.0.0.1. */
export function listensOn(child: Child, port: number): Promise<void> {
  return cameUp(child, () => accepts(port), UP_MS);
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connectTcp({ port, host: "127.0.0.1" });
    const end = (accepted: boolean) => {
      socket.destroy();
      resolve(accepted);
    };
    socket.once("connect", () => end(true));
    socket.once("error", () => end(false));
  });
}

/** Where a program lies, or null. */
export function onPath(program: string): string | null {
  // Debian keeps servers in sbin, which is not on everybody's PATH.
  const folders = [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin", "/usr/local/sbin"];
  for (const folder of folders) {
    const file = join(folder, program);
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // not here
    }
  }
  return null;
}

/** What a contender answers that needs a program which is not here. */
export function lacking(program: string, debianPackage: string): Lacking {
  return { lacks: `there is no ${program} on the PATH (Debian: apt-get install ${debianPackage})` };
}
