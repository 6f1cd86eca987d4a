import { randomUUID } from "node:crypto";
import { CLIENT_FRAME_VERSION } from "@gpux/protocol/client-frames";
import { startClient } from "../../load/client.ts";
import type { SocketLane, SocketLoad } from "../programs/socket-client.ts";
import { byEd25519, paidJobBody } from "../signed-requests.ts";
import type { Contender } from "./contender.ts";
import { SETTLED_MS } from "./market-jobs.ts";

const client = new URL("../programs/socket-client.ts", import.meta.url);

export const sessionSocket: Contender = {
  name: "session-socket",
  about:
    "the client's own WebSocket into its lease (`GET /v1/leases/{id}/session`), a frame each way for a job",
  async start(stage) {
    const market = await stage.market();
    const { url, workerd, agents, leases, functions } = market;
    const sign = await byEd25519(market);
    const generator = stage.owned(startClient<SocketLoad>("socket-client", stage.folder, client));
    return {
      processes: [workerd, agents],
      settledMs: SETTLED_MS,
      durable: true,
      async prepare({ connections, turns, leases: spread = connections }) {
        const used = leases.slice(0, spread);
        const lanes: SocketLane[] = [];
        for (let connection = 0; connection < connections; connection += 1) {
          const lease = used[connection % used.length];
          if (lease === undefined) throw new RangeError("there is no lease");
          const path = `${url}/v1/leases/${lease.id}/session`;
          const { headers } = await sign(new Request(path));
          const frames = Array.from({ length: turns }, () =>
            JSON.stringify({
              v: CLIENT_FRAME_VERSION,
              t: "job",
              id: randomUUID(),
              request: paidJobBody(functions.sink, lease),
            }),
          );
          lanes.push({ url: path.replace(/^http/, "ws"), headers: Object.fromEntries(headers), frames });
        }
        return (ms) => generator.run({ lanes, ms });
      },
    };
  },
};
