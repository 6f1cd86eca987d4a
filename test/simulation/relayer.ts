import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { Bytes32 } from "@gpux/protocol/ids";
import {
  type Intent,
  type IntentAnswer,
  type IntentDone,
  type IntentKey,
  type IntentResult,
  intentKey,
} from "@gpux/protocol/intent";
import type { TypedDataHasher } from "@gpux/protocol/typed-data-encoder";
import { Actor, type Flow } from "./actor.ts";
import { Bell } from "./bell.ts";
import { type Chain, type Included, REORG_BLOCKS, type Transaction } from "./chain.ts";
import { creditDone } from "./credit-done.ts";
import { INCLUDED_UP_TO } from "./escrow.ts";
import type { Schedule } from "./schedule.ts";

type Settle = Extract<Intent, { kind: "settle" }>;

const CONFIRM_BLOCKS = 5;
const HOLD_VALUE = 5_000_000n;
/** How long a call waits for inclusion before it answers `pending`. */
const PATIENCE_MS = 2_000;
/** For so long after a reorganisation it tries to bring back what was there. */
const RELAND_MS = 60_000;

interface Known {
  readonly intent: Intent;
  included: { readonly number: number; readonly timestamp: number; readonly result: IntentResult } | null;
}

/** The relayer as its callers see it, honest and durable; its own machine has its own tests. */
export class Relayer extends Actor {
  readonly #known = new Map<IntentKey, Known>();
  readonly #held = new Map<Bytes32, Settle>();
  readonly #chain: Chain;
  readonly #schedule: Schedule;
  readonly #hasher: TypedDataHasher;
  readonly #takenBack = new Map<IntentKey, number>();
  /** What was done once, by whomever, and a reorganisation undid. */
  readonly #undone = new Set<IntentKey>();
  readonly #refused = new Set<IntentKey>();
  readonly #landed: Bell;
  #strangers = 0;
  /** What each transaction of ours cost; sent again after a reorganisation it is the same one. */
  readonly costs = new Map<IntentKey, { readonly txHash: Bytes32; readonly gas: bigint }>();
  /** A planted bug: the first block counts as hard as the last. */
  isHasty = false;

  constructor(chain: Chain, schedule: Schedule, hasher: TypedDataHasher) {
    super("relayer");
    this.#chain = chain;
    this.#schedule = schedule;
    this.#landed = new Bell(schedule);
    this.#hasher = hasher;
    chain.onIncluded = (included) => this.#included(included);
    chain.onTakenBack = (transaction) => {
      // What others landed may be gone with it.
      for (const [key, known] of this.#known) {
        if (known.included === null || known.included.number <= chain.height - REORG_BLOCKS) continue;
        known.included = null;
        this.#undone.add(key);
      }
      this.#takenBack.set(transaction.key, schedule.now);
      if (transaction.intent.kind === "withdraw") this.#againSoon(transaction);
      else chain.send(transaction);
    };
  }

  *submit(intent: Intent): Flow<IntentAnswer> {
    const key = intentKey(this.#hasher, intent);
    const known = this.#known.get(key);
    if (known?.included == null) {
      const judged = this.#judge(key, intent);
      if (judged !== null) return judged;
      // A close that is signed again means the same and lasts longer: the newest is what lands.
      this.#known.set(key, { intent, included: null });
      this.#chain.send({ key, intent });
      const until = this.#schedule.now + PATIENCE_MS;
      while (this.#known.get(key)?.included == null && this.#schedule.now < until)
        yield* this.#landed.wait(until);
    }
    const { included } = this.#known.get(key) ?? {};
    return included == null
      ? { status: "pending", key, txHash: null }
      : this.#done(key, intent, included, false);
  }

  /** Somebody else lands what we were asked to, before or after us. */
  supersede(choose: (intents: readonly Intent[]) => Intent): void {
    // One that was refused and is good for a while yet is known to be a loss of time for its payer (docs/simulation.md).
    const waiting = [...this.#known].flatMap(([key, { intent, included }]) =>
      included === null && !this.#refused.has(key) ? [intent] : [],
    );
    if (waiting.length === 0) return;
    this.#strangers += 1;
    this.#chain.send({ key: `stranger:${this.#strangers}`, intent: choose(waiting) });
  }

  *hold(voucher: Settle): Flow<IntentAnswer> {
    const id = this.#hasher.leaseTerms(voucher.terms);
    const before = this.#held.get(id);
    if (before === undefined) this.#landBeforeExpiry(id, voucher.terms);
    if (before === undefined || before.cumulative < voucher.cumulative) this.#held.set(id, voucher);
    const paid = this.#chain.escrow.leases.get(id)?.paid ?? 0n;
    if (voucher.cumulative - paid >= HOLD_VALUE) this.#land(id);
    yield (resume) => resume();
    return { status: "pending", key: intentKey(this.#hasher, voucher), txHash: null };
  }

  #landBeforeExpiry(id: Bytes32, terms: LeaseTerms): void {
    this.#schedule.at(terms.expiry * 1_000, "held voucher falls due", () => this.#land(id));
  }

  #land(id: Bytes32): void {
    const voucher = this.#held.get(id);
    if (voucher === undefined || this.#chain.escrow.leases.get(id)?.status !== "open") return;
    this.#chain.send({ key: intentKey(this.#hasher, voucher), intent: voucher });
  }

  /** Refused, or done by somebody already; null when it is worth a transaction. */
  #judge(key: IntentKey, intent: Intent): IntentAnswer | null {
    const timestamp = Math.floor(this.#schedule.now / 1_000);
    const tried = this.#chain.escrow.copy().land(intent, timestamp);
    if (tried.ok) return null;
    const found = this.#foundDone(intent);
    if (found === "premature") return { status: "pending", key, txHash: null };
    if (found !== null) {
      const included = { number: this.#chain.height, timestamp, result: found };
      this.#known.set(key, { intent, included });
      return this.#done(key, intent, included, true);
    }
    // What is on its way is judged by the block that has it.
    const isMoney = intent.kind === "allocate" || intent.kind === "fund";
    if (isMoney && this.#isOnItsWay(key)) return { status: "pending", key, txHash: null };
    this.#refused.add(key);
    return { status: "rejected", key, code: tried.code, detail: tried.detail };
  }

  #isOnItsWay(key: IntentKey): boolean {
    return this.#chain.isWaiting(key) || this.#schedule.now < (this.#takenBack.get(key) ?? 0) + RELAND_MS;
  }

  #foundDone(intent: Intent): IntentResult | "premature" | null {
    const { escrow } = this.#chain;
    const known = [...this.#known.values()].map((each) => each.intent);
    const ofCredit = creditDone(escrow, this.#hasher, intent, known);
    if (ofCredit !== null) return ofCredit;
    if (intent.kind === "withdraw") {
      if ((escrow.owed.get(intent.account) ?? 0n) > 0n) return null;
      return this.#closedFor(intent.occasion)
        ? { kind: "withdraw", account: intent.account, amount: "0" }
        : "premature";
    }
    if (intent.kind === "fund") {
      const { terms, amounts, salt, from } = intent;
      const leaseIds = terms.map((each) => this.#hasher.leaseTerms(each));
      if (
        from !== terms[0]?.payer ||
        !escrow.usedSalts.has(this.#hasher.fundingNonce({ leaseIds, amounts, salt }))
      )
        return null;
      const leases = leaseIds.map((leaseId) => {
        const lease = escrow.leases.get(leaseId);
        return { leaseId, funded: (lease?.funded ?? 0n).toString(), openedAt: lease?.openedAt ?? 0 };
      });
      return { kind: "fund", leases };
    }
    if (intent.kind !== "settle" && intent.kind !== "close" && intent.kind !== "reclaim") return null;
    const leaseId = this.#hasher.leaseTerms(intent.terms);
    const lease = escrow.leases.get(leaseId);
    if (lease === undefined) return null;
    const paid = lease.paid.toString();
    const refunded = lease.refunded.toString();
    if (intent.kind === "settle")
      return lease.paid >= intent.cumulative ? { kind: "settle", leaseId, paid, fee: null } : null;
    if (lease.status !== "closed") return null;
    return intent.kind === "close"
      ? { kind: "close", leaseId, paid, refunded, fee: null }
      : { kind: "reclaim", leaseId, paid, refunded };
  }

  /** Names of leases by their terms, for the occasions of withdrawals. */
  readonly leaseNames = new Map<LeaseTerms, string>();

  /** Leases of whose fundings a reorganisation took one back, for good or until it landed again in another order. */
  get undone(): ReadonlySet<Bytes32> {
    const terms = [...this.#undone].flatMap((key) => {
      const intent = this.#known.get(key)?.intent;
      return intent?.kind === "fund" || intent?.kind === "allocate" ? intent.terms : [];
    });
    return new Set(terms.map((each) => this.#hasher.leaseTerms(each)));
  }

  /** Leases of whose fundings a reorganisation took one back for good. */
  get neverLanded(): ReadonlySet<Bytes32> {
    const lost = [...this.#takenBack.keys(), ...this.#undone].flatMap((key) => {
      const known = this.#known.get(key);
      const isMoney = known?.intent.kind === "fund" || known?.intent.kind === "allocate";
      return isMoney && known.included === null ? known.intent.terms : [];
    });
    return new Set(lost.map((terms) => this.#hasher.leaseTerms(terms)));
  }

  #included({ transaction: { key, intent }, outcome, number, timestamp }: Included): void {
    const known = this.#known.get(key) ?? { intent, included: null };
    if (!this.costs.has(key)) {
      const serial = this.costs.size + 1;
      this.costs.set(key, {
        txHash: `0x${serial.toString(16).padStart(64, "0")}`,
        gas: 21_000n + BigInt(serial),
      });
    }
    if (outcome.ok) known.included = { number, timestamp, result: outcome.result };
    // What a reorganisation took back lands again, and what rests on something else after it.
    else this.#againSoon({ key, intent });
    this.#known.set(key, known);
    this.#landed.ring();
  }

  /** RLY-8: a payout waits for the close that it is for, or it would pay another's and be done. */
  #againSoon(transaction: Transaction): void {
    const { key, intent } = transaction;
    if (this.#schedule.now >= (this.#takenBack.get(key) ?? 0) + RELAND_MS) return;
    this.#schedule.at(this.#schedule.now + 1_000, "lands again", () => {
      const isReady = intent.kind !== "withdraw" || this.#closedFor(intent.occasion);
      if (isReady) this.#chain.send(transaction);
      else this.#againSoon(transaction);
    });
  }

  #closedFor(occasion: string): boolean {
    // What its account asks for by itself rests on nothing.
    if (!occasion.startsWith("lse_")) return true;
    const leases = [...this.#chain.escrow.leases.values()];
    return leases.some(({ terms, status }) => status === "closed" && this.leaseNames.get(terms) === occasion);
  }

  #done(key: IntentKey, intent: Intent, at: NonNullable<Known["included"]>, superseded: boolean): IntentDone {
    const depth = this.#chain.height - at.number;
    const amounts =
      intent.kind === "fund" ? intent.amounts : intent.kind === "allocate" ? intent.fundedTo : [];
    const value = amounts.reduce((sum, amount) => sum + amount, 0n);
    const isConfirmed = depth >= CONFIRM_BLOCKS;
    const cost = superseded ? undefined : this.costs.get(key);
    return {
      status: "done",
      key,
      superseded,
      txHash: cost?.txHash ?? null,
      blockNumber: at.number,
      blockHash: `0x${"0b".repeat(32)}`,
      blockTimestamp: at.timestamp,
      result: at.result,
      cost:
        cost === undefined
          ? null
          : { gasUsed: cost.gas.toString(), effectiveGasPrice: "1", l1Fee: "1", calldataBytes: 1 },
      confirmation: isConfirmed ? "confirmed" : "included",
      enough: this.isHasty || isConfirmed || value <= INCLUDED_UP_TO,
    };
  }
}
