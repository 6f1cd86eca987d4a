import { z } from "zod";
import { Verdict } from "./challenge/verdict.ts";
import { LeaseTerms, Receipt } from "./eip712.ts";
import { Address, Bytes32, HexBytes, JobId, LeaseId, Sha256 } from "./ids.ts";
import { AttemptToken, Checkpoint, InputValue, MOST_IN_BATCH, Output, SignedAllowance } from "./job.ts";
import { QuoteText } from "./lease.ts";
import { Amount } from "./money.ts";
import { Offer, Resources } from "./resources.ts";

/**
 * The agent link. Two sockets, both dialled by the agent: one control socket per node (Node object) and one data
 * socket per lease (Lease object). JSON text frames `{v, seq, ack, t, ...}`; `ping`/`pong` texts are heartbeats.
 *
 * Reliable frames carry `seq` >= 1, rising by one per sender and socket scope (node, or lease), over all
 * connections; the receiver drops what it has seen and acknowledges by `ack` = the highest seq it has dealt with,
 * on any frame it sends, or by an `ack` frame. The sender keeps and replays what is not acknowledged.
 * Volatile frames (`seq` 0: hello, welcome, ack, progress, log) are never replayed.
 */
export const FRAME_VERSION = 1;

/** Longest text frame either side accepts, in UTF-16 units; checked before parsing. */
export const FRAME_LIMIT = 64 * 1024;

/** Longest ticket, in UTF-16 units. */
export const TICKET_LIMIT = 2_000;

/** The highest seq that one side may tell the other it knows of. No honest link comes near. */
export const MAX_KNOWN_SEQ = 2 ** 48;

/** Close codes of both sockets. */
export const CLOSE = {
  /** Unknown version or frame, or a frame that does not fit its schema: a bug; reconnecting will not help. */
  badFrame: 4400,
  /** The upgrade was authentic, but this key may not speak here. */
  forbidden: 4403,
  /** A newer connection of the same node took over: stop reconnecting. */
  replaced: 4409,
  /** The lease is over: forget it. */
  gone: 4410,
} as const;

const ChallengeId = z.uuid();

const head = { v: z.literal(FRAME_VERSION), seq: z.int().min(0), ack: z.int().min(0) };
const frame = <T extends string, S extends z.core.$ZodLooseShape>(t: T, shape: S) =>
  z.strictObject({ ...head, t: z.literal(t), ...shape });
const ack = frame("ack", {});

/** Control socket, agent to edge. */
export const FromNode = z.discriminatedUnion("t", [
  frame("hello", {
    agent_version: z.string().max(40),
    /** Payout address; stands as `provider` in the terms that this node accepts. */
    provider: Address,
    offer: Offer,
    /** Leases that the agent still serves; the welcome answers which of them are over. */
    leases: z.array(LeaseId).max(64),
    draining: z.boolean(),
    /** As `claim`. */
    claimed: z.int().min(0).max(64).default(0),
    /** It answers a `challenge`. */
    challenges: z.boolean().optional(),
  }),
  frame("offer", { offer: Offer }),
  frame("held", { hold: LeaseId }),
  frame("declined", { hold: LeaseId, reason: z.string().max(200) }),
  /** As on data sockets; the Node only hears that nothing new may come. */
  frame("drain", { deadline_s: z.int().min(0) }),
  /** So many GPUs the owner uses for himself now; answered by a `yield` for each lease that must leave for it. */
  frame("claim", { gpus: z.int().min(0).max(64) }),
  /** The function's first output, base64. */
  frame("proof", { challenge: ChallengeId, output: z.base64().max(48 * 1024) }),
  /** There will be none: the GPU has other work, or has had enough of them. */
  frame("unproven", { challenge: ChallengeId, reason: z.string().max(200) }),
  ack,
]);
export type FromNode = z.output<typeof FromNode>;

/** Control socket, edge to agent. `hold` names the lease that would open, so a hold and its lease share one name. */
export const ToNode = z.discriminatedUnion("t", [
  frame("welcome", {
    heartbeat_s: z.int(),
    /** Of the leases named in hello and those the node should serve: the authoritative list. */
    leases: z.array(LeaseId),
  }),
  frame("reject", { code: z.string(), detail: z.string().optional() }),
  frame("hold", {
    hold: LeaseId,
    resources: Resources,
    terms: LeaseTerms,
    /** Which cards, at what prices: the preimage of `terms.quote`. Optional only for frames that were stored without. */
    text: QuoteText.optional(),
    expires_at: z.iso.datetime(),
  }),
  frame("release", { hold: LeaseId }),
  /** The funding is on chain, or the lease has work again: its resources are its own, dial its data socket. */
  frame("open", { lease: LeaseId, terms: LeaseTerms }),
  /** The lease has no work: its resources are free for others, hang up its data socket and keep its journal. */
  frame("rest", { lease: LeaseId }),
  /** The owner or a firm demand takes the GPUs of this yieldable lease in so long: say so on its data socket. Sent again it says what is left. */
  frame("yield", { lease: LeaseId, notice_s: z.int().min(0).max(3_600) }),
  /** Dial the data socket of a lease that rests, for what needs no resources: its close is to be signed. */
  frame("dial", { lease: LeaseId }),
  /**
   * Volatile: run this function now, and say what it made. Only to nodes that answer challenges (`hello`), while they have
   * no other work; the time until the answer is here counts.
   */
  frame("challenge", {
    challenge: ChallengeId,
    /** A manifest, checked as any other before it runs. */
    function: z.record(z.string(), z.unknown()),
    inputs: z.record(z.string(), z.number()),
    execution_ms: z.int().min(1),
  }),
  /** Volatile: what came of it, for the owner to read. */
  frame("verdict", { verdict: Verdict }),
  ack,
]);
export type ToNode = z.output<typeof ToNode>;

const attempt = { job: JobId, attempt: AttemptToken };

/** When a job's turn comes among those of its lease: the higher priority first, then the lower number. */
export const Turn = z.strictObject({ priority: z.int(), n: z.int().min(1) });
export type Turn = z.output<typeof Turn>;

const run = {
  ...attempt,
  function: Sha256,
  inputs: z.record(z.string(), InputValue),
  execution_ms: z.int().min(1),
  max_price: Amount,
  /** Cumulative usage that the lease would reach at most with this job and those before it. */
  committed: Amount,
  allowance: SignedAllowance.optional(),
  /**
   * There: should the attempt have to give way, its work is to be kept. Not null: it goes on from this one. Said only to
   * agents that know of it (`hello`).
   */
  checkpoint: Checkpoint.nullable().optional(),
  /**
   * Its place in the lease's line, by priority and then by age: the agent may have it before there is room for it. Said only
   * to agents that know of it (`hello`).
   */
  turn: Turn.optional(),
  /** The edge has not written the job down yet: to be kept with its end, and given back by `accepted`. */
  ticket: z.string().max(TICKET_LIMIT).optional(),
};

/** Data socket, agent to edge. `ms` is the agent's own measure of running time, whole milliseconds. */
export const FromLease = z.discriminatedUnion("t", [
  frame("hello", {
    /** Attempts that the agent is running or whose result it still has unacknowledged. */
    attempts: z.array(z.strictObject(attempt)).max(1_024),
    /**
     * Highest edge seq that the agent has dealt with, from its journal. The edge goes on from there, so it is bounded:
     * from the largest safe integer there would be no way on.
     */
    last_seq: z.int().min(0).max(MAX_KNOWN_SEQ),
    /** It keeps the work of attempts that give way (`yielded`). */
    checkpoints: z.boolean().optional(),
    /** It may be sent jobs before their turn, and begins them by itself, in turn, as many at once as the lease runs. */
    prefetches: z.boolean().optional(),
  }),
  /**
   * Volatile, right before an end that is said again: its job, as `run` gave it, with the ticket that came with it. For an
   * edge that crashed before it had written the job down.
   */
  frame("accepted", {
    ...attempt,
    function: Sha256,
    inputs: z.record(z.string(), InputValue),
    ticket: z.string().max(TICKET_LIMIT),
  }),
  /** `ms` ago (0). Not told of an attempt that succeeds at once: its `result` says how long it ran. */
  frame("started", { ...attempt, ms: z.int().min(0).optional() }),
  frame("progress", { ...attempt, fraction: z.number().min(0).max(1), note: z.string().max(200).optional() }),
  frame("log", { ...attempt, line: z.string().max(4_000) }),
  frame("result", {
    ...attempt,
    ms: z.int().min(0),
    gpu: z.string().max(128),
    outputs: z.array(Output).max(64),
  }),
  frame("failed", {
    ...attempt,
    ms: z.int().min(0),
    gpu: z.string().max(128),
    code: z.string().max(40),
    detail: z.string().max(4_000).optional(),
  }),
  /** The attempt was stopped as `cancel` asked. */
  frame("stopped", { ...attempt, ms: z.int().min(0), gpu: z.string().max(128) }),
  /** The attempt gave way as `yield` had said that it would; what it had done after `ms` is in the store. */
  frame("yielded", { ...attempt, ms: z.int().min(0), gpu: z.string().max(128), checkpoint: Checkpoint }),
  /** The agent has read on chain that the lease is open and funded, and serves it: a dedicated one is billed from here. */
  frame("serving", {}),
  /**
   * Volatile, the answer to `tick` number `n`: for so long altogether the lease was served here, by the agent's own
   * clock, which runs while the link is up and the edge has said that time counts.
   */
  frame("served", { n: z.int().min(1), ms: z.int().min(0) }),
  /** The provider's signature that `settle` asked for: over the usage, whose evidence commits to every receipt. */
  frame("signed", {
    usage: z.strictObject({
      cumulative: Amount,
      /** Missing from what agents before 0.2 have journalled: then nothing that is asked for now is meant. */
      evidence: Bytes32.optional(),
      signature: HexBytes,
    }),
    /** Agents before 0.2 signed each receipt by itself; passed over. */
    receipts: z
      .array(z.strictObject({ sequence: z.int().min(1), signature: HexBytes }))
      .max(1_024)
      .optional(),
  }),
  frame("close_signed", { cumulative: Amount, valid_before: z.int(), signature: HexBytes }),
  /**
   * The node stops in so long: nothing new is begun, and what runs may end until then. It counts from when the frame is
   * sent, by no clock but the agent's own: sent again after an outage it says what is left.
   */
  frame("drain", { deadline_s: z.int().min(0).max(86_400) }),
  /** The lease's GPUs are taken back in so long, as with `drain`; what still runs then is stopped, and goes back to the queue. */
  frame("yield", { notice_s: z.int().min(0).max(3_600) }),
  /** The agent will not: `what` says to which request, `reason` why. A refusal to serve the lease ends it. */
  frame("refused", { what: z.enum(["lease", "settle", "close"]), reason: z.string().max(400) }),
  ack,
]);
export type FromLease = z.output<typeof FromLease>;

/** Data socket, edge to agent. */
export const ToLease = z.discriminatedUnion("t", [
  frame("welcome", {
    heartbeat_s: z.int(),
    epoch: z.int().min(1),
    terms: LeaseTerms,
    /** Highest agent seq that the edge has dealt with: drop what is journalled up to it. */
    last_seq: z.int().min(0),
    /** The authoritative list: stop every attempt that is not on it. */
    attempts: z.array(z.strictObject(attempt)),
  }),
  frame("run", run),
  /** Several at once, in order: each as if it had come by itself. */
  frame("runs", { runs: z.array(z.strictObject(run)).min(2).max(MOST_IN_BATCH) }),
  frame("cancel", { ...attempt, reason: z.string().max(200) }),
  /**
   * Volatile, of a dedicated lease: say how long it was served so far. `runs`: whether time counts from here on. Said
   * again after every welcome; until then nothing counts.
   */
  frame("tick", { n: z.int().min(1), runs: z.boolean() }),
  /** Sign this usage; `receipts` are what it adds, in order, and its evidence the Merkle root with them. */
  frame("settle", {
    usage: z.strictObject({ cumulative: Amount, evidence: Bytes32 }),
    receipts: z.array(Receipt).max(1_024),
  }),
  frame("close", { cumulative: Amount, evidence: Bytes32, valid_before: z.int() }),
  /**
   * The meter's signature over a usage that this agent has signed: with both the provider is paid without us. Volatile,
   * and said again after every hello.
   */
  frame("voucher", { cumulative: Amount, evidence: Bytes32, meter_signature: HexBytes }),
  ack,
]);
export type ToLease = z.output<typeof ToLease>;
