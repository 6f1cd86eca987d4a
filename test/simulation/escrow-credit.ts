import type { LeaseTerms } from "@gpux/protocol/eip712";
import type { Address, Bytes32 } from "@gpux/protocol/ids";
import { type Intent, releaseDigest } from "@gpux/protocol/intent";
import type { TypedDataHasher } from "@gpux/protocol/typed-data-encoder";
import { type EscrowLease, type EscrowRules, type Landed, refuse } from "./escrow-rules.ts";
import type { Keyring } from "./keyring.ts";

/**
 * From a release that the meter did not sign until the payer may complete it, in seconds. The contract is told its own
 * when it is deployed; in an hour most of a seed's faults would be over.
 */
export const RELEASE_DELAY_S = 120;

/** What a payer set aside for one spender; the simulation has one meter. */
export interface Credit {
  readonly payer: Address;
  readonly spender: Address;
  amount: bigint;
  /** Seconds; 0: no release is under way. */
  releaseAt: number;
  /** All that ever came in from the payer, and all that went back to it: kept for the books alone. */
  deposited: bigint;
  returned: bigint;
}

/** The credits of the escrow, and the releases that have served. */
export class Credits {
  readonly #all: Map<string, Credit>;
  readonly usedReleases: Set<Bytes32>;

  constructor(from?: Credits) {
    this.#all = new Map(from === undefined ? [] : [...from.#all].map(([key, each]) => [key, { ...each }]));
    this.usedReleases = new Set(from?.usedReleases);
  }

  list(): readonly Credit[] {
    return [...this.#all.values()];
  }

  of(payer: Address, spender: Address): Credit {
    const key = `${payer} ${spender}`;
    const known = this.#all.get(key);
    if (known !== undefined) return known;
    const made: Credit = { payer, spender, amount: 0n, releaseAt: 0, deposited: 0n, returned: 0n };
    this.#all.set(key, made);
    return made;
  }
}

export type CreditIntent = Extract<
  Intent,
  { readonly kind: "deposit" | "allocate" | "release" | "reclaim_credit" }
>;

/** What this part of the contract needs of the rest. */
interface Books {
  readonly leases: Map<Bytes32, EscrowLease>;
  readonly wallets: Map<Address, bigint>;
  readonly usedSalts: Set<string>;
  readonly credits: Credits;
  held: bigint;
  raise(id: Bytes32, terms: LeaseTerms, more: bigint, atS: number, fromCredit: boolean): EscrowLease;
  owe(account: Address, amount: bigint): void;
}

export interface Vault {
  readonly escrow: Books;
  readonly hasher: TypedDataHasher;
  readonly keyring: Keyring;
  readonly rules: EscrowRules;
}

/** LeaseEscrow.sol's credit: nothing changes where it refuses. */
export function landCredit(vault: Vault, intent: CreditIntent, atS: number): Landed {
  switch (intent.kind) {
    case "deposit":
      return deposit(vault, intent, atS);
    case "allocate":
      return allocate(vault, intent, atS);
    case "release":
      return release(vault, intent, atS);
    case "reclaim_credit":
      return reclaimCredit(vault, intent, atS);
  }
}

type Of<Kind extends CreditIntent["kind"]> = Extract<CreditIntent, { readonly kind: Kind }>;

function deposit({ escrow, hasher, keyring }: Vault, intent: Of<"deposit">, atS: number): Landed {
  const { from: payer, spender, meter, amount, salt } = intent;
  const nonce = hasher.depositNonce({ payer, spender, meter, amount, salt });
  if (amount === 0n) return refuse("intent_invalid");
  if (!keyring.isSigned(payer, nonce, intent.signature)) return refuse("bad_signature");
  if (escrow.usedSalts.has(nonce)) return refuse("authorization_used");
  if (atS >= intent.validBefore) return refuse("expired");
  const wallet = escrow.wallets.get(payer) ?? 0n;
  if (wallet < amount) return refuse("insufficient_balance");
  escrow.usedSalts.add(nonce);
  escrow.wallets.set(payer, wallet - amount);
  escrow.held += amount;
  const credit = escrow.credits.of(payer, spender);
  credit.amount += amount;
  credit.deposited += amount;
  return { ok: true, result: { kind: "deposit", payer, spender, meter, amount: amount.toString() } };
}

function allocate({ escrow, hasher, keyring, rules }: Vault, intent: Of<"allocate">, atS: number): Landed {
  const { terms, fundedTo, validBefore, signature, meterSignature } = intent;
  const [first] = terms;
  if (first === undefined) return refuse("intent_invalid");
  if (atS >= validBefore) return refuse("expired");
  const leaseIds = terms.map((each) => hasher.leaseTerms(each));
  const raises: { readonly at: number; readonly more: bigint }[] = [];
  for (const [at, each] of terms.entries()) {
    if (each.payer !== first.payer || each.consumerSigner !== first.consumerSigner)
      return refuse("other_credit");
    const lease = escrow.leases.get(leaseIds[at] ?? "0x");
    const target = fundedTo[at] ?? 0n;
    const more = rules.addsTargets ? target : target - (lease?.funded ?? 0n);
    if (more <= 0n) continue;
    if (atS >= each.expiry) return refuse("expired");
    if (lease?.status === "closed") return refuse("lease_closed");
    raises.push({ at, more });
  }
  const digest = hasher.allocate({ leaseIds, fundedTo, validBefore });
  if (!keyring.isSigned(first.consumerSigner, digest, signature)) return refuse("bad_signature");
  if (!keyring.isSigned(first.meter, digest, meterSignature)) return refuse("bad_signature");
  const total = raises.reduce((sum, { more }) => sum + more, 0n);
  if (total === 0n) return refuse("nothing_due");
  const credit = escrow.credits.of(first.payer, first.consumerSigner);
  if (total > credit.amount) return refuse("insufficient_credit", `it holds ${credit.amount}`);
  credit.amount -= total;
  for (const { at, more } of raises) {
    const [id, its] = [leaseIds[at], terms[at]];
    if (id === undefined || its === undefined) throw new Error("a lease without terms");
    const lease = escrow.raise(id, its, more, atS, true);
    lease.allocated += more;
  }
  const leases = leaseIds.map((leaseId) => {
    const lease = escrow.leases.get(leaseId);
    return { leaseId, funded: (lease?.funded ?? 0n).toString(), openedAt: lease?.openedAt ?? 0 };
  });
  return { ok: true, result: { kind: "allocate", leases, amount: total.toString() } };
}

function release({ escrow, hasher, keyring, rules }: Vault, intent: Of<"release">, atS: number): Landed {
  const { payer, spender, meter, validBefore, signature, meterSignature } = intent;
  if (atS >= validBefore) return refuse("expired");
  const digest = releaseDigest(hasher, intent);
  const signer = [payer, spender].find((each) => keyring.isSigned(each, digest, signature));
  if (signer === undefined) return refuse("bad_signature");
  const credit = escrow.credits.of(payer, spender);
  const isCosigned = meterSignature !== undefined;
  const { usedReleases } = escrow.credits;
  if (usedReleases.has(digest) && !(isCosigned && credit.releaseAt > 0)) return refuse("release_used");
  if (isCosigned && !keyring.isSigned(meter, digest, meterSignature)) return refuse("bad_signature");
  if (!isCosigned && credit.releaseAt > 0) return refuse("release_pending");
  if (credit.amount === 0n) return refuse("nothing_owed");
  usedReleases.add(digest);
  const result = { kind: "release", payer, spender, meter } as const;
  if (isCosigned) {
    const amount = giveBack(escrow, credit, payer).toString();
    return { ok: true, result: { ...result, releaseAt: null, amount } };
  }
  credit.releaseAt = atS + RELEASE_DELAY_S;
  if (rules.paysWhoReleases) giveBack(escrow, credit, signer);
  return { ok: true, result: { ...result, releaseAt: credit.releaseAt, amount: null } };
}

function reclaimCredit({ escrow }: Vault, intent: Of<"reclaim_credit">, atS: number): Landed {
  const { payer, spender, meter } = intent;
  const credit = escrow.credits.of(payer, spender);
  if (credit.releaseAt === 0) return refuse("no_release");
  if (atS < credit.releaseAt) return refuse("too_early", `${credit.releaseAt}`);
  if (credit.amount === 0n) return refuse("nothing_owed");
  const amount = giveBack(escrow, credit, payer).toString();
  return { ok: true, result: { kind: "reclaim_credit", payer, spender, meter, amount } };
}

function giveBack(escrow: Books, credit: Credit, to: Address): bigint {
  const { amount } = credit;
  credit.amount = 0n;
  credit.releaseAt = 0;
  credit.returned += amount;
  escrow.owe(to, amount);
  return amount;
}
