import type { Capacity } from "@gpux/protocol/capacity";
import type { Verdict } from "@gpux/protocol/challenge/verdict";
import type { CreditOffer } from "@gpux/protocol/credit";
import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { ErrorCode } from "@gpux/protocol/errors";
import type { AutoTopUp, LeaseFunding } from "@gpux/protocol/funding";
import type { Address, JobId, LeaseId, OrderId } from "@gpux/protocol/ids";
import type {
  Checkpoint,
  JobEvent,
  JobRequest,
  JobView,
  RoutedJobRequest,
  SignedAllowance,
} from "@gpux/protocol/job";
import type {
  IndicativeQuote,
  LeaseView,
  NodeView,
  Quote,
  QuoteRequest,
  QuoteText,
  TickView,
} from "@gpux/protocol/lease";

import type { Condition, OrderTerm } from "@gpux/protocol/offer-query";
import type { FundingPlan, Order, OrderAuthorization, OrderRequest } from "@gpux/protocol/order";
import type { Blocker, Demand, Offer, Tier } from "@gpux/protocol/resources";
import type { SessionGrant, SessionId, SessionScope, SessionView } from "@gpux/protocol/session";
import type { Presence } from "./presence.ts";
import type { Sale } from "./sales.ts";

/**
 * What the objects may ask of each other, over RPC. Awaited calls run one way, Account -> Book, Node, Lease;
 * what goes back is an outbox effect, so there are no call cycles. Refusals cross as values.
 */
export interface Refused {
  readonly ok: false;
  readonly code: ErrorCode;
  readonly detail?: string;
}
export type Outcome<T extends object = object> = ({ readonly ok: true } & T) | Refused;

/** Who signed the request, and the signature's nonce for the replay window of the object it lands on. */
export interface Principal {
  /** The wallet: that signed, or that granted the session. */
  readonly address: Address;
  /** Unique for the address: a session's nonces carry its id. */
  readonly nonce: string;
  /** Seconds; after this the signature is refused anyway, so the nonce may be forgotten. */
  readonly expires: number;
  /** Under which the wallet's session signed; absent when the wallet itself did. */
  readonly session?: SessionUse;
}

export interface SessionUse {
  readonly id: SessionId;
  readonly scopes: readonly SessionScope[];
  /** The edge knows its key (HMAC). */
  readonly bearer: boolean;
}

/** Who asks something of a lease: a wallet, or a session in the name of one. */
export type Caller =
  | Address
  | { readonly address: Address; readonly session: SessionId; readonly bearer: boolean };

export interface BookEntry {
  readonly node: Address;
  readonly offer: Offer;
  /** GPUs that a firm demand can have: neither held nor leased, or leased in the yieldable tier. */
  readonly free: number;
  readonly provider: Address;
  readonly agentVersion: string;
  readonly status: NodeView["status"];
  readonly lastSeen: number;
  readonly presence: Presence;
  readonly sales: readonly Sale[];
  /** What the last challenge has shown of the cards that it offers; null before there was one. */
  readonly challenge: Verdict | null;
}

/** What an offer is ordered by, for who puts the answers of several Books together. */
export interface Rank {
  readonly node: string;
  /** Of the search's own order. */
  readonly keys: readonly (bigint | string | null)[];
  /** Rate times weight in thousandths. */
  readonly weighted: bigint;
  /** That are free for one lease. */
  readonly gpus: number;
}

/** Of a Book's online offers: those that fit, best first (docs/matching.md), and if none does, why not. */
export interface Found {
  readonly entries: BookEntry[];
  /** One for each entry, where they were asked for. */
  readonly ranks?: Rank[];
  /** By how many offers each condition fails (SPEC MKT-3); empty where something fits. */
  readonly blockers: Partial<Record<Blocker, number>>;
  readonly offers: number;
  /** Offers that a higher max_rate_per_hour alone would make fit; 0 where something fits. */
  readonly onlyPrice: number;
  /** Offers that would fit if all of their GPUs were free; 0 where something fits. */
  readonly onlyBusy: number;
}

/** How to search beside what is demanded. */
export interface FindOptions {
  /** At most one offer of each payout address. */
  readonly distinctProviders?: boolean;
  /** Conditions of a search by query (protocol/offer-query.ts), as blockers where they fail. */
  readonly where?: readonly Condition[];
  /** Instead of best first. */
  readonly order?: readonly OrderTerm[];
  /** The answer is to be put together with others: `ranks`. */
  readonly ranked?: boolean;
  /** Somebody wants to buy: if nothing fits, the nodes are told why (`skipped`). */
  readonly toBuy?: boolean;
}

/** A price per GPU-hour, and how much stands behind it: GPUs of online nodes that ask it, GPU-ms that were paid at it. */
export interface Priced {
  readonly price: bigint;
  readonly weight: number;
}

/** What the GPUs of one model ask, and what was paid for them, cheapest first. */
export interface Prices {
  readonly model: string;
  readonly nodes: number;
  readonly gpus: number;
  readonly free: number;
  readonly asks: Readonly<Record<Tier, readonly Priced[]>>;
  readonly settled: Readonly<Record<Tier, readonly Priced[]>>;
}

export interface BookRpc {
  /** Replaces the node's row; an older `lastSeen` than the row's is ignored. */
  put(entry: BookEntry): Promise<void>;
  remove(node: Address): Promise<void>;
  find(demand: Demand, limit: number, options?: FindOptions): Promise<Found>;
  /** By address, whatever their status. */
  list(after: Address | null, limit: number): Promise<BookEntry[]>;
  get(node: Address): Promise<BookEntry | null>;
  /** Why the node was not bought from: of demands of the last hour that nothing here met, by the conditions it failed. */
  skipped(node: Address): Promise<Partial<Record<Blocker, number>>>;
  prices(): Promise<Prices[]>;
  /** The rows that belong into another Book, by address; only the directory (books.ts) is asked. */
  rowsOf(book: string, after: Address | null, limit: number): Promise<BookEntry[]>;
}

export interface HoldRequest {
  readonly lease: LeaseId;
  readonly terms: LeaseTerms;
  readonly text: QuoteText;
  readonly expiresAt: number;
}

export interface NodeRpc {
  /** What the node would be paid to and asks, and what of it nobody has, before terms are written. */
  describe(): Promise<Outcome<{ entry: BookEntry; free: Capacity }>>;
  /** Asks the agent; resolves when it answered, or with `node_offline` after 3 s. */
  hold(request: HoldRequest): Promise<Outcome>;
  /**
   * Before the funding is broadcast: the hold becomes a reservation until `until` (ms). Refused with `node_offline` when
   * the node has gone since it confirmed.
   */
  reserve(lease: LeaseId, until: number): Promise<Outcome>;
  /** The funding is on chain: the agent is told to dial the lease's data socket. Idempotent. */
  open(lease: LeaseId, terms: LeaseTerms): Promise<Outcome>;
  /**
   * An open lease has no work: its GPUs are free for others, its agent hangs up. Idempotent by `turn`, which rises with
   * each question of this lease: what comes later than a newer one changes nothing.
   */
  rest(lease: LeaseId, turn: number): Promise<void>;
  /** It has work again: the node gives it its GPUs and the agent dials, or says what they are not free for. As `rest`. */
  rouse(lease: LeaseId, turn: number): Promise<Outcome>;
  /** The agent of a resting lease is to dial, without its GPUs. */
  dial(lease: LeaseId): Promise<void>;
  /** The hold, reservation or lease is over; what it had is free. Idempotent. */
  /** `paid`: what was settled of it on chain, base units. */
  release(lease: LeaseId, paid?: bigint): Promise<void>;
  view(): Promise<Outcome<{ node: NodeView }>>;
}

/** A job that one lease hands over to another. */
export interface Carried {
  readonly job: JobId;
  readonly clientId: string | null;
  readonly retryOf: JobId | null;
  /** Without the allowance, which is for the lease that it was sent to. */
  readonly request: JobRequest;
  readonly inputHash: string;
  readonly session: SessionId | null;
  readonly createdAt: number;
  readonly queuedAt: number;
  readonly checkpoint: Checkpoint | null;
  /** Leases that have had it or would not have it, the one that hands it over included. */
  readonly been: readonly LeaseId[];
  /** What it did and cost so far. */
  readonly past: {
    readonly attempts: JobView["attempts"];
    readonly price: bigint;
    readonly billedMs: number;
  };
  /** For how long its next attempt would have been paid on that lease, milliseconds. */
  readonly billableMs: number;
  readonly payer: Address;
  readonly consumerSigner: Address;
}

export interface LeaseRpc {
  /** Creates the lease in `quoted`; forgets itself when it is not funded before `expiresAt`. */
  quote(request: HoldRequest & { readonly amount: bigint }): Promise<Outcome>;
  /**
   * For an order: the node's hold becomes a reservation for a funding that may land until `validBefore` (seconds), and
   * the quote stands for a minute more. Idempotent.
   */
  reserve(validBefore: number): Promise<Outcome>;
  /**
   * The payer's authorization, or the consumer signer's for the payer's credit: the lease goes to `funding`; the relayer
   * lands it. With a `plan` it is one for several leases, all of which were reserved. Idempotent by salt or target.
   */
  fund(funding: LeaseFunding, plan?: FundingPlan | null): Promise<Outcome<{ lease: LeaseView }>>;
  /**
   * More money of the payer's, by `as` (payer or consumer signer). Waits a little for it to land. Idempotent by salt or
   * target.
   */
  topUp(as: Caller, funding: LeaseFunding): Promise<Outcome<{ lease: LeaseView }>>;
  /** Raises from credit that it lands by itself, instead of those it had; null: none any more. */
  autoTopUp(as: Caller, auto: AutoTopUp | null): Promise<Outcome<{ lease: LeaseView }>>;
  /**
   * Queues a job; a known id answers its present state (`replayed`). Refuses other input under a known id.
   * `as`: the principal must be the payer or the consumer signer. Answers when the job has ended or after
   * `waitMs` (0 to 60,000) with its then present state.
   */
  submit(
    as: Caller,
    job: JobId,
    request: JobRequest,
    clientId: string | null,
    waitMs: number,
  ): Promise<Outcome<{ job: JobView; replayed: boolean }> | PaymentNeeded>;
  /** Queues all of these jobs or none of them; answers when all have ended or after `waitMs`. As `submit`. */
  submitAll(
    as: Caller,
    jobs: readonly { readonly id: JobId; readonly request: JobRequest }[],
    waitMs: number,
  ): Promise<Outcome<{ jobs: JobView[]; replayed: boolean }> | PaymentNeeded>;
  /** The request of an ended job again, as the job `next`. As `submit`. */
  retry(
    as: Caller,
    job: JobId,
    next: JobId,
    allowance: SignedAllowance | null,
    waitMs: number,
  ): Promise<Outcome<{ job: JobView; replayed: boolean }> | PaymentNeeded>;
  /**
   * Answers when the job has ended or after `waitMs` (at most 60,000) with its then present state; for a job that
   * has ended already, when its receipt has both signatures.
   */
  job(as: Caller, job: JobId, waitMs: number): Promise<Outcome<{ job: JobView }>>;
  events(as: Caller, job: JobId, after: number, limit: number): Promise<Outcome<{ events: JobEvent[] }>>;
  cancel(as: Caller, job: JobId): Promise<Outcome<{ job: JobView }>>;
  /**
   * Another lease of the account hands these jobs over; `lastEvent`: the number of the last event that it has of them.
   * Answers for each, and always the same, whether this one has taken it (SPEC JOB-11).
   */
  adopt(
    jobs: readonly Carried[],
    lastEvent: number,
  ): Promise<{ readonly taken: JobId[]; readonly declined: JobId[] }>;
  /**
   * The Account vouches for a session: until `until` (ms), and for jobs up to `ceiling` altogether. `turn` rises with
   * each word of the Account on that, so that one which is late raises nothing.
   */
  admitSession(session: SessionId, until: number, ceiling: bigint, turn: number): Promise<Outcome>;
  /** Lowers the session's ceiling to what its jobs have cost and may cost yet, and answers that; null: no such lease. */
  trimSession(session: SessionId, until: number, turn: number): Promise<bigint | null>;
  /** Idempotent, and final: it stands also when the session is vouched for later. */
  revokeSession(session: SessionId, until: number): Promise<void>;
  /** No new jobs; when those that run have ended, the final usage is co-signed, settled and paid out. Idempotent. */
  close(as: Caller): Promise<Outcome<{ lease: LeaseView }>>;
  /** ORD-5: its order is given up; one that is not funded ends. */
  letGo(): Promise<void>;
  /**
   * Moves the lease's end to so many seconds behind the quote's, within its terms, and tops it up where a funding comes
   * with it. Idempotent: the end never comes nearer, and a funding counts once.
   */
  extend(as: Caller, extendedS: number, funding: LeaseFunding | null): Promise<Outcome<{ lease: LeaseView }>>;
  view(as: Caller): Promise<Outcome<{ lease: LeaseView }>>;
  /** Billed time of a dedicated lease, after receipt number `after`, in order. */
  ticks(as: Caller, after: number, limit: number): Promise<Outcome<{ ticks: TickView[]; hasMore: boolean }>>;
}

export interface AccountRpc {
  /** A firm quote: Book finds, Node and agent hold, the lease waits in `quoted`. Not firm: the price alone. */
  quote(
    by: Principal,
    request: QuoteRequest,
  ): Promise<Outcome<{ quote: Quote | IndicativeQuote }> | NothingFits>;
  /**
   * Holds every node of the order, or none. Idempotent by `key` while what it quoted stands or was funded; a retry
   * after a crash lets go of what the first try held and begins anew.
   */
  order(
    by: Principal,
    key: string | null,
    bodyHash: string,
    request: OrderRequest,
  ): Promise<Outcome<{ order: Order; replayed: boolean }> | NothingFits>;
  /** One authorization for all leases of a quoted order: all of them are funded by it, or all are let go. */
  fundOrder(by: Principal, id: OrderId, funding: OrderAuthorization): Promise<Outcome<{ order: Order }>>;
  viewOrder(by: Principal, id: OrderId): Promise<Outcome<{ order: Order }>>;
  /** Funds a quoted lease of this account and puts it into the warm pool. */
  openLease(by: Principal, lease: LeaseId, funding: LeaseFunding): Promise<Outcome<{ lease: LeaseView }>>;
  /**
   * Idempotent by `key` (Idempotency-Key or client-made id; else the nonce). `bodyHash` guards against reuse.
   * Without a lease that fits: `payment_required` with a quote to sign. `routes`: requests with this demand may go to the
   * job's lease straight away.
   */
  submit(
    by: Principal,
    key: string | null,
    bodyHash: string,
    request: RoutedJobRequest,
    clientId: string | null,
  ): Promise<Outcome<{ job: JobView; replayed: boolean; routes: boolean }> | PaymentNeeded>;
  /** The job that a client-made id stands for. */
  resolve(clientId: string): Promise<JobId | null>;
  /** Open leases of this account that would do for the jobs of this one, cheapest first (SPEC JOB-11). */
  places(lease: LeaseId): Promise<LeaseId[]>;
  /** Leases of this account that have not ended, newest first. */
  leases(): Promise<LeaseId[]>;
  /** The wallet grants a session. */
  openSession(by: Principal, grant: SessionGrant): Promise<Outcome<{ session: SessionView }>>;
  /** Newest first, also those that are over and not forgotten yet. */
  sessions(by: Principal): Promise<Outcome<{ sessions: SessionView[] }>>;
  /** By the wallet, or by the session itself. Idempotent; tells the leases that know it. */
  revokeSession(by: Principal, session: SessionId): Promise<Outcome<{ session: SessionView }>>;
  /** Whether the session by which the principal comes stands: open, and not revoked. */
  sessionStands(by: Principal): Promise<Outcome>;
  /**
   * Vouches for the principal's session at a lease that does not know it (`needs` of 0), or asks for a ceiling of
   * `needs` there, out of the session's cap.
   */
  admitSession(by: Principal, lease: LeaseId, needs: bigint): Promise<Outcome>;
}

export interface NothingFits extends Refused {
  readonly wait?: Wait;
}

export interface Wait {
  readonly possible: boolean;
  /** Of an order: how many nodes could be held of those wanted. */
  readonly found?: number;
  readonly wanted?: number;
  readonly blockers: Partial<Record<Blocker, number>>;
}

/**
 * `payment_required` brings the quote to sign, the allowance that the job will need, and what to sign where credit
 * suffices; `allowance_required` the lease and the cumulative to allow.
 */
export interface PaymentNeeded extends Refused {
  readonly quote?: Quote;
  readonly credit?: CreditOffer;
  readonly allowance?: {
    readonly lease_id: LeaseId;
    readonly lease_hash: string;
    readonly cumulative: string;
  };
  readonly wait?: Wait;
  /** Of an array of jobs: the one for which none was taken. */
  readonly index?: number;
  /** Of `session_cap_exceeded`, from a Lease to who asks the Account: the ceiling that the job needs there. */
  readonly needs?: bigint;
}
