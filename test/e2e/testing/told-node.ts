import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { AgentConfigText } from "@gpux/agent/config";
import { tiedToUs } from "../../../scripts/stack/agent-process.ts";
import { until } from "./market.ts";
import type { Order, Setup } from "./told-agent.ts";
import type { Sight } from "./told-executor.ts";

/** A node whose agent is a process of its own and whose jobs end when they are told to. */
export interface ToldNode {
  readonly address: string;
  /** All that its executors saw, over every life of the agent. */
  readonly sights: readonly Sight[];
  /** Starts the agent on the node's state, and waits until the market shows it. */
  start(): Promise<void>;
  tell(order: Order): void;
  /** kill -9. */
  kill(): Promise<void>;
  /** Resolves with the exit code, null after a kill. */
  ended(): Promise<number | null>;
}

export function toldNode(place: {
  readonly address: string;
  readonly key: `0x${string}`;
  readonly folder: string;
  readonly config: AgentConfigText;
}): ToldNode {
  const sights: Sight[] = [];
  let child: ChildProcess | null = null;
  let ended: Promise<number | null> = Promise.resolve(null);
  mkdirSync(place.folder, { recursive: true });
  const logFile = join(place.folder, "output.log");

  return {
    address: place.address,
    sights,
    async start() {
      const log = openSync(logFile, "a");
      const program = fileURLToPath(new URL("./told-agent.ts", import.meta.url));
      const [command = process.execPath, ...args] = [...tiedToUs(), process.execPath, program];
      const started = spawn(command, args, { stdio: ["ignore", log, log, "ipc"] });
      ended = new Promise((resolve) => started.once("exit", resolve));
      started.on("message", (sight: Sight) => sights.push(sight));
      const setup: Setup = { key: place.key, stateDir: join(place.folder, "state"), config: place.config };
      started.send(setup);
      child = started;
      await until(async () => {
        if (started.exitCode !== null) throw new Error(`the agent ended:\n${readFileSync(logFile, "utf8")}`);
        const node = await fetch(`${place.config.edge}/v1/nodes/${place.address}`).catch(() => null);
        return node?.ok === true && /"status":\s*"online"/.test(await node.text());
      }, `${place.address} is online`);
    },
    tell(order) {
      child?.send(order);
    },
    async kill() {
      child?.kill("SIGKILL");
      await ended;
    },
    ended: () => ended,
  };
}
