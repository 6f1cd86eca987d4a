import type { Address } from "@gpux/protocol/ids";
import { type Blocker, blockersOf, type Demand, ratePerHour } from "@gpux/protocol/resources";
import type { BookEntry, Found } from "../interfaces.ts";

export type BookState = ReadonlyMap<Address, BookEntry>;

export type BookEvent =
  | { readonly t: "put"; readonly entry: BookEntry }
  | { readonly t: "remove"; readonly node: Address };

/** `written` names the row that changed; null when there was nothing to do. Never refuses: a Book believes its nodes. */
export type BookStep = { readonly ok: true; readonly next: BookState; readonly written: Address | null };

/** Events of one node may come twice or late: an entry older than the row is dropped. */
export function step(state: BookState, event: BookEvent): BookStep {
  const node = event.t === "put" ? event.entry.node : event.node;
  const row = state.get(node);
  if (event.t === "put" ? row !== undefined && row.lastSeen > event.entry.lastSeen : row === undefined)
    return { ok: true, next: state, written: null };
  const next = new Map(state);
  if (event.t === "put") next.set(node, event.entry);
  else next.delete(node);
  return { ok: true, next, written: node };
}

/**
 * The offers that fit, cheapest first, then those with the most free GPUs, then by address so that the answer does
 * not depend on the order of arrival. Only nodes that are online count as offers.
 */
export function find(state: BookState, demand: Demand, limit: number): Found {
  const fitting: { entry: BookEntry; rate: bigint }[] = [];
  const blockers: Partial<Record<Blocker, number>> = {};
  let offers = 0;
  let onlyPrice = 0;
  let onlyBusy = 0;
  for (const entry of state.values()) {
    if (entry.status !== "online") continue;
    offers += 1;
    const failed = blockersOf(entry.offer, entry.node, entry.free, demand);
    for (const blocker of failed) blockers[blocker] = (blockers[blocker] ?? 0) + 1;
    if (failed.length === 0) fitting.push({ entry, rate: ratePerHour(entry.offer.prices, demand.resources) });
    if (failed.length !== 1) continue;
    if (failed[0] === "price") onlyPrice += 1;
    if (failed[0] === "gpus" && entry.offer.gpus.length >= demand.resources.gpus) onlyBusy += 1;
  }
  fitting.sort(
    (a, b) =>
      (a.rate < b.rate ? -1 : a.rate > b.rate ? 1 : 0) ||
      b.entry.free - a.entry.free ||
      (a.entry.node < b.entry.node ? -1 : 1),
  );
  const entries = fitting.slice(0, limit).map(({ entry }) => entry);
  return { entries, blockers, offers, onlyPrice, onlyBusy };
}

/** By address, whatever their status; `after` is the last address of the page before. */
export function list(state: BookState, after: Address | null, limit: number): BookEntry[] {
  const nodes = [...state.keys()].sort();
  const from = after === null ? 0 : nodes.findIndex((node) => node > after);
  if (from === -1) return [];
  return nodes.slice(from, from + limit).flatMap((node) => state.get(node) ?? []);
}
