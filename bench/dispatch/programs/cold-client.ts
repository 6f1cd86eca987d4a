import { setTimeout as wait } from "node:timers/promises";
import { devnetAccount } from "@gpux/contracts/roles";
import { createClient } from "@gpux/sdk";
import { answerLoads } from "../../load/client.ts";
import { type Connection, closedLoop } from "../../load/closed-loop.ts";
import { unpooled } from "../market.ts";
import { jobBody, MAX_PRICE } from "../signed-requests.ts";

/** Runs jobs that find no lease: each opens one on the node, and gives it back before the next. */

export interface ColdLoad {
  readonly url: string;
  readonly node: string;
  readonly sha256: string;
  readonly ms: number;
}

/** Base units that a lease is funded with. */
const FUNDING = BigInt(MAX_PRICE) * 10n;
const LOOK_MS = 20;

answerLoads((load: ColdLoad) => closedLoop(async () => coldJobs(load), 1, load.ms));

function coldJobs({ url, node, sha256 }: ColdLoad): Connection {
  const { account } = devnetAccount("consumer");
  // A new client each time: one that has seen the lease would skip what is measured.
  const client = () => createClient({ url, account, fetch: unpooled, autoOpen: { maxAmount: FUNDING } });
  let opened: string | null = null;
  return {
    async turn() {
      const job = await client().jobs.create({ ...jobBody(sha256), demand: { node } }, { wait: 30 });
      opened = job.lease_id;
      return job.status === "succeeded" ? { ok: true } : { ok: false, sample: JSON.stringify(job) };
    },
    async between() {
      if (opened === null) return;
      const { leases } = client();
      await leases.close(opened);
      while ((await leases.get(opened)).status !== "closed") await wait(LOOK_MS);
      opened = null;
    },
    close() {},
  };
}
