import type { FromLease } from "@gpux/protocol/frames";
import { type AutoTopUp, fundingKey, type LeaseFunding } from "@gpux/protocol/funding";
import type { Address, Bytes32, HexBytes, JobId, LeaseId } from "@gpux/protocol/ids";
import type { IntentDone, IntentKind, IntentRefusalCode } from "@gpux/protocol/intent";
import type { JobRequest } from "@gpux/protocol/job";
import { LeaseTransaction } from "@gpux/protocol/lease";
import type { FundingPlan } from "@gpux/protocol/order";
import type { Carried } from "../interfaces.ts";
import { giveUpRaises, leave, refill } from "./auto-top-up.ts";
import { type Arrivals, admitAll } from "./batch.ts";
import { completeBlock, settleDue, settleNow } from "./blocks.ts";
import { answered, type CapacityBlocker, tend } from "./capacity.ts";
import { type Draft, draftOf, tellVoucher } from "./draft.ts";
import { drain, end, lapse } from "./ending.ts";
import { eventsOf, type LeaseEntry } from "./events.ts";
import { extend } from "./extension.ts";
import { fund, funded, fundingRefused, reserve, topUp, unfunded } from "./funding.ts";
import { isFinal, isLeaving, isTerminal } from "./job-state.ts";
import { type Arrival, admit, type Refusal, refuse, restore } from "./jobs.ts";
import { frame, refused } from "./link.ts";
import { adopt, moved, offer } from "./moves.ts";
import { cancel } from "./outcome.ts";
import { breakClock } from "./service.ts";
import { isOpenedFromCredit, type State, withoutSettled } from "./state.ts";
import type { Ticket } from "./tickets.ts";
import { advance } from "./timers.ts";
import { dispatch } from "./turns.ts";

/** What happens to a lease. The shell has checked who may say so, and every signature that an event carries. */
export type Event =
  | { readonly t: "reserve"; readonly until: number }
  | { readonly t: "fund"; readonly funding: LeaseFunding; readonly plan?: FundingPlan | null }
  | { readonly t: "top_up"; readonly funding: LeaseFunding }
  | { readonly t: "auto_top_up"; readonly auto: AutoTopUp | null }
  | {
      readonly t: "relayed";
      readonly kind: IntentKind;
      /** Of a funding: which, by its key. */
      readonly funding?: string;
      readonly answer: IntentDone;
    }
  | {
      readonly t: "relay_refused";
      readonly kind: IntentKind;
      /** Of a funding: which, by its key; of a withdrawal: whose. */
      readonly funding?: string;
      readonly account?: Address;
      readonly code: IntentRefusalCode;
      readonly detail: string;
    }
  /** The relayer does not find the funding on chain that it had found there. */
  | { readonly t: "unfunded" }
  | { readonly t: "errand"; readonly done: "opened" | "metered" | "released" }
  /** The relayer keeps the voucher of `cumulative`. */
  | { readonly t: "held"; readonly cumulative: bigint }
  /** The node's answer to whether it lets the GPUs go, or gives them again; `blocker`: why it could not. */
  | { readonly t: "capacity"; readonly turn: number; readonly blocker: CapacityBlocker | null }
  /** The node no longer holds the GPUs: the funding landed after its reservation had lapsed. */
  | { readonly t: "node_refused"; readonly detail: string }
  | {
      readonly t: "attested";
      readonly sequence: number;
      readonly usage: HexBytes;
      readonly close: HexBytes | null;
    }
  /** Somebody waits for a receipt. */
  | { readonly t: "settle" }
  | ({ readonly t: "submit" } & Arrival)
  | ({ readonly t: "submit_all" } & Arrivals)
  | { readonly t: "cancel"; readonly job: JobId }
  /** Leases that would do for jobs that wait here in vain; `awaited`: jobs that stay (moves.ts). */
  | { readonly t: "places"; readonly leases: readonly LeaseId[]; readonly awaited: readonly JobId[] }
  /** What the lease that was asked to take jobs has answered. */
  | {
      readonly t: "moved";
      readonly to: LeaseId;
      readonly taken: readonly JobId[];
      readonly declined: readonly JobId[];
    }
  | { readonly t: "adopt"; readonly carried: Carried }
  | { readonly t: "close" }
  /** Its order is given up: nothing can land for it. */
  | { readonly t: "let_go" }
  | { readonly t: "extend"; readonly extendedS: number }
  | { readonly t: "frame"; readonly frame: FromLease }
  | { readonly t: "gone" }
  /** `secret`: random, for a lease that has none yet. */
  | { readonly t: "wake"; readonly connected: boolean; readonly secret?: Bytes32 }
  /** The agent brought back the ticket of a job whose row a crash took; the shell has checked it and the inputs. */
  | { readonly t: "restore"; readonly ticket: Ticket; readonly request: JobRequest }
  | { readonly t: "tick" };

/** More frames than one lease can send between two writes of its rows (store.ts). */
const SENT_PER_MOMENT = 4_096;

export type Step =
  | ({
      readonly ok: true;
      readonly next: State;
      /** Of the lease itself; those of its jobs are in `journal`. */
      readonly events: readonly LeaseEntry[];
    } & Pick<Draft, "frames" | "journal" | "passing">)
  | Refusal;

/**
 * The lease's whole behaviour (SPEC LSE-*, JOB-*, MTR-*). Pure: no clock, no I/O, no throw. What must be done
 * outside (relayer, meter, node) is not an effect of a step but a duty of a state (duties.ts), so it cannot be lost.
 */
export function step(state: State, event: Event, now: number): Step {
  const draft = draftOf(state, now);
  const refusal = apply(draft, event);
  if (refusal !== null) return refusal;
  advance(draft);
  refill(draft);
  tend(draft);
  dispatch(draft);
  settleDue(draft);
  const { lease, jobs, frames, journal, passing } = draft;
  const events = eventsOf(state.lease, lease);
  return { ok: true, next: { lease, jobs }, frames, journal, passing, events };
}

/** After the store has kept them, jobs and ticks that nothing more can happen to leave memory. */
export function prune(state: State): State {
  const live = [...state.jobs].filter(([, job]) => !isFinal(job));
  const lease = withoutSettled(state.lease);
  if (live.length === state.jobs.size && lease === state.lease) return state;
  return { lease, jobs: live.length === state.jobs.size ? state.jobs : new Map(live) };
}

function apply(draft: Draft, event: Event): Refusal | null {
  switch (event.t) {
    case "reserve":
      return reserve(draft, event.until);
    case "fund":
      return fund(draft, event.funding, event.plan ?? null);
    case "top_up":
      return topUp(draft, event.funding);
    case "auto_top_up":
      return leave(draft, event.auto);
    case "relayed":
      return relayed(draft, event);
    case "relay_refused":
      return relayRefused(draft, event);
    case "unfunded":
      unfunded(draft);
      return null;
    case "errand":
      draft.lease = { ...draft.lease, errands: { ...draft.lease.errands, [event.done]: true } };
      return null;
    case "held":
      if (event.cumulative > draft.lease.held.cumulative)
        draft.lease = { ...draft.lease, held: { cumulative: event.cumulative, at: draft.now } };
      return null;
    case "capacity":
      answered(draft, event);
      return null;
    case "node_refused":
      refused(draft, event.detail);
      return null;
    case "attested":
      attested(draft, event);
      return null;
    case "settle":
      settleNow(draft);
      return null;
    case "submit":
      return admit(draft, event);
    case "submit_all":
      return admitAll(draft, event);
    case "cancel": {
      const job = draft.jobs.get(event.job);
      if (job === undefined) return refuse("job_unknown");
      if (isTerminal(job)) return refuse("job_ended");
      if (isLeaving(job)) return refuse("job_moving");
      cancel(draft, job);
      return null;
    }
    case "places":
      offer(draft, event.leases, event.awaited);
      return null;
    case "moved":
      moved(draft, event);
      return null;
    case "adopt":
      return adopt(draft, event.carried);
    case "close":
      return close(draft);
    case "let_go":
      if (draft.lease.status === "quoted") lapse(draft);
      return null;
    case "extend":
      return extend(draft, event.extendedS);
    case "frame":
      return frame(draft, event.frame);
    case "gone":
      if (draft.lease.awayAt === null) draft.lease = { ...draft.lease, awayAt: draft.now };
      return null;
    case "wake": {
      // LNK-1: a new life of the object. A socket that did not survive (a crash, a deploy) left no close event.
      if (!event.connected) breakClock(draft);
      const { lease, now } = draft;
      draft.lease = {
        ...lease,
        epoch: lease.epoch + 1,
        secret: lease.secret ?? event.secret ?? null,
        // What the last life sent in its last moments may be in no row, and the agent drops a number that it has seen.
        sent: lease.sent + SENT_PER_MOMENT,
        awayAt: event.connected ? lease.awayAt : (lease.awayAt ?? now),
      };
      return null;
    }
    case "restore":
      restore(draft, event.ticket, event.request);
      return null;
    case "tick":
      return null;
  }
}

function record(draft: Draft, event: { kind: IntentKind; funding?: string; answer: IntentDone }): void {
  const { txHash, cost, result } = event.answer;
  const recorded = LeaseTransaction.shape.kind.safeParse(event.kind);
  if (txHash === null || cost === null || !recorded.success) return;
  const kind = recorded.data;
  const { transactions, errands } = draft.lease;
  const known = transactions.find((each) => each.hash === txHash && each.kind === kind);
  // Withdrawals may share a transaction, of which each answer tells its share; of the others there is one.
  if (result.kind === "withdraw" ? !errands.withdraw.includes(result.account) : known !== undefined) return;
  const { gas, bytes, l1Fee } = shareOf(draft, event);
  const transaction = {
    kind,
    hash: txHash,
    gas: (BigInt(known?.gas ?? 0) + gas).toString(),
    calldata_bytes: (known?.calldata_bytes ?? 0) + Number(bytes),
    l1_fee: (BigInt(known?.l1_fee ?? 0) + l1Fee).toString(),
  };
  const others = transactions.filter((each) => each !== known);
  draft.lease = { ...draft.lease, transactions: [...others, transaction] };
}

/** ORD-5: the leases of an order bear the cost of their one funding in equal parts that add up to it. */
function shareOf({ lease: { plan, funding } }: Draft, event: { funding?: string; answer: IntentDone }) {
  const { cost } = event.answer;
  const whole = { gas: cost?.gasUsed ?? "0", bytes: cost?.calldataBytes ?? 0, l1Fee: cost?.l1Fee ?? "0" };
  const isOpening = funding !== null && event.funding === fundingKey(funding);
  const parts = plan !== null && isOpening ? BigInt(plan.terms.length) : 1n;
  const part = (total: string | number) => {
    const rest = BigInt(plan?.index ?? 0) < BigInt(total) % parts ? 1n : 0n;
    return BigInt(total) / parts + (parts === 1n ? 0n : rest);
  };
  return { gas: part(whole.gas), bytes: part(whole.bytes), l1Fee: part(whole.l1Fee) };
}

/** LSE-3: what the chain says came of an intent. Truth: it wins over what we thought. */
function relayed(draft: Draft, event: Extract<Event, { t: "relayed" }>): Refusal | null {
  record(draft, event);
  const { result } = event.answer;
  const { lease } = draft;
  switch (result.kind) {
    case "fund":
    case "allocate":
      if (event.funding !== undefined) funded(draft, event.funding, result, event.answer);
      return null;
    case "settle":
      // An answer may come late, after the close that paid more.
      if (BigInt(result.paid) > lease.settled) draft.lease = { ...lease, settled: BigInt(result.paid) };
      return null;
    case "close":
    case "reclaim": {
      const { provider, feeRecipient, feeBps, payer } = lease.terms;
      const paid = BigInt(result.paid);
      const owed = [
        ...(paid > 0n ? [provider] : []),
        ...(paid > 0n && feeBps > 0 ? [feeRecipient] : []),
        ...(BigInt(result.refunded) > 0n && !isOpenedFromCredit(lease) ? [payer] : []),
      ];
      const errands = { ...lease.errands, withdraw: [...new Set(owed)] };
      draft.lease = {
        ...lease,
        settled: paid,
        errands,
        end: lease.end ?? { reason: "closed_by_consumer", fault: "tenant" },
      };
      end(draft, "closed");
      return null;
    }
    case "withdraw":
      paidOut(draft, result.account);
      return null;
    default:
      return null;
  }
}

function paidOut(draft: Draft, account: Address | undefined): void {
  const { errands } = draft.lease;
  const withdraw = errands.withdraw.filter((each) => each !== account);
  draft.lease = { ...draft.lease, errands: { ...errands, withdraw } };
}

/** The relayer will not land it. What is not told apart here is tried again. */
function relayRefused(draft: Draft, event: Extract<Event, { t: "relay_refused" }>): Refusal | null {
  if (event.funding !== undefined) {
    fundingRefused(draft, event.funding, event.code, event.detail);
    if (event.code !== "relayer_low_balance") giveUpRaises(draft, event.funding);
  }
  if (
    event.kind === "settle" &&
    (event.code === "nothing_due" || event.code === "stale") &&
    draft.lease.voucher !== null
  )
    draft.lease = { ...draft.lease, settled: draft.lease.voucher.cumulative };
  // LSE-6: a reorganisation took its funding back and nothing can bring it again: of nothing, nothing is paid.
  const asksForMoney = event.kind === "reclaim" || event.kind === "settle";
  if (asksForMoney && event.code === "lease_not_open" && draft.lease.status === "lost" && isSpent(draft))
    end(draft, "expired");
  // Somebody else paid it out: anyone may.
  if (event.kind === "withdraw" && event.code === "nothing_due") paidOut(draft, event.account);
  return null;
}

/** No authorization that could open the lease on chain is good any more. */
function isSpent({ lease: { funding, topUps }, now }: Draft): boolean {
  const all = [...(funding === null ? [] : [funding]), ...topUps.map((each) => each.funding)];
  return all.every((each) => now >= each.valid_before * 1_000);
}

/** MTR-5: the meter's signatures complete the voucher with its receipts, and the close. */
function attested(draft: Draft, event: Extract<Event, { t: "attested" }>): void {
  const { block, closing } = draft.lease;
  if (closing !== null && event.close !== null)
    draft.lease = { ...draft.lease, closing: { ...closing, meter: event.close } };
  if (block === null || block.sequence !== event.sequence) return;
  completeBlock(draft, event.usage);
  tellVoucher(draft);
}

/** LSE-5: the consumer is done. Queued and running jobs still end; new ones are refused. */
function close(draft: Draft): Refusal | null {
  const { lease, now } = draft;
  if (lease.status === "quoted") {
    // The funding that is on its way would open it without what its node kept for it.
    if (now < lease.reservedUntil)
      return refuse("lease_closed", "its order is being funded; close it once it is active");
    lapse(draft);
  } else if (lease.status === "active") drain(draft, { reason: "closed_by_consumer", fault: "tenant" });
  else if (lease.status === "funding" || lease.status === "suspended")
    return refuse("lease_closed", "its funding is still landing; close it once it is active");
  return null;
}
