import { startAgent } from "@gpux/agent/agent";
import type { AgentConfig } from "@gpux/agent/config";
import { humanLine, type Log } from "@gpux/agent/log";
import { createEchoExecutor } from "./echo.ts";

/**
 * Real agents in one process, each a node with its own key, sockets and journals: a node leases one GPU here, and a
 * lease runs one job per GPU at a time, so concurrency needs as many nodes. One process, as the servers that they are
 * measured against are one. Each message is a setup of more agents, answered when they have started.
 */
export interface AgentsSetup {
  readonly agents: readonly {
    readonly key: `0x${string}`;
    readonly stateDir: string;
    readonly config: AgentConfig;
  }[];
}

// As a provider runs it: a line per event, into a file.
const log: Log = (entry) => console.log(humanLine(entry, new Date(), false));

process.on("message", ({ agents }: AgentsSetup) => {
  Promise.all(agents.map((agent) => startAgent({ ...agent, log, executor: createEchoExecutor() }))).then(
    () => process.send?.({ started: agents.length }),
    (error: unknown) => {
      console.error(error);
      process.exit(1);
    },
  );
});
process.once("disconnect", () => process.exit());
