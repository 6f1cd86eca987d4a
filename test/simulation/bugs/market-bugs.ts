import type { LeaseId } from "@gpux/protocol/ids";
import { type Bug, inLease, inNode, inOrders } from "./bug.ts";

/** Bugs in who has what: capacity, offers, keys. */
export const MARKET_BUGS: readonly Bug[] = [
  {
    name: "frees-another-too",
    about: "the release of one lease frees the GPUs of another",
    plant: (product) =>
      inNode(product, (step) => (state, event, now) => {
        const result = step(state, event, now);
        if (!result.ok || event.t !== "release") return result;
        const allocations = new Map(result.next.allocations);
        const [other] = allocations.keys();
        if (other !== undefined) allocations.delete(other);
        return { ...result, next: { ...result.next, allocations } };
      }),
  },
  {
    name: "forgets-to-free",
    about: "a node answers a release and keeps the GPUs",
    plant: (product) =>
      inNode(
        product,
        (step) => (state, event, now) =>
          event.t === "release" ? { ok: true, next: state, effects: [] } : step(state, event, now),
      ),
  },
  {
    name: "never-releases",
    about: "a lease that is over does not give its GPUs back",
    plant: (product) =>
      inLease(product, ({ duties }) => ({
        duties: (state, now) => duties(state, now).filter((duty) => duty.t !== "node_release"),
      })),
  },
  {
    name: "believes-any-acknowledgement",
    about:
      "what an agent says before its welcome is taken for what its last process said (a bug that this simulation found)",
    plant: (product) => ({
      ...product,
      agent: {
        ...product.agent,
        acknowledged: (outbox, seq) =>
          product.agent.acknowledged({ ...outbox, said: outbox.nextSeq - 1 }, seq),
      },
    }),
  },
  {
    name: "sells-what-the-book-says",
    about: "a node holds whatever somebody read in a Book, without a look at what is free",
    plant: (product) =>
      inNode(product, (step) => (state, event, now) => {
        const result = step(state, event, now);
        if (result.ok || event.t !== "hold" || result.code !== "no_capacity") return result;
        const blind = step({ ...state, allocations: new Map() }, event, now);
        if (!blind.ok) return blind;
        const allocations = new Map([...state.allocations, ...blind.next.allocations]);
        return { ...blind, next: { ...blind.next, allocations } };
      }),
  },
  {
    name: "reserves-too-shortly",
    about: "a reservation ends with its quote, though the funding may land later",
    plant: (product) =>
      inNode(
        product,
        (step) => (state, event, now) =>
          step(state, event.t === "reserve" ? { ...event, until: 0 } : event, now),
      ),
  },
  {
    name: "displaces-firm-leases",
    about: "a demand takes the GPUs of whoever has them, whatever was paid for",
    plant: (product) =>
      inNode(product, (step) => (state, event, now) => {
        if (event.t !== "hold") return step(state, event, now);
        const cheap = [...state.allocations].map(
          ([id, allocation]) => [id, { ...allocation, tier: "yieldable" as const }] as const,
        );
        const result = step({ ...state, allocations: new Map(cheap) }, event, now);
        if (!result.ok) return result;
        const allocations = [...result.next.allocations].map(([id, allocation]) => {
          const tier = state.allocations.get(id)?.tier ?? allocation.tier;
          return [id, { ...allocation, tier }] as const;
        });
        return { ...result, next: { ...result.next, allocations: new Map(allocations) } };
      }),
  },
  {
    name: "keeps-older-rows",
    about: "a Book does not take what a node says anew",
    plant: (product) => ({
      ...product,
      book: {
        apply(book, event, now) {
          if (event.t === "put" && book.get(event.entry.node) !== null) return null;
          return product.book.apply(book, event, now);
        },
      },
    }),
  },
  {
    name: "tells-one-lease-of-an-order",
    about: "the first lease of an order hears that it is funded, and the others never do",
    plant: (product) =>
      inOrders(product, (step) => (state, event, now) => {
        const result = step(state, event, now);
        if (!result.ok || event.t !== "told") return result;
        const legs = result.next.legs.map((leg) => ({ ...leg, state: "told" as const }));
        return { ok: true, next: { ...result.next, phase: "open", legs } };
      }),
  },
  {
    name: "releases-what-is-funded",
    about: "an order whose funding is on its way lets go of its nodes",
    plant: (product) =>
      inOrders(
        product,
        (step) => (state, event, now) =>
          step(state, event.t === "submitted" ? { t: "refused", code: "quote_expired" } : event, now),
      ),
  },
  {
    name: "two-jobs-for-one-key",
    about: "a key that is done with is as good as new, and another lease gets its turn",
    plant: (product) => {
      // On the lease that has it already the same request is the same job, whatever the account forgot.
      let had: LeaseId | null = null;
      return {
        ...product,
        account: {
          ...product.account,
          stepKey: (entry, event, now) => {
            if (event.t !== "begin" || entry?.state !== "done")
              return product.account.stepKey(entry, event, now);
            had = entry.chosen.lease;
            return product.account.stepKey(null, event, now);
          },
          candidates: (...args) => {
            const list = product.account.candidates(...args);
            return [...list.filter((id) => id !== had), ...list.filter((id) => id === had)];
          },
        },
      };
    },
  },
  {
    name: "takes-another-body",
    about: "a key answers for a request that is not its own",
    plant: (product) => ({
      ...product,
      account: {
        ...product.account,
        stepKey: (entry, event, now) =>
          product.account.stepKey(
            entry,
            event.t === "begin" && entry !== null ? { ...event, bodyHash: entry.bodyHash } : event,
            now,
          ),
      },
    }),
  },
];
