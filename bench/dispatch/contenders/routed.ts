import { randomUUID } from "node:crypto";
import { byEd25519, bytesOf, jobBody, jsonRequest } from "../signed-requests.ts";
import type { Contender } from "./contender.ts";
import { asking } from "./market-jobs.ts";
import { SUCCEEDED } from "./plain-job.ts";

export const routed: Contender = {
  name: "routed",
  about: "`POST /v1/jobs` that names no lease: the account's object finds one that is open",
  async start(stage) {
    const market = await stage.market();
    const sign = await byEd25519(market);
    return asking(stage, market, [SUCCEEDED], async () => {
      const headers = { prefer: "wait=30", "idempotency-key": randomUUID() };
      const request = jsonRequest(`${market.url}/v1/jobs`, jobBody(market.functions.sink), headers);
      return [await bytesOf(await sign(request))];
    });
  },
};
