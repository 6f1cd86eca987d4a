import type { OrderState } from "@gpux/durable-objects/account/order";
import type { Draft, Wanted } from "@gpux/durable-objects/account/quote";
import type {
  BookEntry,
  Caller,
  Carried,
  Found,
  HoldRequest,
  Outcome,
  PaymentNeeded,
} from "@gpux/durable-objects/interfaces";
import type { Capacity } from "@gpux/protocol/capacity";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { FromLease, FromNode, ToLease, ToNode } from "@gpux/protocol/frames";
import type { AutoTopUp, LeaseFunding } from "@gpux/protocol/funding";
import type { Address, JobId, LeaseId, OrderId } from "@gpux/protocol/ids";
import type { JobRequest, RoutedJobRequest } from "@gpux/protocol/job";
import type { LeaseStatus, Quote } from "@gpux/protocol/lease";
import type { FundingPlan, OrderAuthorization } from "@gpux/protocol/order";
import type { Demand } from "@gpux/protocol/resources";
import type { SessionId } from "@gpux/protocol/session";
import type { TypedDataHasher } from "@gpux/protocol/typed-data-encoder";
import type { Actor, Flow } from "./actor.ts";
import type { Chain } from "./chain.ts";
import type { Keyring } from "./keyring.ts";
import type { Machines } from "./machines.ts";
import type { Meter } from "./meter.ts";
import type { Connection, End, Network } from "./network.ts";
import type { Random } from "./random.ts";
import type { Relayer } from "./relayer.ts";
import type { Schedule } from "./schedule.ts";
import type { JobSeen, Line } from "./seen.ts";
import type { Watch } from "./watch.ts";

export const PLACE = { chainId: 31_337, escrow: `0x${"e5".repeat(20)}` } as const;
export const METER: Address = `0x${"c1".repeat(20)}`;
export const FEE_RECIPIENT: Address = `0x${"f1".repeat(20)}`;
/** A market this small has no need of more. */
export const ONE_SHARD = (): number => 1;
export const START = 1_800_000_000_000;

export type LeaseConnection = Connection<FromLease, ToLease>;
export type NodeConnection = Connection<FromNode, ToNode>;

/** A refused upgrade, by HTTP status. */
export type Upgrade<C> =
  | { readonly ok: true; readonly connection: C }
  | { readonly ok: false; readonly status: number };

export interface Asked {
  readonly id: JobId;
  readonly request: JobRequest;
}

/** The doors of the objects: what `interfaces.ts` says of them, as flows. */
export interface LeaseDoor extends Actor {
  readonly id: LeaseId;
  quote(request: HoldRequest): Flow<Outcome>;
  reserve(validBefore: number): Flow<Outcome>;
  fund(
    funding: LeaseFunding,
    plan?: FundingPlan | null,
  ): Flow<Outcome<{ status: LeaseStatus; expiry: number }>>;
  topUp(as: Address, funding: LeaseFunding): Flow<Outcome>;
  autoTopUp(as: Address, auto: AutoTopUp | null): Flow<Outcome>;
  submit(
    as: Caller,
    id: JobId,
    request: JobRequest,
    waitMs: number,
  ): Flow<Outcome<{ job: JobSeen; replayed: boolean }> | PaymentNeeded>;
  /** An array: all of it is taken, in its order, or nothing (SPEC JOB-10). */
  submitAll(
    as: Caller,
    asked: readonly Asked[],
    waitMs: number,
  ): Flow<Outcome<{ jobs: readonly JobSeen[]; replayed: boolean }> | PaymentNeeded>;
  job(as: Caller, id: JobId): Flow<Outcome<{ job: JobSeen }>>;
  events(as: Address, id: JobId, after: number): Flow<Outcome<{ events: readonly Line[] }>>;
  cancel(as: Address, id: JobId): Flow<Outcome<{ job: JobSeen }>>;
  adopt(
    jobs: readonly Carried[],
    lastEvent: number,
  ): Flow<{ readonly taken: JobId[]; readonly declined: JobId[] }>;
  close(as: Address): Flow<Outcome>;
  letGo(): Flow<void>;
  admitSession(session: SessionId, until: number, ceiling: bigint, turn: number): Flow<Outcome>;
  trimSession(session: SessionId, until: number, turn: number): Flow<bigint | null>;
  revokeSession(session: SessionId, until: number): Flow<void>;
  accept(by: Address, agent: End<ToLease>): Upgrade<LeaseConnection>;
}

export interface NodeDoor extends Actor {
  describe(): Flow<Outcome<{ entry: BookEntry; free: Capacity }>>;
  hold(request: HoldRequest): Flow<Outcome>;
  reserve(lease: LeaseId, until: number): Flow<Outcome>;
  open(lease: LeaseId, terms: LeaseTerms): Flow<Outcome>;
  rest(lease: LeaseId, turn: number): Flow<Outcome>;
  rouse(lease: LeaseId, turn: number): Flow<Outcome>;
  dial(lease: LeaseId): Flow<Outcome>;
  release(lease: LeaseId): Flow<Outcome>;
  accept(agent: End<ToNode>): Upgrade<NodeConnection>;
}

export interface BookDoor extends Actor {
  put(entry: BookEntry): Flow<Outcome>;
  remove(node: Address): Flow<Outcome>;
  find(demand: Demand, limit: number): Flow<Found>;
  rowsOf(book: string, after: Address | null, limit: number): Flow<BookEntry[]>;
}

export interface AccountDoor extends Actor {
  quote(by: Address, request: Wanted): Flow<Outcome<{ quote: Quote }>>;
  /** Several leases at once, all or none. */
  order(by: Address, request: Wanted, nodes: number): Flow<Outcome<{ order: OrderState }>>;
  fundOrder(id: OrderId, funding: OrderAuthorization): Flow<Outcome<{ order: OrderState }>>;
  openLease(by: Address, id: LeaseId, funding: LeaseFunding): Flow<Outcome<{ status: LeaseStatus }>>;
  quoteOf(draft: Draft, amount: bigint): Quote;
  submit(
    by: Address,
    key: string,
    bodyHash: string,
    request: RoutedJobRequest,
    waitMs: number,
    session?: SessionId | null,
  ): Flow<Outcome<{ job: JobSeen; replayed: boolean }> | PaymentNeeded>;
  places(lease: LeaseId): Flow<LeaseId[]>;
  openSession(id: SessionId, cap: bigint, expiresAt: number): Flow<Outcome>;
  admitSession(session: SessionId, lease: LeaseId, needs: bigint): Flow<Outcome>;
  revokeSession(id: SessionId): Flow<Outcome<{ untold: readonly LeaseId[] }>>;
}

/** All that an actor finds around itself. */
export interface Setting {
  readonly schedule: Schedule;
  /** Choices of the actors; faults and consumers have streams of their own. */
  readonly random: Random;
  readonly network: Network;
  readonly keyring: Keyring;
  readonly hasher: TypedDataHasher;
  readonly machines: Machines;
  readonly watch: Watch;
  readonly chain: Chain;
  readonly relayer: Relayer;
  readonly meter: Meter;
  /** How long the rows of the warm path follow behind (durable-objects/lease/deferral.ts). */
  readonly behindMs: number;
  /** Most leases are yieldable, and most jobs of them long. */
  readonly isSpot: boolean;
  /** As in faults.ts. */
  readonly isScattered: boolean;
  lease(id: LeaseId): LeaseDoor;
  node(address: Address): NodeDoor;
  book(name: string): BookDoor;
  account(address: Address): AccountDoor;
}

/** A wait in virtual time. */
export function* sleep(schedule: Schedule, ms: number, what: string): Flow<void> {
  yield (resume) => {
    schedule.at(schedule.now + ms, what, resume);
  };
}
