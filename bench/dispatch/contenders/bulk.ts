import type { Loaded } from "../../load/closed-loop.ts";
import type { Requests } from "../../load/http.ts";
import type { StreamLoad } from "../../load/stream.ts";
import { BULK_BYTES } from "../echo.ts";
import { byEd25519, bytesOf, jobIdOfKey, jsonRequest, paidJobBody } from "../signed-requests.ts";
import type { Contender, Stage, Started } from "./contender.ts";
import { type Served, startDirect } from "./direct.ts";
import { SETTLED_MS } from "./market-jobs.ts";
import { plainJob, post } from "./plain-job.ts";
import { openSshTunnel } from "./ssh-tunnel.ts";
import { openWebsocketTunnel } from "./websocket-tunnel.ts";

/** A job whose output is {@link BULK_BYTES}: a turn is to ask for it and to have all of them. */

const bulkDirect: Contender = {
  name: "bulk-direct",
  about:
    "the agent's own preparation and execution of a job behind an HTTP server, whose answer is the output",
  async start(stage) {
    const { port, child } = await startDirect(stage, "bulk-direct", "bulk-direct");
    return streaming(stage, { port, processes: [child] });
  },
};

const bulkSsh: Contender = {
  name: "bulk-ssh-tunnel",
  about: "`ssh -R` from behind, and `bulk-direct` at its end",
  async start(stage) {
    const direct = await startDirect(stage, "bulk-ssh-direct", "bulk-direct");
    const tunnel = await openSshTunnel(stage, "bulk-ssh", direct);
    return "lacks" in tunnel ? tunnel : streaming(stage, tunnel);
  },
};

const bulkWebsocket: Contender = {
  name: "bulk-websocket-tunnel",
  about: "TCP over one WebSocket that is dialled from behind, and `bulk-direct` at its end",
  async start(stage) {
    const direct = await startDirect(stage, "bulk-tunnel-direct", "bulk-direct");
    return streaming(stage, await openWebsocketTunnel(stage, "bulk-tunnel", direct));
  },
};

/** Each stream is of a lease of its own: the agent hashes, uploads through the Lease, and storage gets it as well. */
const bulk: Contender = {
  name: "bulk",
  about:
    "`POST /v1/leases/{id}/jobs`, then `GET /v1/jobs/{id}/outputs/0?wait=30` while the job runs, signed by a session's Ed25519 key",
  async start(stage) {
    const market = await stage.market();
    const sign = await byEd25519(market);
    const turn = async (lease: (typeof market.leases)[number]): Promise<Requests> => {
      const key = crypto.randomUUID();
      const id = await jobIdOfKey(lease.id, key);
      const job = paidJobBody(market.functions.bulk, lease);
      const asked = jsonRequest(`${market.url}/v1/leases/${lease.id}/jobs`, job, { "idempotency-key": key });
      const wanted = new Request(`${market.url}/v1/jobs/${id}/outputs/0?wait=30`);
      return [await bytesOf(await sign(asked)), await bytesOf(await sign(wanted))];
    };
    return {
      processes: [market.workerd, market.agents, market.store],
      settledMs: SETTLED_MS,
      bytesPerTurn: BULK_BYTES,
      async prepare({ connections, turns }) {
        const lanes = await Promise.all(
          market.leases
            .slice(0, connections)
            .map((lease) => Promise.all(Array.from({ length: turns }, () => turn(lease)))),
        );
        return (ms) => stream(stage, { port: market.port, lanes, ms, statuses: [202] });
      },
    };
  },
};

export const BULK_CONTENDERS: readonly Contender[] = [bulkDirect, bulkSsh, bulkWebsocket, bulk];

async function streaming(stage: Stage, { port, processes }: Served): Promise<Started> {
  const request = post("/", await plainJob("bulk"));
  return {
    processes,
    bytesPerTurn: BULK_BYTES,
    async prepare({ connections, turns }) {
      const lane = Array.from({ length: turns }, () => [request]);
      const lanes = Array.from({ length: connections }, () => lane);
      return (ms) => stream(stage, { port, lanes, ms, statuses: [] });
    },
  };
}

function stream(stage: Stage, load: Omit<StreamLoad, "bytes">): Promise<Loaded> {
  return stage.stream({ ...load, bytes: BULK_BYTES });
}
