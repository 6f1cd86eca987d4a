import { startClient } from "../../load/client.ts";
import type { ColdLoad } from "../programs/cold-client.ts";
import type { Contender } from "./contender.ts";
import { SETTLED_MS } from "./market-jobs.ts";

const client = new URL("../programs/cold-client.ts", import.meta.url);

export const cold: Contender = {
  name: "cold",
  about:
    "`client.jobs.create` without a lease: quote, signed funding, its transaction on the chain, the job; its processor time has the lease's close too",
  async start(stage) {
    const { url, workerd, functions, addAgent } = await stage.market();
    const { child, node } = await addAgent("cold-agent");
    const generator = stage.owned(startClient<ColdLoad>("cold-client", stage.folder, client));
    return {
      processes: [workerd, child],
      settledMs: SETTLED_MS,
      most: 1,
      async prepare() {
        return (ms) => generator.run({ url, node, sha256: functions.sink, ms });
      },
    };
  },
};
