import { connect } from "@nats-io/transport-node";
import { answerLoads } from "../../load/client.ts";
import { closedLoop } from "../../load/closed-loop.ts";
import { SUCCEEDED } from "../contenders/plain-job.ts";
import { JOBS, TIMEOUT_MS } from "./nats-subjects.ts";

/** A load generator that speaks NATS itself: no HTTP anywhere. */

export interface NatsLoad {
  readonly servers: string;
  readonly body: string;
  readonly connections: number;
  readonly ms: number;
}

answerLoads(({ servers, body, connections, ms }: NatsLoad) =>
  closedLoop(
    async () => {
      const nats = await connect({ servers });
      return {
        async turn() {
          const answer = (await nats.request(JOBS, body, { timeout: TIMEOUT_MS })).string();
          return answer.includes(SUCCEEDED.holds) ? { ok: true } : { ok: false, sample: answer };
        },
        close: () => void nats.close(),
      };
    },
    connections,
    ms,
  ),
);
