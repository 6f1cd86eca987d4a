import { type Bug, inLease } from "./bug.ts";

/** Bugs in how arrays of jobs are taken (SPEC JOB-10). */
export const ARRAY_BUGS: readonly Bug[] = [
  {
    name: "takes-a-part-of-an-array",
    about: "of an array that is not covered as a whole, the jobs that are covered are taken",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          const result = step(state, event, now);
          if (result.ok || event.t !== "submit_all" || (result.index ?? 0) === 0) return result;
          return step(state, { ...event, arrivals: event.arrivals.slice(0, result.index) }, now);
        },
      })),
  },
  {
    name: "queues-arrays-backwards",
    about: "the last job of an array is the first in turn",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          if (event.t !== "submit_all") return step(state, event, now);
          return step(state, { ...event, arrivals: event.arrivals.toReversed() }, now);
        },
      })),
  },
  {
    name: "moves-a-part-of-an-array",
    about:
      "a job of an array goes on on another lease, and whoever asks for the array again finds a part of it",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          if (event.t !== "places") return step(state, event, now);
          const apart = new Map([...state.jobs].map(([id, job]) => [id, { ...job, batch: null }]));
          return step({ ...state, jobs: apart }, event, now);
        },
      })),
  },
];
