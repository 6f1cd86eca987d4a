import { type Bug, inLease, inShell } from "./bug.ts";

/** Bugs in how jobs move between leases. */
export const MOVE_BUGS: readonly Bug[] = [
  {
    name: "keeps-what-was-taken",
    about: "a lease that is told of its job's new lease goes on with the job itself",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step: (state, event, now) =>
          step(state, event.t === "moved" ? { ...event, taken: [], declined: event.taken } : event, now),
      })),
  },
  {
    name: "takes-silence-for-a-no",
    about: "a lease that does not hear whether another has taken its job keeps it",
    plant: (product) => inShell(product, { asksAgain: false }),
  },
  {
    name: "forgets-what-it-cost",
    about: "a job that has moved may cost its max_price again",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          if (event.t !== "adopt") return step(state, event, now);
          const past = { ...event.carried.past, price: 0n, billedMs: 0 };
          return step(state, { ...event, carried: { ...event.carried, past } }, now);
        },
      })),
  },
  {
    name: "numbers-lines-anew",
    about: "who reads on after a job has moved misses what its new lease says first",
    plant: (product) => inShell(product, { numbersOn: false }),
  },
  {
    name: "counts-moves-as-retries",
    about: "a job that had to leave its node spends a retry by that",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          if (event.t !== "adopt") return step(state, event, now);
          const attempts = event.carried.past.attempts.map((each) => ({ ...each, outcome: "node_lost" }));
          const past = { ...event.carried.past, attempts };
          return step(state, { ...event, carried: { ...event.carried, past } }, now);
        },
      })),
  },
];
