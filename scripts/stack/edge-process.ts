import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { tiedToUs } from "./agent-process.ts";
import { type Edge, type EdgeOptions, startEdge } from "./edge.ts";

/**
 * The edge in a process of its own, so that tests can kill it like a power cut. As a program (`node edge-process.ts
 * OPTIONS`) it runs the edge and says when it is ready.
 */

const Ready = z.strictObject({ url: z.string(), workerdPid: z.int() });

export interface EdgeProcess extends Edge {
  /** kill -9 of workerd first, then of its parent: nothing gets to flush or say goodbye. */
  kill(): Promise<void>;
}

export async function startEdgeProcess(options: EdgeOptions): Promise<EdgeProcess> {
  const [command = process.execPath, ...args] = [
    ...tiedToUs(),
    process.execPath,
    fileURLToPath(import.meta.url),
    JSON.stringify(options),
  ];
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const ready = Ready.parse(JSON.parse(await firstLine(child)));
  return {
    ...ready,
    async stop() {
      child.kill("SIGTERM");
      await ended;
    },
    async kill() {
      process.kill(ready.workerdPid, "SIGKILL");
      child.kill("SIGKILL");
      await ended;
    },
  };
}

async function firstLine(child: ChildProcess): Promise<string> {
  if (child.stdout === null) throw new Error("the edge's output is not piped");
  for await (const line of createInterface({ input: child.stdout })) return line;
  throw new Error("the edge ended before it was ready");
}

if (import.meta.main) {
  const options: EdgeOptions = JSON.parse(process.argv[2] ?? "{}");
  const edge = await startEdge(options);
  console.log(JSON.stringify({ url: edge.url, workerdPid: edge.workerdPid }));
  process.once("SIGTERM", () => void edge.stop().then(() => process.exit(0)));
}
