import { type Child, startOurs } from "../../child.ts";
import { type Contender, type Stage, servingPort } from "./contender.ts";
import { answering } from "./plain-job.ts";

export const direct: Contender = {
  name: "direct",
  about: "an HTTP server in front of the agent's own preparation and execution of a job",
  async start(stage) {
    const { port, child } = await startDirect(stage, "direct");
    return answering(stage, port, [child]);
  },
};

/** Where a server takes connections, and all processes that it is made of. */
export interface Served {
  readonly port: number;
  readonly processes: readonly Child[];
}

/** The server that answers jobs itself, or with the bytes of their large output; tunnels have one of their own behind them. */
export async function startDirect(
  stage: Stage,
  name: string,
  program: "direct" | "bulk-direct" = "direct",
): Promise<{ readonly port: number; readonly child: Child }> {
  const file = new URL(`../programs/${program}.ts`, import.meta.url);
  const child = stage.owned(startOurs(name, stage.folder, file));
  return { port: await servingPort(child), child };
}
