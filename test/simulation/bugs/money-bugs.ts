import type { State } from "@gpux/durable-objects/lease/state";
import { fundingAmount, fundingKey } from "@gpux/protocol/funding";
import { MAX_AMOUNT } from "@gpux/protocol/money";
import { type Bug, inLease, inShell } from "./bug.ts";

/** As if every job might cost so much more. */
function withPrices(state: State, change: (price: bigint) => bigint): State {
  const jobs = [...state.jobs].map(
    ([id, job]) =>
      [id, { ...job, request: { ...job.request, max_price: change(job.request.max_price) } }] as const,
  );
  return { ...state, jobs: new Map(jobs) };
}

/** Bugs in what is charged, signed and paid. */
export const MONEY_BUGS: readonly Bug[] = [
  {
    name: "charges-lost-attempts",
    about: "an attempt that was lost with its node is added to the bill",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          const result = step(state, event, now);
          if (!result.ok) return result;
          const lost = [...result.next.jobs.values()].filter(
            (job) => job.status === "queued" && state.jobs.get(job.id)?.status === "running",
          );
          if (lost.length === 0) return result;
          const lease = { ...result.next.lease, spent: result.next.lease.spent + 1_000n };
          return { ...result, next: { ...result.next, lease } };
        },
      })),
  },
  {
    name: "bills-beyond-max-price",
    about: "max_price does not end the meter",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          const ends = event.t === "frame" && ["result", "failed", "stopped"].includes(event.frame.t);
          if (!ends) return step(state, event, now);
          const result = step(
            withPrices(state, (price) => price * 16n),
            event,
            now,
          );
          return result.ok ? { ...result, next: withPrices(result.next, (price) => price / 16n) } : result;
        },
      })),
  },
  {
    name: "admits-beyond-funding",
    about: "jobs are taken whether or not the lease's money covers them",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          if (event.t !== "submit" || state.lease.status !== "active") return step(state, event, now);
          const { funded } = state.lease;
          const result = step({ ...state, lease: { ...state.lease, funded: MAX_AMOUNT } }, event, now);
          if (!result.ok) return result;
          return { ...result, next: { ...result.next, lease: { ...result.next.lease, funded } } };
        },
      })),
  },
  {
    name: "counts-a-top-up-twice",
    about: "the money of a top-up that landed is added to what the chain says",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          const result = step(state, event, now);
          if (!result.ok || event.t !== "relayed") return result;
          const { lease } = result.next;
          const landed = state.lease.topUps.filter(
            (each) => !lease.topUps.some((kept) => fundingKey(kept.funding) === fundingKey(each.funding)),
          );
          const more = landed.reduce((sum, each) => sum + fundingAmount(each.funding), 0n);
          return { ...result, next: { ...result.next, lease: { ...lease, funded: lease.funded + more } } };
        },
      })),
  },
  {
    name: "bills-time-by-its-own-clock",
    about: "a dedicated lease is billed by the edge's clock, whatever the agent counted",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          if (event.t !== "frame" || event.frame.t !== "served") return step(state, event, now);
          const frame = { ...event.frame, ms: Number.MAX_SAFE_INTEGER };
          return step(state, { t: "frame", frame }, now);
        },
      })),
  },
  {
    name: "bills-time-twice",
    about: "a tick of a dedicated lease does not count as billed",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          const result = step(state, event, now);
          if (!result.ok || result.next.lease.ticks.length <= state.lease.ticks.length) return result;
          const lease = { ...result.next.lease, billedMs: state.lease.billedMs };
          return { ...result, next: { ...result.next, lease } };
        },
      })),
  },
  {
    name: "works-before-the-funding-is-final",
    about: "the first block counts, and a reorganisation takes the money back from under the work",
    plant: (product) => inShell(product, { waitsForFinality: false }),
  },
  {
    name: "counts-gas-with-every-answer",
    about: "a lease adds a transaction's gas each time that it hears of it",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          if (event.t !== "relayed") return step(state, event, now);
          const known = state.lease.transactions.find(({ hash }) => hash === event.answer.txHash);
          const result = step(state, event, now);
          if (!result.ok || known === undefined) return result;
          const transactions = [...result.next.lease.transactions, known];
          return { ...result, next: { ...result.next, lease: { ...result.next.lease, transactions } } };
        },
      })),
  },
  {
    name: "bears-what-others-paid",
    about: "a lease counts gas also of what somebody else landed for it",
    plant: (product) =>
      inLease(product, ({ step }) => ({
        step(state, event, now) {
          if (event.t !== "relayed" || !event.answer.superseded) return step(state, event, now);
          const result = step(state, event, now);
          const before = state.lease.transactions.at(-1);
          if (!result.ok || before === undefined) return result;
          const gas = (BigInt(before.gas) + 1n).toString();
          const transactions = [...state.lease.transactions.slice(0, -1), { ...before, gas }];
          return { ...result, next: { ...result.next, lease: { ...result.next.lease, transactions } } };
        },
      })),
  },
  {
    name: "never-pays-out",
    about: "money that was freed is not withdrawn",
    plant: (product) =>
      inLease(product, ({ duties }) => ({
        duties: (state, now) =>
          duties(state, now).filter((duty) => duty.t !== "relay" || duty.intent.kind !== "withdraw"),
      })),
  },
  {
    name: "signs-backwards",
    about: "the meter signs less than it has signed before",
    plant: (product) => ({
      ...product,
      meter: {
        ...product.meter,
        step(state, event, now) {
          const result = product.meter.step(state, event, now);
          if (result.ok || result.code !== "usage_decreased" || state === null || event.t !== "attest")
            return result;
          return { ok: true, next: { ...state, cumulative: event.usage.cumulative }, added: [] };
        },
      },
    }),
  },
  {
    name: "ignores-the-allowance",
    about: "the meter signs what the consumer did not allow",
    plant: (product) => ({
      ...product,
      meter: {
        ...product.meter,
        step: (state, event, now) =>
          product.meter.step(state, event.t === "attest" ? { ...event, allowance: MAX_AMOUNT } : event, now),
      },
    }),
  },
  {
    name: "signs-before-the-disk",
    about: "a provider's signature leaves before its journal is on the disk",
    plant: (product) => inShell(product, { syncsBeforeSigning: false }),
  },
  {
    name: "close-clips",
    about: "the escrow drops at the close what was not settled before it",
    plant: (product) => ({ ...product, escrow: { ...product.escrow, closeClips: true } }),
  },
  {
    name: "authorizations-replay",
    about: "the escrow takes one authorization twice",
    plant: (product) => ({ ...product, escrow: { ...product.escrow, replaysFunding: true } }),
  },
];
