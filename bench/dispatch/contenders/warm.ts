import type { BenchMarket } from "../market.ts";
import {
  byEd25519,
  byHmac,
  bytesOf,
  byWallet,
  jsonRequest,
  paidJobBody,
  type Sign,
} from "../signed-requests.ts";
import type { Contender } from "./contender.ts";
import { asking } from "./market-jobs.ts";
import { SUCCEEDED } from "./plain-job.ts";

const RESULT = { prefer: "wait=30" };

export const warm = warmJob(
  "warm",
  "`POST /v1/leases/{id}/jobs` with `Prefer: wait`, signed by the wallet (ERC-8128)",
  "sink",
  async (market) => byWallet(market),
);
export const warmOutput = warmJob(
  "warm-output",
  "the same, and the job returns its bytes as an output: the agent uploads them before it ends the job",
  "echo",
  async (market) => byWallet(market),
);
export const warmSession = warmJob(
  "warm-session",
  "as `warm`, signed by the Ed25519 key of a session",
  "sink",
  byEd25519,
);
export const warmHmac = warmJob("warm-hmac", "as `warm`, signed by the secret of a session", "sink", byHmac);

function warmJob(
  name: string,
  about: string,
  what: "echo" | "sink",
  signer: (market: BenchMarket) => Promise<Sign>,
): Contender {
  return {
    name,
    about,
    async start(stage) {
      const market = await stage.market();
      const sign = await signer(market);
      return asking(stage, market, [SUCCEEDED], async (lease) => {
        const url = `${market.url}/v1/leases/${lease.id}/jobs`;
        const request = jsonRequest(url, paidJobBody(market.functions[what], lease), RESULT);
        return [await bytesOf(await sign(request))];
      });
    },
  };
}
