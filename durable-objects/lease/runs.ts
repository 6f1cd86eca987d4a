import { FRAME_LIMIT, TICKET_LIMIT, type ToLease } from "@gpux/protocol/frames";
import { MOST_IN_BATCH } from "@gpux/protocol/job";

/** One job as the agent is told to run it. */
export type Run = Extract<ToLease, { t: "runs" }>["runs"][number];

/** Of a frame, the most that its head and the brackets take. */
const HEAD = 200;
/** Of a job beside its inputs: ids, amounts, its turn and an allowance with the longest signature, and the ticket, escaped. */
const BESIDE_INPUTS = 1_600 + 2 * TICKET_LIMIT;

/** The jobs in as few frames as may hold them, in order; one that goes alone is a `run`. */
export function inFrames(runs: readonly Run[]) {
  const [first] = runs;
  if (runs.length < 2) return first === undefined ? [] : [alone(first)];
  const groups: Run[][] = [];
  let room = 0;
  for (const run of runs) {
    const length = BESIDE_INPUTS + JSON.stringify(run.inputs).length;
    const last = groups.at(-1);
    if (last !== undefined && length <= room && last.length < MOST_IN_BATCH) last.push(run);
    else {
      groups.push([run]);
      room = FRAME_LIMIT - HEAD;
    }
    room -= length;
  }
  return groups.map((group) => {
    const [only] = group;
    return group.length === 1 && only !== undefined ? alone(only) : { t: "runs" as const, runs: group };
  });
}

function alone(run: Run) {
  return { t: "run" as const, ...run };
}
