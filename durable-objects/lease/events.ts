import { fundingKey, isFromCredit } from "@gpux/protocol/funding";
import type { LeaseEvent } from "@gpux/protocol/lease-event";
import { isHeld, wantsAgent } from "./capacity.ts";
import type { ReceiptState } from "./job-state.ts";
import { endsAt, isDedicated, isWorking, type Lease } from "./state.ts";

/** A line for the lease's own journal, or of a kind that is only passed on; the store numbers it. */
export interface LeaseEntry {
  readonly type: LeaseEvent["type"];
  readonly data: Readonly<Record<string, unknown>>;
}

/** Vouchers come with the jobs: each is in the lease's view, and a row of each would double what a job writes. */
export function isKept({ type }: LeaseEntry): boolean {
  return type !== "voucher";
}

/** LSE-12: what a step changed, for who follows the lease. Derived from the states, so that nothing can forget to say it. */
export function eventsOf(before: Lease, after: Lease): LeaseEntry[] {
  if (before === after) return [];
  return [
    ...moneyEvents(before, after),
    ...presenceEvents(before, after),
    ...noticeEvents(before, after),
    ...(before.status === after.status ? [] : [statusEvent(after)]),
  ];
}

function moneyEvents(before: Lease, after: Lease): LeaseEntry[] {
  const entries: LeaseEntry[] = [];
  const { funded, spent, voucher } = after;
  for (const { funding, refused } of after.topUps) {
    const known = before.topUps.find((each) => fundingKey(each.funding) === fundingKey(funding));
    const about = isFromCredit(funding)
      ? { funded_to: funding.funded_to.toString() }
      : { salt: funding.salt, amount: funding.amount.toString() };
    if (refused === null && (known === undefined || known.refused !== null))
      entries.push({ type: "top_up", data: { ...about, status: "landing" } });
    if (refused !== null && (known === undefined || known.refused === null))
      entries.push({ type: "top_up", data: { ...about, status: "refused", ...refused } });
  }
  if (funded > before.funded)
    entries.push({
      type: "funded",
      data: { funded: funded.toString(), added: (funded - before.funded).toString() },
    });
  if (isLow(after) && !isLow(before)) {
    const left = after.service.low ?? funded - spent;
    entries.push({ type: "low_balance", data: { left: left.toString(), funded: funded.toString() } });
  }
  for (const { from, to, receipt } of after.ticks)
    if (before.ticks.every((tick) => tick.to !== to)) entries.push(tickEvent(from, to, receipt));
  const isNew = voucher !== null && voucher.meter !== null && voucher.meter !== before.voucher?.meter;
  if (isNew) entries.push({ type: "voucher", data: { cumulative: voucher.cumulative.toString() } });
  return entries;
}

function tickEvent(from: number, to: number, { receipt }: ReceiptState): LeaseEntry {
  const [since, until] = [from, to].map((ms) => new Date(ms).toISOString());
  const served = { served_ms: Number(receipt.billedMs), price: receipt.price.toString() };
  return { type: "tick", data: { from: since, to: until, ...served } };
}

/** There is time to top up, and little enough to matter. */
function isLow(lease: Lease): boolean {
  const { status, funded, spent } = lease;
  if (isDedicated(lease)) return lease.service.low !== null;
  return status === "active" && (funded - spent) * 5n < funded;
}

function presenceEvents(before: Lease, after: Lease): LeaseEntry[] {
  const entries: LeaseEntry[] = [];
  if (isHeld(before) !== isHeld(after)) entries.push({ type: "capacity", data: { warm: isHeld(after) } });
  if (!isWorking(after) || !wantsAgent(after)) return entries;
  const [was, is] = [before.awayAt === null, after.awayAt === null];
  if (was && !is) entries.push({ type: "node_away", data: {} });
  if (!was && is) entries.push({ type: "node_back", data: {} });
  return entries;
}

function noticeEvents(before: Lease, after: Lease): LeaseEntry[] {
  const entries: LeaseEntry[] = [];
  if (after.extendedS > before.extendedS)
    entries.push({ type: "extended", data: { until: new Date(endsAt(after)).toISOString() } });
  const { yieldAt } = after.capacity;
  if (yieldAt !== null && yieldAt !== before.capacity.yieldAt)
    entries.push({ type: "yield", data: { until: new Date(yieldAt).toISOString() } });
  if (after.drainAt !== null && after.drainAt !== before.drainAt)
    entries.push({ type: "drain", data: { until: new Date(after.drainAt).toISOString() } });
  return entries;
}

function statusEvent({ status, end }: Lease): LeaseEntry {
  return { type: "status", data: { status, ...(end ?? {}) } };
}
