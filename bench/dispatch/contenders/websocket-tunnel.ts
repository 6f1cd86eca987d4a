import { startOurs } from "../../child.ts";
import { type Contender, servingPort } from "./contender.ts";
import { startDirect } from "./direct.ts";
import { answering } from "./plain-job.ts";

const program = new URL("../programs/websocket-tunnel.ts", import.meta.url);

export const websocketTunnel: Contender = {
  name: "websocket-tunnel",
  about: "TCP over one WebSocket that is dialled from behind (Node and ws), and `direct` at its end",
  async start(stage) {
    const direct = await startDirect(stage, "websocket-tunnel-direct");
    const front = stage.owned(startOurs("tunnel-front", stage.folder, program, ["front"]));
    const url = `ws://127.0.0.1:${await servingPort(front)}`;
    const opened = servingPort(front);
    const back = stage.owned(
      startOurs("tunnel-back", stage.folder, program, ["back", url, `${direct.port}`]),
    );
    await servingPort(back);
    return answering(stage, await opened, [front, back, direct.child]);
  },
};
