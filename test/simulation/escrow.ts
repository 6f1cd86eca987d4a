import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { Address, Bytes32 } from "@gpux/protocol/ids";
import type { Intent } from "@gpux/protocol/intent";
import type { TypedDataHasher } from "@gpux/protocol/typed-data-encoder";
import { type CreditIntent, Credits, landCredit } from "./escrow-credit.ts";
import { type EscrowLease, type EscrowRules, type Landed, refuse } from "./escrow-rules.ts";
import type { Keyring } from "./keyring.ts";

/** From expiry until anybody may send the rest back to the payer, in seconds, as the contract is deployed. */
export const EXIT_DELAY_S = 86_400;

/** As the relayer's policy has it by default: up to here inclusion is enough, in token base units. */
export const INCLUDED_UP_TO = 5_000_000n;

/** LeaseEscrow.sol as a model, with its token: what the market uses of it. */
export class Escrow {
  readonly leases: Map<Bytes32, EscrowLease>;
  readonly owed: Map<Address, bigint>;
  readonly wallets: Map<Address, bigint>;
  readonly usedSalts: Set<string>;
  readonly credits: Credits;
  /** The token's balance of the contract. */
  held: bigint;
  readonly #hasher: TypedDataHasher;
  readonly #keyring: Keyring;
  readonly #rules: EscrowRules;

  constructor(hasher: TypedDataHasher, keyring: Keyring, rules: EscrowRules, from?: Escrow) {
    this.#hasher = hasher;
    this.#keyring = keyring;
    this.#rules = rules;
    this.leases = new Map([...(from?.leases ?? [])].map(([id, lease]) => [id, { ...lease }]));
    this.owed = new Map(from?.owed);
    this.wallets = new Map(from?.wallets);
    this.usedSalts = new Set(from?.usedSalts);
    this.credits = new Credits(from?.credits);
    this.held = from?.held ?? 0n;
  }

  copy(): Escrow {
    return new Escrow(this.#hasher, this.#keyring, this.#rules, this);
  }

  /** Runs an intent in a block of time `atS` (seconds); a refusal changes nothing. */
  land(intent: Intent, atS: number): Landed {
    switch (intent.kind) {
      case "fund":
        return this.#fund(intent, atS);
      case "settle":
        return this.#settle(intent, atS);
      case "close":
        return this.#close(intent, atS);
      case "reclaim":
        return this.#reclaim(intent.terms, atS);
      case "withdraw":
        return this.#withdraw(intent.account);
      case "deposit":
      case "allocate":
      case "release":
      case "reclaim_credit":
        return this.#landCredit(intent, atS);
      default:
        return refuse("intent_invalid", `the model knows no ${intent.kind}`);
    }
  }

  /** The most that provider and meter can be paid by now. */
  due(lease: EscrowLease, cumulative: bigint, allowance: bigint, atS: number): bigint {
    const { terms, openedAt, funded } = lease;
    const elapsed = BigInt(Math.max(0, Math.min(atS, terms.expiry) - openedAt));
    const cap = terms.upfront + (terms.ratePerHour * elapsed) / 3_600n;
    const allowed = allowance > terms.unattended ? allowance : terms.unattended;
    return [cumulative, funded, cap, allowed].reduce((least, each) => (each < least ? each : least));
  }

  #fund(intent: Extract<Intent, { kind: "fund" }>, atS: number): Landed {
    const { from, terms, amounts, salt } = intent;
    const leaseIds = terms.map((each) => this.#hasher.leaseTerms(each));
    const nonce = this.#hasher.fundingNonce({ leaseIds, amounts, salt });
    if (!this.#keyring.isSigned(from, nonce, intent.signature)) return refuse("bad_signature");
    if (this.usedSalts.has(nonce) && !this.#rules.replaysFunding) return refuse("authorization_used");
    if (atS >= intent.validBefore) return refuse("expired");
    const total = amounts.reduce((sum, amount) => sum + amount, 0n);
    const wallet = this.wallets.get(from) ?? 0n;
    if (wallet < total) return refuse("insufficient_balance");
    for (const [at, id] of leaseIds.entries()) {
      const known = this.leases.get(id);
      if (atS >= (terms[at]?.expiry ?? 0)) return refuse("expired");
      if (known === undefined && terms[at]?.payer !== from) return refuse("not_payer");
      if (known?.status === "closed") return refuse("lease_closed");
    }
    this.usedSalts.add(nonce);
    this.wallets.set(from, wallet - total);
    this.held += total;
    const leases = leaseIds.map((id, at) => {
      const its = terms[at];
      if (its === undefined) throw new Error("a lease without terms");
      const lease = this.raise(id, its, amounts[at] ?? 0n, atS, false);
      return { leaseId: id, funded: lease.funded.toString(), openedAt: lease.openedAt };
    });
    return { ok: true, result: { kind: "fund", leases } };
  }

  /** Opens a lease, or adds to it. */
  raise(id: Bytes32, terms: LeaseTerms, more: bigint, atS: number, fromCredit: boolean): EscrowLease {
    const lease = this.leases.get(id) ?? {
      terms,
      status: "open" as const,
      funded: 0n,
      paid: 0n,
      refunded: 0n,
      openedAt: atS,
      fromCredit,
      allocated: 0n,
    };
    lease.funded += more;
    this.leases.set(id, lease);
    return lease;
  }

  #landCredit(intent: CreditIntent, atS: number): Landed {
    const vault = { escrow: this, hasher: this.#hasher, keyring: this.#keyring, rules: this.#rules };
    return landCredit(vault, intent, atS);
  }

  #settle(intent: Extract<Intent, { kind: "settle" }>, atS: number): Landed {
    const id = this.#hasher.leaseTerms(intent.terms);
    const lease = this.leases.get(id);
    if (lease === undefined) return refuse("lease_not_open");
    if (lease.status === "closed") return refuse("lease_closed");
    const { cumulative, evidence } = intent;
    const digest = this.#hasher.usage({ leaseId: id, cumulative, evidence });
    if (!this.#isPair(intent, digest)) return refuse("bad_signature");
    const paid = this.due(lease, cumulative, this.#allowed(id, intent), atS);
    if (paid <= lease.paid) return refuse("nothing_due");
    this.#pay(lease, paid);
    return { ok: true, result: { kind: "settle", leaseId: id, paid: paid.toString(), fee: null } };
  }

  #close(intent: Extract<Intent, { kind: "close" }>, atS: number): Landed {
    const id = this.#hasher.leaseTerms(intent.terms);
    const lease = this.leases.get(id);
    if (atS >= intent.validBefore) return refuse("expired");
    if (lease === undefined) return refuse("lease_not_open");
    if (lease.status === "closed") return refuse("lease_closed");
    const { cumulative, evidence, validBefore } = intent;
    const digest = this.#hasher.close({ leaseId: id, cumulative, evidence, validBefore });
    if (!this.#isPair(intent, digest)) return refuse("bad_signature");
    if (cumulative < lease.paid) return refuse("stale");
    const due = this.due(lease, cumulative, this.#allowed(id, intent), atS);
    if (cumulative > due) return refuse("above_due", `${cumulative} > ${due}`);
    this.#pay(lease, this.#rules.closeClips ? lease.paid : due);
    const refunded = this.#end(lease);
    return {
      ok: true,
      result: {
        kind: "close",
        leaseId: id,
        paid: lease.paid.toString(),
        refunded: refunded.toString(),
        fee: null,
      },
    };
  }

  #reclaim(terms: LeaseTerms, atS: number): Landed {
    const id = this.#hasher.leaseTerms(terms);
    const lease = this.leases.get(id);
    if (lease === undefined) return refuse("lease_not_open");
    if (lease.status === "closed") return refuse("lease_closed");
    if (atS < terms.expiry + EXIT_DELAY_S) return refuse("too_early");
    const refunded = this.#end(lease);
    return {
      ok: true,
      result: { kind: "reclaim", leaseId: id, paid: lease.paid.toString(), refunded: refunded.toString() },
    };
  }

  #withdraw(account: Address): Landed {
    const amount = this.owed.get(account) ?? 0n;
    if (amount === 0n) return refuse("nothing_owed");
    this.owed.delete(account);
    this.held -= amount;
    this.wallets.set(account, (this.wallets.get(account) ?? 0n) + amount);
    return { ok: true, result: { kind: "withdraw", account, amount: amount.toString() } };
  }

  #isPair(intent: Extract<Intent, { kind: "settle" | "close" }>, digest: Bytes32): boolean {
    const { terms, signatures } = intent;
    return (
      this.#keyring.isSigned(terms.providerSigner, digest, signatures.provider ?? "") &&
      this.#keyring.isSigned(terms.meter, digest, signatures.meter ?? "")
    );
  }

  #allowed(id: Bytes32, intent: Extract<Intent, { kind: "settle" | "close" }>): bigint {
    const { allowance, terms } = intent;
    if (allowance === undefined) return 0n;
    const digest = this.#hasher.allowance({ leaseId: id, cumulative: allowance.cumulative });
    return this.#keyring.isSigned(terms.consumerSigner, digest, allowance.signature)
      ? allowance.cumulative
      : 0n;
  }

  #pay(lease: EscrowLease, paid: bigint): void {
    const { feeBps, feeRecipient, provider } = lease.terms;
    const share = (amount: bigint) => (amount * BigInt(feeBps)) / 10_000n;
    const fee = share(paid) - share(lease.paid);
    this.owe(feeRecipient, fee);
    this.owe(provider, paid - lease.paid - fee);
    lease.paid = paid;
  }

  #end(lease: EscrowLease): bigint {
    lease.refunded = lease.funded - lease.paid;
    lease.status = "closed";
    const { payer, consumerSigner } = lease.terms;
    if (lease.fromCredit && !this.#rules.refundsCredit)
      this.credits.of(payer, consumerSigner).amount += lease.refunded;
    else this.owe(payer, lease.refunded);
    return lease.refunded;
  }

  owe(account: Address, amount: bigint): void {
    if (amount > 0n) this.owed.set(account, (this.owed.get(account) ?? 0n) + amount);
  }
}
