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

/** The server that answers jobs itself; tunnels have one of their own behind them. */
export async function startDirect(
  stage: Stage,
  name: string,
): Promise<{ readonly port: number; readonly child: Child }> {
  const child = stage.owned(startOurs(name, stage.folder, new URL("../programs/direct.ts", import.meta.url)));
  return { port: await servingPort(child), child };
}
