import type { Job } from "@gpux/durable-objects/lease/job-state";
import { WITHDRAWN } from "@gpux/durable-objects/lease/outcome";
import type { State } from "@gpux/durable-objects/lease/state";
import { type Bug, inLease, inShell } from "./bug.ts";

function withJobs(state: State, change: (job: Job) => Job): State {
  return { ...state, jobs: new Map([...state.jobs].map(([id, job]) => [id, change(job)])) };
}

/** Bugs in how jobs are dealt with that an agent has before their turn (SPEC JOB-12). */
export const PREFETCH_BUGS: readonly Bug[] = [
  {
    name: "runs-all-that-it-has",
    about: "an agent begins all jobs of a lease that it was sent, whatever the lease may run at once",
    plant: (product) => inShell(product, { keepsPlaces: false }),
  },
  {
    name: "times-the-start-from-sending",
    about: "the time of the jobs before it counts as a job's start, and it is given up for that",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          const isLate = ({ prefetched, request }: Job) =>
            prefetched !== null && now >= prefetched.sentAt + request.timeouts.start_s * 1_000;
          const hurried = (job: Job): Job => {
            const { prefetched } = job;
            if (prefetched === null || !isLate(job)) return job;
            const turn = { freedAt: prefetched.sentAt, at: prefetched.sentAt };
            return { ...job, prefetched: { ...prefetched, turn } };
          };
          return step(withJobs(state, hurried), event, now);
        },
      })),
  },
  {
    name: "spends-retries-on-what-it-calls-back",
    about:
      "a job that its agent had before its turn, and that was called back, is taken for one that was lost",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          const result = step(state, event, now);
          if (!result.ok) return result;
          const counted = (job: Job): Job => ({
            ...job,
            attempts: job.attempts.map((each) =>
              each.outcome === WITHDRAWN ? { ...each, outcome: "node_lost" } : each,
            ),
          });
          return { ...result, next: withJobs(result.next, counted) };
        },
      })),
  },
];
