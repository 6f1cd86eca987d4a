import type { LeaseTerms } from "@gpux/protocol/eip712";
import { type Address, type Bytes32, leaseIdOf } from "@gpux/protocol/ids";
import { formatAmount } from "@gpux/protocol/money";
import { ChainError } from "../outcome.ts";
import { printJson, type Terminal, table } from "../terminal.ts";
import { type Delays, type Escrow, type LeaseOnChain, reclaimableAt } from "./escrow.ts";
import { timeText } from "./time.ts";

/** What one can do about a lease, and from when on; seconds, null: now. */
interface Possible {
  readonly act: "exit" | "settle" | "reclaim" | "withdraw";
  readonly from: number | null;
  readonly what: string;
}

/** What the chain says of a lease, and what can be done about it without us. */
export async function showStatus(
  terminal: Terminal,
  escrow: Escrow,
  { terms, hash }: { terms: LeaseTerms; hash: Bytes32 },
  json: boolean,
): Promise<void> {
  const parties = [...new Set([terms.payer, terms.provider, terms.feeRecipient])];
  const [lease, delays, now, ...amounts] = await Promise.all([
    escrow.lease(hash),
    escrow.delays(),
    escrow.now(),
    ...parties.map((account) => escrow.owed(account)),
  ]);
  if (lease.status === "none")
    throw new ChainError(
      "unknown_lease",
      `Lease ${leaseIdOf(hash)} was never funded in ${escrow.place.escrow} on chain ${escrow.place.chainId}`,
      "Check --rpc and --escrow, and that these are the terms that were funded.",
    );
  const owed = parties.map((account, i) => ({ account, amount: amounts[i] ?? 0n }));
  const free = reclaimableAt(lease, terms.expiry, delays);
  const next = possibilities(lease, terms, delays, owed, free, now);
  if (json)
    return printJson(terminal, {
      id: leaseIdOf(hash),
      lease_hash: hash,
      chain_id: escrow.place.chainId,
      escrow: escrow.place.escrow,
      status: lease.status,
      funded: lease.funded.toString(),
      paid: lease.paid.toString(),
      opened_at: lease.openedAt,
      expires_at: terms.expiry,
      exit_at: lease.exitAt === 0 ? null : lease.exitAt,
      reclaimable_at: free,
      owed: Object.fromEntries(owed.map(({ account, amount }) => [account, amount.toString()])),
      next: next.map(({ act, from, what }) => ({ act, from, what })),
      now,
    });
  const role = (account: Address) =>
    account === terms.payer ? "payer" : account === terms.provider ? "provider" : "fee recipient";
  terminal.out.write(
    table([
      ["lease", leaseIdOf(hash)],
      ["on chain", `${hash} in ${escrow.place.escrow}, chain ${escrow.place.chainId}`],
      ["status", lease.status.replace("_", ", ")],
      ["money", `${formatAmount(lease.paid)} paid of ${formatAmount(lease.funded)} USDC`],
      ["opened", timeText(lease.openedAt, now)],
      ["expires", timeText(terms.expiry, now)],
      ...(lease.exitAt === 0 ? [] : [["exit asked", timeText(lease.exitAt, now)]]),
      ...owed.map(({ account, amount }) => [
        "owed",
        `${formatAmount(amount)} USDC to ${account}, the ${role(account)}`,
      ]),
      ...next.map(({ act, from, what }) => [
        `can ${act}`,
        `${from === null ? "now" : `from ${timeText(from, now)}`}: ${what}`,
      ]),
    ]),
  );
}

function possibilities(
  lease: LeaseOnChain,
  terms: LeaseTerms,
  delays: Delays,
  owed: readonly { account: Address; amount: bigint }[],
  free: number | null,
  now: number,
): Possible[] {
  const list: Possible[] = [];
  if (lease.status === "open")
    list.push({
      act: "exit",
      from: null,
      what: `the payer or the consumer's key; the rest is free ${delays.exit / 3_600} h later, ${formatAmount(lease.funded - lease.paid)} USDC if no voucher lands`,
    });
  if (lease.status !== "closed" && lease.paid < lease.funded)
    list.push({
      act: "settle",
      from: null,
      what: `who holds a voucher above ${formatAmount(lease.paid)} USDC`,
    });
  if (free !== null)
    list.push({
      act: "reclaim",
      from: free <= now ? null : free,
      what: `anybody; ${formatAmount(lease.funded - lease.paid)} USDC go back to ${terms.payer}, or to the credit that opened it`,
    });
  for (const { account, amount } of owed)
    if (amount > 0n)
      list.push({ act: "withdraw", from: null, what: `anybody; ${formatAmount(amount)} USDC to ${account}` });
  return list;
}
