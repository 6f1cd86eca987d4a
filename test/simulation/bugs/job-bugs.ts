import { currentAttempt, isTerminal } from "@gpux/durable-objects/lease/job-state";
import type { State } from "@gpux/durable-objects/lease/state";
import type { Machines } from "../machines.ts";
import { type Bug, inLease, inShell } from "./bug.ts";

type Step = Machines["lease"]["step"];

/** The machine as if the notice were another, until the lease rests. */
function withNotice(step: Step, change: (at: number) => number | null): Step {
  const noticed = (state: State, yieldAt: number | null): State => ({
    ...state,
    lease: { ...state.lease, capacity: { ...state.lease.capacity, yieldAt } },
  });
  return (state, event, now) => {
    const { yieldAt, turn } = state.lease.capacity;
    if (yieldAt === null) return step(state, event, now);
    const result = step(noticed(state, change(yieldAt)), event, now);
    if (!result.ok || result.next.lease.capacity.turn !== turn) return result;
    return { ...result, next: noticed(result.next, yieldAt) };
  };
}

type Told = ReturnType<Step>;

/** What agents might have said, had they kept what they are about to be stopped at. */
function claimsOfWork({ jobs }: State, now: number) {
  return [...jobs.values()].flatMap((job) => {
    const attempt = currentAttempt(job);
    if (job.status !== "running" || attempt === undefined || attempt.startedAt === null) return [];
    const checkpoint = { sha256: "0".repeat(64), bytes: 8 };
    const about = { job: job.id, attempt: attempt.token, gpu: "RTX_4090", ms: now - attempt.startedAt };
    return [{ v: 1 as const, seq: 0, ack: 0, t: "yielded" as const, ...about, checkpoint }];
  });
}

/** Bugs in how a lease and an agent deal with jobs. */
export const JOB_BUGS: readonly Bug[] = [
  {
    name: "believes-older-attempts",
    about: "a lease takes the result of an attempt that it has given up",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          if (event.t !== "frame" || !("attempt" in event.frame)) return step(state, event, now);
          const job = state.jobs.get(event.frame.job);
          const token = job === undefined ? undefined : currentAttempt(job)?.token;
          if (token === undefined) return step(state, event, now);
          return step(state, { ...event, frame: { ...event.frame, attempt: token } }, now);
        },
      })),
  },
  {
    name: "drops-a-cancel",
    about: "a cancel is acknowledged and nothing comes of it",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          const job = event.t === "cancel" ? state.jobs.get(event.job) : undefined;
          if (job === undefined || isTerminal(job) || job.status === "queued") return step(state, event, now);
          return step(state, { t: "tick" }, now);
        },
      })),
  },
  {
    name: "forgets-queue-time-outs",
    about: "no alarm is set for a job that only waits",
    plant: (product) =>
      inLease(product, ({ wakeAt }) => ({
        wakeAt(state, now) {
          const jobs = new Map([...state.jobs].filter(([, job]) => job.status !== "queued"));
          return wakeAt({ ...state, jobs }, now);
        },
      })),
  },
  {
    name: "answers-before-it-writes",
    about: "a job is acknowledged before it is written, and a crash drops it",
    plant: (product) => inShell(product, { storesFirst: false }),
  },
  {
    name: "rings-once",
    about: "an alarm that rang counts as armed for ever",
    plant: (product) => inShell(product, { rearmsAlarms: false }),
  },
  {
    name: "is-silent-on-waking",
    about:
      "what falls due while a lease's object wakes is never said to its agent (a bug that this simulation found)",
    plant: (product) => inShell(product, { speaksOnWaking: false }),
  },
  {
    name: "sends-no-tickets",
    about:
      "a job that is answered before it is written leaves nothing with its agent that makes it known again",
    plant: (product) => inShell(product, { sendsTickets: false }),
  },
  {
    name: "acknowledges-before-the-rows",
    about: "an agent may forget the end of a job that a crash of the edge then takes",
    plant: (product) => inShell(product, { acknowledgesDurable: false }),
  },
  {
    name: "begins-in-the-notice",
    about: "a lease that is to give way begins the next job all the same",
    plant: (product) => inLease(product, ({ step }) => ({ step: withNotice(step, () => null) })),
  },
  {
    name: "runs-through-the-notice",
    about: "a job goes on when its GPU is taken back",
    plant: (product) => inLease(product, ({ step }) => ({ step: withNotice(step, (at) => at + 3_600_000) })),
  },
  {
    name: "charges-what-kept-nothing",
    about: "an attempt that had to give way is charged for what it ran, and nothing of that is kept",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          const { yieldAt } = state.lease.capacity;
          if (yieldAt === null || now < yieldAt) return step(state, event, now);
          let next = state;
          const earlier: Extract<Told, { ok: true }>[] = [];
          for (const frame of claimsOfWork(state, now)) {
            const told = step(next, { t: "frame", frame }, now);
            if (!told.ok) return told;
            earlier.push(told);
            next = told.next;
          }
          const last = step(next, event, now);
          if (!last.ok) return last;
          const all = [...earlier, last];
          return {
            ...last,
            frames: all.flatMap(({ frames }) => frames),
            journal: all.flatMap(({ journal }) => journal),
            passing: all.flatMap(({ passing }) => passing),
            events: all.flatMap(({ events }) => events),
          };
        },
      })),
  },
  {
    name: "counts-each-attempt-alone",
    about:
      "each attempt of a job may cost its max_price and run for its time-out, whatever those before it did",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          const fresh = new Map(
            [...state.jobs].map(([id, job]) => [
              id,
              isTerminal(job) ? job : { ...job, price: 0n, billedMs: 0 },
            ]),
          );
          const result = step({ ...state, jobs: fresh }, event, now);
          if (!result.ok) return result;
          const jobs = new Map(
            [...result.next.jobs].map(([id, job]) => {
              const was = state.jobs.get(id);
              if (was === undefined || isTerminal(was)) return [id, job];
              if (job === fresh.get(id)) return [id, was];
              return [id, { ...job, price: job.price + was.price, billedMs: job.billedMs + was.billedMs }];
            }),
          );
          return { ...result, next: { ...result.next, jobs } };
        },
      })),
  },
  {
    name: "loses-checkpoints",
    about: "what an attempt has kept is paid for, and the next one begins at the beginning",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          const result = step(state, event, now);
          if (!result.ok) return result;
          const frames = result.frames.map((frame) =>
            frame.t === "run" && frame.checkpoint !== undefined ? { ...frame, checkpoint: null } : frame,
          );
          return { ...result, frames };
        },
      })),
  },
  {
    name: "journals-twice",
    about: "the first lines after a wake are written twice",
    plant: (product) => inShell(product, { journalsOnce: false }),
  },
  {
    name: "keeps-failures-quiet",
    about: "the journal does not tell of jobs that failed",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          const result = step(state, event, now);
          if (!result.ok) return result;
          return { ...result, journal: result.journal.filter((entry) => entry.data.status !== "failed") };
        },
      })),
  },
  {
    name: "forgets-what-it-said",
    about: "an agent takes any acknowledgement for one of all that it has said",
    plant: (product) => ({
      ...product,
      agent: {
        ...product.agent,
        acknowledged: (outbox, seq) =>
          product.agent.acknowledged(outbox, seq > 0 ? Math.max(seq, outbox.nextSeq - 1) : seq),
      },
    }),
  },
  {
    name: "retries-without-end",
    about: "a lost attempt does not count against the retries",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          const patient = new Map(
            [...state.jobs].map(([id, job]) => [id, { ...job, request: { ...job.request, retries: 99 } }]),
          );
          const result = step({ ...state, jobs: patient }, event, now);
          if (!result.ok) return result;
          const jobs = new Map(
            [...result.next.jobs].map(([id, job]) => {
              const was = state.jobs.get(id);
              if (was === undefined) return [id, job];
              return [id, job === patient.get(id) ? was : { ...job, request: was.request }];
            }),
          );
          return { ...result, next: { ...result.next, jobs } };
        },
      })),
  },
];
