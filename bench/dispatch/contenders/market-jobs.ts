import type { Good, Lane, Requests } from "../../load/http.ts";
import type { BenchMarket, OpenLease } from "../market.ts";
import type { Stage, Started } from "./contender.ts";

/** The oldest unsigned receipt is settled after so long (durable-objects/lease/blocks.ts), and belongs to its job. */
export const SETTLED_MS = 2_000;

/** What has jobs done by the edge with a turn of requests each. */
export async function asking(
  stage: Stage,
  { port, workerd, agents, store, leases }: BenchMarket,
  answers: readonly Good[],
  turn: (lease: OpenLease) => Promise<Requests>,
  jobsPerTurn = 1,
): Promise<Started> {
  return {
    processes: [workerd, agents, store],
    settledMs: SETTLED_MS,
    jobsPerTurn,
    durable: jobsPerTurn === 1,
    async prepare({ connections, turns, leases: spread = connections }) {
      const used = leases.slice(0, spread);
      const lanes: Lane[] = [];
      for (let connection = 0; connection < connections; connection += 1) {
        const lease = used[connection % used.length];
        if (lease === undefined) throw new RangeError("there is no lease");
        const once: Requests[] = [];
        for (let made = 0; made < turns; made += 1) once.push(await turn(lease));
        lanes.push({ once });
      }
      return (ms) => stage.load({ port, lanes, ms, answers });
    },
  };
}
