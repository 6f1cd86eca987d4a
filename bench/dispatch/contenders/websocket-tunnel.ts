import { type Child, startOurs } from "../../child.ts";
import { type Contender, type Stage, servingPort } from "./contender.ts";
import { type Served, startDirect } from "./direct.ts";
import { answering } from "./plain-job.ts";

const program = new URL("../programs/websocket-tunnel.ts", import.meta.url);

export const websocketTunnel: Contender = {
  name: "websocket-tunnel",
  about: "TCP over one WebSocket that is dialled from behind (Node and ws), and `direct` at its end",
  async start(stage) {
    const direct = await startDirect(stage, "websocket-tunnel-direct");
    const { port, processes } = await openWebsocketTunnel(stage, "tunnel", direct);
    return answering(stage, port, processes);
  },
};

/** Through a WebSocket to a server; `name` tells its logs from another's. */
export async function openWebsocketTunnel(
  stage: Stage,
  name: string,
  direct: { readonly port: number; readonly child: Child },
): Promise<Served> {
  const front = stage.owned(startOurs(`${name}-front`, stage.folder, program, ["front"]));
  const url = `ws://127.0.0.1:${await servingPort(front)}`;
  const opened = servingPort(front);
  const back = stage.owned(startOurs(`${name}-back`, stage.folder, program, ["back", url, `${direct.port}`]));
  await servingPort(back);
  return { port: await opened, processes: [front, back, direct.child] };
}
