import { byEd25519, bytesOf, jobBody, jsonRequest, paidJobBody } from "../signed-requests.ts";
import type { Contender } from "./contender.ts";
import { asking } from "./market-jobs.ts";
import { SUCCEEDED } from "./plain-job.ts";

const JOBS = 16;

export const warmBatch: Contender = {
  name: "warm-batch",
  about: `as \`warm-session\`, ${JOBS} jobs in one request; its latency is that of all`,
  async start(stage) {
    const market = await stage.market();
    const sign = await byEd25519(market);
    const answer = { ...SUCCEEDED, times: JOBS };
    const turn = async (lease: (typeof market.leases)[number]) => {
      const { sink } = market.functions;
      // One of them brings the allowance for all.
      const body = [paidJobBody(sink, lease), ...Array.from({ length: JOBS - 1 }, () => jobBody(sink))];
      const url = `${market.url}/v1/leases/${lease.id}/jobs`;
      return [await bytesOf(await sign(jsonRequest(url, body, { prefer: "wait=30" })))];
    };
    return asking(stage, market, [answer], turn, JOBS);
  },
};
