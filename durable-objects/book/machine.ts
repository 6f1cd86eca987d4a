import type { Address } from "@gpux/protocol/ids";
import { type Blocker, blockersOf, type Demand, TIERS } from "@gpux/protocol/resources";
import type { BookEntry, FindOptions, Found, Prices } from "../interfaces.ts";
import { standingOf } from "../presence.ts";
import { pricesOf } from "../prices.ts";
import { weightOf } from "../score.ts";
import { Search } from "./search.ts";
import { TierMarket } from "./tier-market.ts";

export type BookEvent =
  | { readonly t: "put"; readonly entry: BookEntry }
  | { readonly t: "remove"; readonly node: Address };

/** Scores rise and fall with time alone; the weights follow this often. */
export const REFRESH_MS = 900_000;
/** So many demands that nothing met are remembered, for so long. */
const UNMET_MOST = 256;
const UNMET_MS = 3_600_000;

interface Unmet {
  readonly demand: Demand;
  readonly at: number;
}

/**
 * One Book in memory. Unlike the other machines it changes in place: a copy of an index of a hundred thousand offers
 * for each event would be the index's whole price. Otherwise it is as pure: what it answers follows from its events
 * and the `now` (milliseconds) that it is given.
 */
export class Book {
  readonly #entries = new Map<string, BookEntry>();
  readonly #tiers = { firm: new TierMarket("firm"), yieldable: new TierMarket("yieldable") };
  #online = 0;
  #refreshAt = 0;
  /** By address; null: to be sorted again. */
  #sorted: string[] | null = null;
  #unmet: Unmet[] = [];

  /**
   * The node whose row changed; null when there was nothing to do. Events of one node may come twice or late: an
   * entry older than the row is dropped. Never refuses: a Book believes its nodes.
   */
  apply(event: BookEvent, now: number): Address | null {
    const node = event.t === "put" ? event.entry.node : event.node;
    const row = this.#entries.get(node);
    if (event.t === "put" ? row !== undefined && row.lastSeen > event.entry.lastSeen : row === undefined)
      return null;
    if (row?.status === "online") this.#takeOff(node);
    if (event.t === "put") {
      this.#entries.set(node, event.entry);
      if (event.entry.status === "online") this.#putOn(event.entry, now);
      if (row === undefined) this.#sorted = null;
    } else {
      this.#entries.delete(node);
      this.#sorted = null;
    }
    return node;
  }

  /** The offers that fit, best first (docs/matching.md), and if none does, why not. Only nodes that are online count. */
  find(demand: Demand, limit: number, now: number, options: FindOptions = {}): Found {
    this.#refresh(now);
    const search = new Search(demand, limit, options);
    const market = this.#tiers[demand.tier];
    market.find(search);
    const { found } = search;
    if (found.length > 0)
      return {
        entries: found.map(({ entry }) => entry),
        ...(options.ranked === true ? { ranks: search.ranks } : {}),
        blockers: {},
        offers: this.#online,
        onlyPrice: 0,
        onlyBusy: 0,
      };
    if (options.toBuy === true) this.#remember(demand, now);
    if (demand.node !== undefined) return this.#explainNode(demand.node, search, now);
    return { entries: [], ...market.explain(search, this.#online) };
  }

  /** Who names a node is told of that one alone. */
  #explainNode(node: string, search: Search, now: number): Found {
    const { demand } = search;
    const entry = this.#entries.get(node);
    if (entry?.status !== "online")
      return { entries: [], blockers: { node: 1 }, offers: 0, onlyPrice: 0, onlyBusy: 0 };
    const { reliability } = standingOf(entry.presence, true, now);
    const seller = { provider: entry.provider, reliability };
    const failed = new Set([
      ...blockersOf(entry.offer, node, entry.free, demand, seller),
      ...this.#tiers[demand.tier].listingsOf(node, search).flatMap((listing) => search.failed(listing)),
    ]);
    const alone = (blocker: Blocker) => failed.size === 1 && failed.has(blocker);
    const idle = blockersOf(entry.offer, node, entry.offer.gpus.length, demand, seller);
    return {
      entries: [],
      blockers: Object.fromEntries(Array.from(failed, (blocker) => [blocker, 1])),
      offers: 1,
      onlyPrice: alone("price") ? 1 : 0,
      onlyBusy: alone("gpus") && idle.length === 0 ? 1 : 0,
    };
  }

  /** By address, whatever their status; `after` is the last address of the page before. */
  list(
    after: Address | null,
    limit: number,
    belongs: (entry: BookEntry) => boolean = () => true,
  ): BookEntry[] {
    this.#sorted ??= [...this.#entries.keys()].sort();
    const page: BookEntry[] = [];
    for (let at = after === null ? 0 : firstAfter(this.#sorted, after); page.length < limit; at += 1) {
      const node = this.#sorted[at];
      const entry = node === undefined ? undefined : this.#entries.get(node);
      if (entry === undefined) break;
      if (belongs(entry)) page.push(entry);
    }
    return page;
  }

  get(node: Address): BookEntry | null {
    return this.#entries.get(node) ?? null;
  }

  /** Why demands of the last hour, which nothing here met, passed the node by: how many of them it failed by what. */
  skipped(node: Address, now: number): Partial<Record<Blocker, number>> {
    const entry = this.#entries.get(node);
    if (entry?.status !== "online") return {};
    const { reliability } = standingOf(entry.presence, true, now);
    const skipped: Partial<Record<Blocker, number>> = {};
    for (const { demand, at } of this.#unmet) {
      if (at < now - UNMET_MS) continue;
      const seller = { provider: entry.provider, reliability };
      for (const blocker of blockersOf(entry.offer, node, entry.free, demand, seller))
        skipped[blocker] = (skipped[blocker] ?? 0) + 1;
    }
    return skipped;
  }

  /** What online nodes ask, by model. */
  prices(now: number): Prices[] {
    return pricesOf(this.#entries.values(), now);
  }

  #remember(demand: Demand, now: number): void {
    if (this.#unmet.length === UNMET_MOST) this.#unmet.shift();
    this.#unmet.push({ demand, at: now });
  }

  #putOn(entry: BookEntry, now: number): void {
    const { reliability, score } = standingOf(entry.presence, true, now);
    this.#online += 1;
    for (const tier of TIERS) this.#tiers[tier].add(entry, weightOf(score), reliability);
  }

  #takeOff(node: string): void {
    this.#online -= 1;
    for (const tier of TIERS) this.#tiers[tier].remove(node);
  }

  #refresh(now: number): void {
    if (now < this.#refreshAt) return;
    this.#refreshAt = now + REFRESH_MS;
    for (const entry of this.#entries.values()) {
      if (entry.status !== "online") continue;
      this.#takeOff(entry.node);
      this.#putOn(entry, now);
    }
  }
}

function firstAfter(sorted: readonly string[], node: string): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    const at = sorted[middle];
    if (at !== undefined && at <= node) low = middle + 1;
    else high = middle;
  }
  return low;
}
