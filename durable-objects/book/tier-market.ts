import type { Tier } from "@gpux/protocol/resources";
import type { BookEntry, Found } from "../interfaces.ts";
import { blockersIn, noCounts } from "./counts.ts";
import { Family, type ListedScore } from "./family.ts";
import type { Listing } from "./offer-class.ts";
import type { Search } from "./search.ts";
import { covers, withGpus } from "./shape.ts";

const NO_FAMILIES: readonly Family[] = [];

/** A listing and the family in which it stands. */
export interface Placed {
  readonly family: Family;
  readonly listing: Listing;
}

/**
 * All that is sold in one tier. A node with GPUs of one model stands in that model's family; one with several stands
 * in a family of each model, for who asks for a model, and once as a whole, for who does not.
 */
export class TierMarket {
  /** Offers, each counted once. */
  offers = 0;
  readonly #tier: Tier;
  readonly #pure = new Map<string, Family>();
  readonly #part = new Map<string, Family>();
  readonly #whole: Family;
  /** Where a demand for a model is to look; under null, one for any. */
  readonly #families = new Map<string | null, readonly Family[]>();

  constructor(tier: Tier) {
    this.#tier = tier;
    this.#whole = new Family(tier, null);
    this.#families.set(null, [this.#whole]);
  }

  /** Where the offer now stands: nowhere, if it is not sold in this tier. */
  add(entry: BookEntry, score: ListedScore): readonly Placed[] {
    const models = new Set(entry.offer.gpus.map((gpu) => gpu.model));
    const families =
      models.size === 1
        ? Array.from(models, (model) => this.#familyOf(this.#pure, model))
        : [this.#whole, ...Array.from(models, (model) => this.#familyOf(this.#part, model))];
    const placed = families.flatMap((family) => {
      const listing = family.add(entry, score);
      return listing === null ? [] : [{ family, listing }];
    });
    if (placed.length > 0) this.offers += 1;
    return placed;
  }

  remove(placed: readonly Placed[]): void {
    for (const { family, listing } of placed) family.remove(listing);
    if (placed.length > 0) this.offers -= 1;
  }

  /** The node has another number of GPUs free, and sells what it sold. */
  renew(placed: readonly Placed[], entry: BookEntry): void {
    for (const { family, listing } of placed) family.renew(listing, entry);
  }

  /** Cheapest first in each list; who names a node looks at that alone (`findAmong`). */
  find(search: Search): void {
    for (const family of this.#familiesFor(search)) family.search(search);
  }

  /** Looks at the ways in which one node is sold. */
  findAmong(placed: readonly Placed[], search: Search): void {
    for (const listing of this.listingsFor(placed, search)) {
      const { offerClass, shape } = listing.lane;
      if (covers(shape, search.wanted) && search.fitsClass(offerClass)) search.lookAt(listing);
    }
  }

  /** Of the ways in which a node is sold, those that such a demand means. */
  listingsFor(placed: readonly Placed[], search: Search): Listing[] {
    const families = this.#familiesFor(search);
    const { region } = search;
    return placed
      .filter(({ family }) => families.includes(family))
      .map(({ listing }) => listing)
      .filter(({ entry }) => region === null || entry.offer.region === region);
  }

  /** Why nothing fits; `online`: all nodes, sold in this tier or not. */
  explain(search: Search, online: number): Omit<Found, "entries"> {
    const counts = noCounts();
    counts.tier = online - this.offers;
    counts.gpu_model = this.offers;
    let onlyPrice = 0;
    let onlyBusy = 0;
    for (const family of this.#familiesFor(search)) {
      counts.gpu_model -= family.offers;
      // Every offer fails by its shape, and not for want of free GPUs: there is nothing else to be said of any.
      if (family.countFailing(search, counts)) continue;
      // Also those that have too few GPUs free: with all of them free they might fit.
      family.each(withGpus(search.wanted, 0), search.region, (lane) => {
        if (!search.fitsClass(lane.offerClass)) return;
        const busy = lane.gpus < search.gpus;
        search.explain(lane, busy, (failed, listings) => {
          if (busy) {
            if (failed.length === 0) onlyBusy += listings;
            return;
          }
          for (const blocker of failed) counts[blocker] += listings;
          if (failed.length === 1 && failed[0] === "price") onlyPrice += listings;
        });
      });
    }
    return { blockers: blockersIn(counts), offers: online, onlyPrice, onlyBusy };
  }

  #familiesFor({ model }: Search): readonly Family[] {
    return this.#families.get(model) ?? NO_FAMILIES;
  }

  #familyOf(families: Map<string, Family>, model: string): Family {
    const known = families.get(model);
    if (known !== undefined) return known;
    const family = new Family(this.#tier, model);
    families.set(model, family);
    const ofModel = [this.#pure.get(model), this.#part.get(model)].filter((each) => each !== undefined);
    this.#families.set(model, ofModel);
    this.#families.set(null, [...this.#pure.values(), this.#whole]);
    return family;
  }
}
