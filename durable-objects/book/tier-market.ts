import { type Blocker, isolationRank, type Tier } from "@gpux/protocol/resources";
import type { BookEntry, Found } from "../interfaces.ts";
import { Family, type ShapeBlocker } from "./family.ts";
import type { Listing } from "./offer-class.ts";
import type { Search } from "./search.ts";
import { covers, withGpus } from "./shape.ts";

/** A listing and the family that it is to be taken out of. */
interface Placed {
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
  readonly #placed = new Map<string, Placed[]>();

  constructor(tier: Tier) {
    this.#tier = tier;
    this.#whole = new Family(tier, null);
  }

  add(entry: BookEntry, weight: number, reliability: number): void {
    const models = new Set(entry.offer.gpus.map((gpu) => gpu.model));
    const families =
      models.size === 1
        ? Array.from(models, (model) => this.#familyOf(this.#pure, model))
        : [this.#whole, ...Array.from(models, (model) => this.#familyOf(this.#part, model))];
    const placed = families.flatMap((family) => {
      const listing = family.add(entry, weight, reliability);
      return listing === null ? [] : [{ family, listing }];
    });
    if (placed.length === 0) return;
    this.#placed.set(entry.node, placed);
    this.offers += 1;
  }

  remove(node: string): void {
    const placed = this.#placed.get(node);
    if (placed === undefined) return;
    for (const { family, listing } of placed) family.remove(listing);
    this.#placed.delete(node);
    this.offers -= 1;
  }

  find(search: Search): void {
    const { node } = search.demand;
    if (node === undefined) this.#findAny(search);
    else
      for (const listing of this.listingsOf(node, search)) {
        const { offerClass } = listing.lane;
        if (covers(offerClass.shape, search.wanted) && search.fitsClass(offerClass)) search.lookAt(listing);
      }
  }

  /** The ways in which a node is sold to who demands this. */
  listingsOf(node: string, search: Search): Listing[] {
    const families = this.#familiesFor(search);
    const { region } = search.demand;
    return (this.#placed.get(node) ?? [])
      .filter(({ family }) => families.includes(family))
      .map(({ listing }) => listing)
      .filter(({ entry }) => region === undefined || entry.offer.region === region);
  }

  #findAny(search: Search): void {
    for (const family of this.#familiesFor(search)) {
      for (const list of family.listsIn(search.demand.region)) list.search(search);
    }
  }

  /** Why nothing fits; `online`: all nodes, sold in this tier or not. */
  explain(search: Search, online: number): Omit<Found, "entries"> {
    const { demand } = search;
    const blockers: Partial<Record<Blocker, number>> = {};
    const add = (blocker: Blocker, count: number) => {
      if (count > 0) blockers[blocker] = (blockers[blocker] ?? 0) + count;
    };
    add("tier", online - this.offers);
    const families = this.#familiesFor(search);
    const considered = families.reduce((sum, family) => sum + family.offers, 0);
    add("gpu_model", this.offers - considered);
    let onlyPrice = 0;
    let onlyBusy = 0;
    const wantedIsolation = isolationRank(demand.isolation ?? "process");
    for (const family of families) {
      const failing = family.failing(demand, (isolation) => isolationRank(isolation) >= wantedIsolation);
      for (const blocker of SHAPE_BLOCKERS) add(blocker, failing[blocker]);
      // Every offer fails by its shape, and not for want of free GPUs: there is nothing else to be said of any.
      if (SHAPE_BLOCKERS.some((each) => each !== "gpus" && failing[each] === family.offers)) continue;
      for (const list of family.listsIn(demand.region)) {
        // Also those that have too few GPUs free: with all of them free they might fit.
        list.each(withGpus(search.wanted, 0), (offerClass) => {
          if (!search.fitsClass(offerClass)) return;
          const busy = offerClass.gpus < demand.resources.gpus;
          for (const lane of offerClass.lanes) {
            search.explain(lane, busy, (failed, listings) => {
              if (busy) {
                if (failed.length === 0) onlyBusy += listings;
                return;
              }
              for (const blocker of failed) add(blocker, listings);
              if (failed.length === 1 && failed[0] === "price") onlyPrice += listings;
            });
          }
        });
      }
    }
    return { blockers, offers: online, onlyPrice, onlyBusy };
  }

  #familiesFor({ demand }: Search): Family[] {
    const model = demand.gpu_model;
    if (model === undefined) return [...this.#pure.values(), this.#whole];
    const families: Family[] = [];
    for (const family of [this.#pure.get(model), this.#part.get(model)])
      if (family !== undefined) families.push(family);
    return families;
  }

  #familyOf(families: Map<string, Family>, model: string): Family {
    const known = families.get(model);
    if (known !== undefined) return known;
    const family = new Family(this.#tier, model);
    families.set(model, family);
    return family;
  }
}

const SHAPE_BLOCKERS: readonly ShapeBlocker[] = [
  "gpus",
  "vram",
  "cpu",
  "memory",
  "region",
  "isolation",
  "features",
  "model",
  "duration",
];
