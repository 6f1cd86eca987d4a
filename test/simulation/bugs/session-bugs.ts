import { LeaseSessions } from "@gpux/durable-objects/lease/sessions";
import type { Machines } from "../machines.ts";
import { type Bug, inShell } from "./bug.ts";

type AtLease = ConstructorParameters<typeof LeaseSessions>;

function inSessions(product: Machines, change: Partial<Machines["sessions"]>): Machines {
  return { ...product, sessions: { ...product.sessions, ...change } };
}

/** Another class of what a lease knows of its sessions. */
function atLease(product: Machines, make: (...by: AtLease) => LeaseSessions): Machines {
  return inSessions(product, { ofLease: make });
}

/** Bugs in what sessions may spend, and in how they end. */
export const SESSION_BUGS: readonly Bug[] = [
  {
    name: "forgets-revocations",
    about: "a lease that dies has never heard of a revocation",
    plant: (product) =>
      atLease(product, (rows, ...rest) => {
        const keep: typeof rows.keep = (row) => (row.revoked ? undefined : rows.keep(row));
        return new LeaseSessions({ ...rows, keep }, ...rest);
      }),
  },
  {
    name: "counts-only-what-has-ended",
    about: "jobs that have not ended do not count against a session's cap",
    plant: (product) =>
      atLease(product, (rows, ...rest) => {
        class Careless extends LeaseSessions {
          override take(): void {}
        }
        return new Careless(rows, ...rest);
      }),
  },
  {
    name: "gives-back-what-it-needs",
    about: "a lease gives back also what its jobs may still cost",
    plant: (product) =>
      atLease(product, (rows, ...rest) => {
        class Generous extends LeaseSessions {
          override trim(...by: Parameters<LeaseSessions["trim"]>): bigint {
            super.trim(...by);
            return 0n;
          }
        }
        return new Generous(rows, ...rest);
      }),
  },
  {
    name: "sets-aside-too-late",
    about: "an account that dies after a lease was told has set nothing aside",
    plant: (product) => inShell(product, { setsAsideFirst: false }),
  },
  {
    name: "sets-aside-what-is-not-there",
    about: "an account does not look what other leases have of a session's cap",
    plant: (product) =>
      inSessions(product, {
        setAside: (session, places, lease, needs) =>
          product.sessions.setAside(
            session,
            places.filter((place) => place.lease === lease),
            lease,
            needs,
          ),
      }),
  },
  {
    name: "believes-its-memory",
    about: "a lease that died counts no jobs that its agent has yet to bring back",
    plant: (product) => inShell(product, { doubtsAfterCrash: false }),
  },
  {
    name: "tells-one-lease",
    about: "a revocation is told to one lease that knew the session",
    plant: (product) =>
      inSessions(product, {
        untoldLeases: (session, places, now) =>
          product.sessions.untoldLeases(session, places.slice(0, 1), now),
      }),
  },
];
