import { type Demand, type Isolation, type Offer, pricesIn, type Tier } from "@gpux/protocol/resources";
import type { BookEntry } from "../interfaces.ts";
import { ClassList } from "./class-list.ts";
import {
  type ClassShape,
  classKeyOf,
  type ListedSizes,
  type Listing,
  OfferClass,
  setKey,
} from "./offer-class.ts";
import { CPU_TIERS, Histogram, MEMORY_TIERS, VRAM_TIERS } from "./shape.ts";

/** Conditions that an offer meets or fails by its shape, counted over all offers of a family. */
export type ShapeBlocker =
  | "gpus"
  | "vram"
  | "cpu"
  | "memory"
  | "region"
  | "isolation"
  | "features"
  | "model"
  | "duration";

interface Tally<T> {
  readonly value: T;
  count: number;
}

/**
 * Offers of one tier and GPU model, a list of classes for each region, and how many of them fail each condition of
 * shape: counted as offers come and go, so that to say why nothing fits needs no look at offers.
 */
export class Family {
  offers = 0;
  readonly #lists = new Map<string, ClassList>();
  readonly #model: string | null;
  readonly #tier: Tier;
  readonly #gpus = new Int32Array(65);
  readonly #vram = new Histogram(VRAM_TIERS);
  readonly #cpu = new Histogram(CPU_TIERS);
  readonly #memory = new Histogram(MEMORY_TIERS);
  readonly #regions = new Map<string, Tally<string>>();
  readonly #isolations = new Map<string, Tally<Isolation>>();
  readonly #features = new Map<string, Tally<readonly string[]>>();
  readonly #models = new Map<string, Tally<readonly string[]>>();
  readonly #durations = new Map<string, Tally<Offer["duration_s"]>>();

  /** `model` null: of nodes with several models, as a whole. */
  constructor(tier: Tier, model: string | null) {
    this.#tier = tier;
    this.#model = model;
  }

  add(entry: BookEntry, weight: number, reliability: number): Listing | null {
    const { offer } = entry;
    const prices = pricesIn(offer, this.#tier);
    if (prices === null) return null;
    const { capacity, ...shape } = this.#sizesOf(entry);
    const key = classKeyOf(shape);
    const list = this.#lists.get(offer.region) ?? new ClassList();
    this.#lists.set(offer.region, list);
    const offerClass = list.get(key) ?? new OfferClass(key, shape);
    this.#count(shape, 1);
    return list.change(offerClass, () =>
      offerClass.add(entry, { vramMb: shape.vramMb, capacity }, prices, weight, reliability),
    );
  }

  remove(listing: Listing): void {
    const { region } = listing.entry.offer;
    const { offerClass } = listing.lane;
    const list = this.#lists.get(region);
    list?.change(offerClass, () => offerClass.remove(listing));
    if (list?.classes.length === 0) this.#lists.delete(region);
    this.#count(this.#sizesOf(listing.entry), -1);
  }

  /** The classes in a region, or in all. */
  listsIn(region: string | undefined): Iterable<ClassList> {
    if (region === undefined) return this.#lists.values();
    const list = this.#lists.get(region);
    return list === undefined ? [] : [list];
  }

  /** How many of the offers fail each condition of shape. */
  failing(demand: Demand, wantedIsolation: (isolation: Isolation) => boolean): Record<ShapeBlocker, number> {
    const { resources, min_vram_mb: vram, region, features, model, duration_s: duration } = demand;
    let gpus = 0;
    for (let free = 0; free < resources.gpus; free += 1) gpus += this.#gpus[free] ?? 0;
    return {
      gpus,
      vram: vram === undefined ? 0 : this.#vram.below(vram),
      cpu: resources.cpu === 0 ? 0 : this.#cpu.below(resources.cpu),
      memory: resources.memory_gb === 0 ? 0 : this.#memory.below(resources.memory_gb),
      region: region === undefined ? 0 : this.offers - (this.#regions.get(region)?.count ?? 0),
      isolation: demand.isolation === undefined ? 0 : tallied(this.#isolations, (is) => !wantedIsolation(is)),
      features: features === undefined ? 0 : tallied(this.#features, (has) => !hasAll(has, features)),
      model: model === undefined ? 0 : tallied(this.#models, (has) => !has.includes(model)),
      duration: duration === undefined ? 0 : tallied(this.#durations, (takes) => !lasts(takes, duration)),
    };
  }

  #sizesOf({ offer, free }: BookEntry): ClassShape & ListedSizes {
    const gpus = offer.gpus.filter((gpu) => this.#model === null || gpu.model === this.#model);
    const capacity = Math.min(offer.gpus_per_lease, gpus.length);
    const vramMb = Math.max(...gpus.map((gpu) => gpu.vram_mb));
    return { gpus: Math.min(free, capacity), capacity, vramMb, offer };
  }

  #count({ gpus, vramMb, offer }: ClassShape, by: 1 | -1): void {
    this.offers += by;
    this.#gpus[gpus] = (this.#gpus[gpus] ?? 0) + by;
    this.#vram.add(vramMb, by);
    this.#cpu.add(offer.cpu, by);
    this.#memory.add(offer.memory_gb, by);
    tally(this.#regions, offer.region, offer.region, by);
    tally(this.#isolations, offer.isolation, offer.isolation, by);
    tally(this.#features, setKey(offer.features), offer.features, by);
    tally(this.#models, setKey(offer.models), offer.models, by);
    const { min, max } = offer.duration_s;
    tally(this.#durations, `${min}-${max}`, offer.duration_s, by);
  }
}

export function hasAll(has: readonly string[], wanted: readonly string[]): boolean {
  return wanted.every((each) => has.includes(each));
}

export function lasts({ min, max }: Offer["duration_s"], seconds: number): boolean {
  return seconds >= min && seconds <= max;
}

function tally<T>(tallies: Map<string, Tally<T>>, key: string, value: T, by: 1 | -1): void {
  const known = tallies.get(key);
  if (known === undefined) tallies.set(key, { value, count: by });
  else if (known.count + by === 0) tallies.delete(key);
  else known.count += by;
}

function tallied<T>(tallies: ReadonlyMap<string, Tally<T>>, counts: (value: T) => boolean): number {
  let sum = 0;
  for (const { value, count } of tallies.values()) if (counts(value)) sum += count;
  return sum;
}
