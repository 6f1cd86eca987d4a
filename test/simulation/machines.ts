import { takenShares } from "@gpux/agent/control/holds";
import { uncovered } from "@gpux/agent/leases/allowance";
import { type Book, findEnded, untoldEnds } from "@gpux/agent/leases/book";
import { checkClose, checkSettle } from "@gpux/agent/leases/receipts";
import { acknowledged } from "@gpux/agent/link/outbox";
import * as account from "@gpux/durable-objects/account/machine";
import { stepOrder } from "@gpux/durable-objects/account/order";
import {
  freeOf,
  missingAt,
  sessionRefusal,
  setAside,
  untoldLeases,
} from "@gpux/durable-objects/account/session-cap";
import type { BookEvent, Book as Offers } from "@gpux/durable-objects/book/machine";
import { duties } from "@gpux/durable-objects/lease/duties";
import * as lease from "@gpux/durable-objects/lease/machine";
import { LeaseSessions } from "@gpux/durable-objects/lease/sessions";
import { isForgotten, wakeAt } from "@gpux/durable-objects/lease/timers";
import * as meter from "@gpux/durable-objects/meter-lease/machine";
import * as node from "@gpux/durable-objects/node/machine";
import type { Address, JobId } from "@gpux/protocol/ids";
import type { AttemptToken } from "@gpux/protocol/job";
import { CONTRACT, type EscrowRules } from "./escrow-rules.ts";

/** How the simulated shells behave where a planted bug may have them behave otherwise. */
export interface ShellRules {
  /** A lease's state is written before anything that follows from it leaves. */
  readonly storesFirst: boolean;
  /** An agent has no more jobs of a lease under way than that may have side by side, however many it was sent. */
  readonly keepsPlaces: boolean;
  /** An agent's signature leaves only when its journal has it on the disk. */
  readonly syncsBeforeSigning: boolean;
  /** A lease's alarm is armed again after it rang. */
  readonly rearmsAlarms: boolean;
  /** What a lease has to say at the first step of a new life is said. */
  readonly speaksOnWaking: boolean;
  /** Lines of the journal that were written once are never written again. */
  readonly journalsOnce: boolean;
  /** A job that is sent before it is on the disk takes its ticket with it. */
  readonly sendsTickets: boolean;
  /** An agent is told to forget only what the disk has. */
  readonly acknowledgesDurable: boolean;
  /** The relayer calls a funding hard only once no reorganisation reaches it. */
  readonly waitsForFinality: boolean;
  /** A lease that lost its agent's connection with its memory counts what is set aside for a session as used. */
  readonly doubtsAfterCrash: boolean;
  /** A lease that was not heard is asked again whether it has the job. */
  readonly asksAgain: boolean;
  /** The lines of a job that came from another lease have higher numbers than those that it had there. */
  readonly numbersOn: boolean;
  /** An account writes down what it sets aside for a session before the lease hears of it. */
  readonly setsAsideFirst: boolean;
}

/** The ended attempts that an agent names in its hello, as agent/leases/lease.ts has it. */
function endedAttempts(book: Book): { readonly job: JobId; readonly attempt: AttemptToken }[] {
  return [...untoldEnds(book), ...[...book.ended.values()].flat()];
}

/**
 * The product's own machines as the simulated shells call them, in one table so that a planted bug (bugs/) can put
 * something wrong in place of one; the product itself has no hook for it.
 */
export interface Machines {
  readonly lease: {
    readonly step: typeof lease.step;
    readonly duties: typeof duties;
    readonly wakeAt: typeof wakeAt;
    readonly isForgotten: typeof isForgotten;
  };
  readonly node: { readonly step: typeof node.step };
  readonly book: {
    readonly apply: (book: Offers, event: BookEvent, now: number) => Address | null;
  };
  readonly account: {
    readonly stepKey: typeof account.stepKey;
    readonly candidates: typeof account.candidates;
    readonly openQuotes: typeof account.openQuotes;
    readonly placesFor: typeof account.placesFor;
    readonly stepOrder: typeof stepOrder;
  };
  readonly meter: {
    readonly step: typeof meter.step;
    readonly promise: typeof meter.promise;
    /** Whether what `check` says of the consumer's signature counts. */
    readonly isSigned: (check: () => boolean) => boolean;
  };
  readonly agent: {
    readonly checkSettle: typeof checkSettle;
    readonly checkClose: typeof checkClose;
    readonly findEnded: typeof findEnded;
    readonly endedAttempts: typeof endedAttempts;
    readonly takenShares: typeof takenShares;
    readonly uncovered: typeof uncovered;
    readonly acknowledged: typeof acknowledged;
  };
  readonly sessions: {
    readonly refusal: typeof sessionRefusal;
    readonly freeOf: typeof freeOf;
    readonly missingAt: typeof missingAt;
    readonly setAside: typeof setAside;
    readonly untoldLeases: typeof untoldLeases;
    readonly ofLease: (...by: ConstructorParameters<typeof LeaseSessions>) => LeaseSessions;
  };
  readonly shell: ShellRules;
  readonly escrow: EscrowRules;
}

export const PRODUCT: Machines = {
  lease: { step: lease.step, duties, wakeAt, isForgotten },
  node: { step: node.step },
  book: { apply: (book, event, now) => book.apply(event, now) },
  account: {
    stepKey: account.stepKey,
    candidates: account.candidates,
    openQuotes: account.openQuotes,
    placesFor: account.placesFor,
    stepOrder,
  },
  meter: { step: meter.step, promise: meter.promise, isSigned: (check) => check() },
  agent: { checkSettle, checkClose, findEnded, endedAttempts, takenShares, uncovered, acknowledged },
  sessions: {
    refusal: sessionRefusal,
    freeOf,
    missingAt,
    setAside,
    untoldLeases,
    ofLease: (rows, ofSession, isSure) => new LeaseSessions(rows, ofSession, isSure),
  },
  shell: {
    storesFirst: true,
    keepsPlaces: true,
    syncsBeforeSigning: true,
    rearmsAlarms: true,
    journalsOnce: true,
    speaksOnWaking: true,
    sendsTickets: true,
    acknowledgesDurable: true,
    waitsForFinality: true,
    setsAsideFirst: true,
    asksAgain: true,
    numbersOn: true,
    doubtsAfterCrash: true,
  },
  escrow: CONTRACT,
};
