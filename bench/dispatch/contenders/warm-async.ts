import { randomUUID } from "node:crypto";
import { byEd25519, bytesOf, jobIdOfKey, jsonRequest, paidJobBody } from "../signed-requests.ts";
import type { Contender } from "./contender.ts";
import { asking } from "./market-jobs.ts";
import { ACCEPTED, SUCCEEDED } from "./plain-job.ts";

export const warmAsync: Contender = {
  name: "warm-async",
  about: "as `warm-session` without `Prefer`: 202 when the job is on disk, then `GET /v1/jobs/{id}?wait=30`",
  async start(stage) {
    const market = await stage.market();
    const sign = await byEd25519(market);
    return asking(stage, market, [ACCEPTED, SUCCEEDED], async (lease) => {
      const key = randomUUID();
      const url = `${market.url}/v1/leases/${lease.id}/jobs`;
      const headers = { "idempotency-key": key };
      const submit = jsonRequest(url, paidJobBody(market.functions.sink, lease), headers);
      const result = new Request(`${market.url}/v1/jobs/${await jobIdOfKey(lease.id, key)}?wait=30`);
      return [await bytesOf(await sign(submit)), await bytesOf(await sign(result))];
    });
  },
};
