import { digest, escrowDomain, type Receipt } from "@gpux/protocol/eip712";
import type { JobView } from "@gpux/protocol/job";
import type { LeaseView, TickView } from "@gpux/protocol/lease";
import { append, emptyFrontier, root } from "@gpux/protocol/merkle";
import { type Client, verifyKept, verifyReceipt, verifyTick } from "@gpux/sdk";
import { expect } from "vitest";
import type { Balances } from "../../../scripts/stack/balances.ts";
import { type Market, sumOf } from "./market.ts";

/**
 * Holds the papers of a lease against each other: every receipt is signed by both, they count from 1 without a gap,
 * each adds its price to the one before, their sum is the lease's usage, and their Merkle root is the voucher's.
 * `jobs` are all that ever ran on the lease, `ticks` all the time that it was billed for.
 */
export async function checkPapers(
  market: Pick<Market, "devnet">,
  lease: LeaseView,
  jobs: readonly JobView[],
  ticks: readonly TickView[] = [],
): Promise<Receipt[]> {
  const place = { chainId: market.devnet.chainId, escrow: market.devnet.escrow };
  const receipts: Receipt[] = [];
  for (const job of jobs) {
    for (const check of await verifyKept(job, { ...place, terms: lease.terms })) {
      if (!check.ok)
        throw new Error(`a receipt of ${job.id} does not verify: ${check.code}: ${check.detail}`);
      receipts.push(check.receipt);
    }
    // It came to its end on another lease.
    if (job.lease_id !== lease.id) continue;
    if (job.receipt === undefined) {
      const kept = sumOf(job.attempts.map(({ paid = 0n }) => ({ price: paid })));
      expect(job.price, `${job.id} has no receipt`).toBe(kept);
      continue;
    }
    const check = await verifyReceipt(job, { ...place, terms: lease.terms });
    if (!check.ok)
      throw new Error(`the receipt of ${job.id} does not verify: ${check.code}: ${check.detail}`);
    receipts.push(check.receipt);
  }
  let served = 0n;
  for (const tick of ticks) {
    const check = await verifyTick(tick, served, { ...place, terms: lease.terms, text: lease.text });
    if (!check.ok) throw new Error(`the tick ${tick.id} does not verify: ${check.code}: ${check.detail}`);
    served += check.receipt.billedMs;
    receipts.push(check.receipt);
  }
  receipts.sort((a, b) => a.sequence - b.sequence);
  expect(receipts.map((receipt) => receipt.sequence)).toEqual(receipts.map((_, index) => index + 1));

  let cumulative = 0n;
  let frontier = emptyFrontier();
  for (const receipt of receipts) {
    cumulative += receipt.price;
    expect(receipt.cumulative, `receipt ${receipt.sequence}`).toBe(cumulative);
    frontier = append(frontier, digest(escrowDomain(place), "Receipt", receipt));
  }
  expect(lease.spent).toBe(cumulative);
  expect(lease.jobs_open).toBe(0);
  if (receipts.length > 0) expect(lease.voucher).toMatchObject({ cumulative, evidence: root(frontier) });
  return receipts;
}

/** What the chain moved since `before` is what jobs and time cost, to the base unit, and nothing is left in escrow. */
export async function checkChain(
  market: Market,
  before: Balances,
  costs: readonly { readonly price: bigint }[],
): Promise<void> {
  const after = await market.ledger.balances();
  const moved = (party: keyof Balances) => after[party] - before[party];
  const prices = sumOf(costs);
  expect({
    consumer: moved("consumer"),
    earned: moved("provider") + moved("fee_recipient"),
    escrow: moved("escrow"),
    owed: await market.ledger.owed(),
  }).toEqual({ consumer: -prices, earned: prices, escrow: 0n, owed: 0n });
}

/** The jobs as the edge has them now, asked by id: what it acknowledged it must still find. */
export function found(client: Client, ids: readonly string[]): Promise<JobView[]> {
  return Promise.all(ids.map((id) => client.jobs.get(id)));
}
