import { verifiedGpus } from "@gpux/protocol/challenge/verdict";
import type { Address } from "@gpux/protocol/ids";
import {
  type Blocker,
  blockersOf,
  type Demand,
  type Seller,
  TIERS,
  type Tier,
} from "@gpux/protocol/resources";
import type { BookEntry, FindOptions, Found, Prices } from "../interfaces.ts";
import { type Presence, standingOf } from "../presence.ts";
import { pricesOf } from "../prices.ts";
import { weightOf } from "../score.ts";
import type { ListedScore } from "./family.ts";
import { sellsAlike, wasAsMuch } from "./likeness.ts";
import { Search } from "./search.ts";
import { type Placed, TierMarket } from "./tier-market.ts";

export type BookEvent =
  | { readonly t: "put"; readonly entry: BookEntry }
  | { readonly t: "remove"; readonly node: Address };

/** Scores rise and fall with time alone; the weights follow this often. */
export const REFRESH_MS = 900_000;
/** So many demands that nothing met are remembered, for so long. */
const UNMET_MOST = 256;
const UNMET_MS = 3_600_000;

const NOWHERE: readonly Placed[] = [];

interface Unmet {
  readonly demand: Demand;
  readonly at: number;
}

/** A node and, while it is online, where its offer stands in each tier. */
interface Row {
  entry: BookEntry;
  sold: { readonly weight: number; readonly placed: Readonly<Record<Tier, readonly Placed[]>> } | null;
}

/**
 * One Book in memory. Unlike the other machines it changes in place: a copy of an index of a hundred thousand offers
 * for each event would be the index's whole price. Otherwise it is as pure: what it answers follows from its events
 * and the `now` (milliseconds) that it is given.
 */
export class Book {
  readonly #rows = new Map<string, Row>();
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
    if (event.t === "put") return this.#put(event.entry, now);
    const row = this.#rows.get(event.node);
    if (row === undefined) return null;
    this.#takeOff(row);
    this.#rows.delete(event.node);
    this.#sorted = null;
    return event.node;
  }

  #put(entry: BookEntry, now: number): Address | null {
    const known = this.#rows.get(entry.node);
    if (known === undefined) {
      const row: Row = { entry, sold: null };
      this.#rows.set(entry.node, row);
      this.#sorted = null;
      this.#putOn(row, now);
      return entry.node;
    }
    const { entry: before, sold } = known;
    if (before.lastSeen > entry.lastSeen) return null;
    if (sold !== null && entry.status === "online" && sellsAlike(before.offer, entry.offer)) {
      // A hold, or its end: what is sold stays where it stands.
      known.entry = entry;
      for (const tier of TIERS) this.#tiers[tier].renew(sold.placed[tier], entry);
      if (!wasAsMuch(before.presence, entry.presence)) this.#score(known, now);
      return entry.node;
    }
    this.#takeOff(known);
    known.entry = entry;
    this.#putOn(known, now);
    return entry.node;
  }

  /** The offers that fit, best first (docs/matching.md), and if none does, why not. Only nodes that are online count. */
  find(demand: Demand, limit: number, now: number, options: FindOptions = {}): Found {
    this.#refresh(now);
    const search = new Search(demand, limit, now, options);
    const market = this.#tiers[demand.tier];
    if (demand.node === undefined) market.find(search);
    else market.findAmong(this.#placedOf(demand.node, demand.tier), search);
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
    const entry = this.#rows.get(node)?.entry;
    if (entry?.status !== "online")
      return { entries: [], blockers: { node: 1 }, offers: 0, onlyPrice: 0, onlyBusy: 0 };
    const seller = sellerOf(entry, now);
    const failed = new Set([
      ...blockersOf(entry.offer, node, entry.free, demand, seller),
      ...this.#tiers[demand.tier]
        .listingsFor(this.#placedOf(node, demand.tier), search)
        .flatMap((listing) => search.failed(listing)),
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
    this.#sorted ??= [...this.#rows.keys()].sort();
    const page: BookEntry[] = [];
    for (let at = after === null ? 0 : firstAfter(this.#sorted, after); page.length < limit; at += 1) {
      const node = this.#sorted[at];
      const entry = node === undefined ? undefined : this.#rows.get(node)?.entry;
      if (entry === undefined) break;
      if (belongs(entry)) page.push(entry);
    }
    return page;
  }

  get(node: Address): BookEntry | null {
    return this.#rows.get(node)?.entry ?? null;
  }

  /** Why demands of the last hour, which nothing here met, passed the node by: how many of them it failed by what. */
  skipped(node: Address, now: number): Partial<Record<Blocker, number>> {
    const entry = this.#rows.get(node)?.entry;
    if (entry?.status !== "online") return {};
    const seller = sellerOf(entry, now);
    const skipped: Partial<Record<Blocker, number>> = {};
    for (const { demand, at } of this.#unmet) {
      if (at < now - UNMET_MS) continue;
      for (const blocker of blockersOf(entry.offer, node, entry.free, demand, seller))
        skipped[blocker] = (skipped[blocker] ?? 0) + 1;
    }
    return skipped;
  }

  /** What online nodes ask, by model. */
  prices(now: number): Prices[] {
    return pricesOf(
      Array.from(this.#rows.values(), ({ entry }) => entry),
      now,
    );
  }

  #remember(demand: Demand, now: number): void {
    if (this.#unmet.length === UNMET_MOST) this.#unmet.shift();
    this.#unmet.push({ demand, at: now });
  }

  #placedOf(node: string, tier: Tier): readonly Placed[] {
    return this.#rows.get(node)?.sold?.placed[tier] ?? NOWHERE;
  }

  #putOn(row: Row, now: number): void {
    if (row.entry.status !== "online") return;
    this.#place(row, scoreOf(row.entry.presence, now));
    this.#online += 1;
  }

  #takeOff(row: Row): void {
    if (row.sold === null) return;
    for (const tier of TIERS) this.#tiers[tier].remove(row.sold.placed[tier]);
    row.sold = null;
    this.#online -= 1;
  }

  #place(row: Row, score: ListedScore): void {
    const { firm, yieldable } = this.#tiers;
    row.sold = {
      weight: score.weight,
      placed: { firm: firm.add(row.entry, score), yieldable: yieldable.add(row.entry, score) },
    };
  }

  /** Lists it by the score that it now has. */
  #score(row: Row, now: number): void {
    if (row.sold === null) return;
    const { weight, placed } = row.sold;
    const current = scoreOf(row.entry.presence, now);
    if (current.weight === weight) {
      for (const { listing } of [...placed.firm, ...placed.yieldable]) {
        listing.reliability = current.reliability;
        listing.lane.mostReliable = Math.max(listing.lane.mostReliable, current.reliability);
      }
      return;
    }
    for (const tier of TIERS) this.#tiers[tier].remove(placed[tier]);
    this.#place(row, current);
  }

  #refresh(now: number): void {
    if (now < this.#refreshAt) return;
    this.#refreshAt = now + REFRESH_MS;
    for (const row of this.#rows.values()) this.#score(row, now);
  }
}

/** Of a node that is online. */
function sellerOf({ provider, presence, challenge }: BookEntry, now: number): Seller {
  const { reliability } = standingOf(presence, true, now);
  return { provider, reliability, verified: verifiedGpus(challenge, now) };
}

/** Of a node that is online. */
function scoreOf(presence: Presence, now: number): ListedScore {
  const { reliability, score } = standingOf(presence, true, now);
  return { weight: weightOf(score), reliability };
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
