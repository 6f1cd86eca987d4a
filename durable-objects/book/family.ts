import {
  type Demand,
  ISOLATIONS,
  isolationRank,
  type Offer,
  pricesIn,
  type Tier,
} from "@gpux/protocol/resources";
import type { BookEntry } from "../interfaces.ts";
import type { Counts } from "./counts.ts";
import { LaneList } from "./lane-list.ts";
import { hasAll, type Lane, type Listing, lasts, setKey } from "./offer-class.ts";
import type { Search } from "./search.ts";
import { CPU_TIERS, Histogram, MEMORY_TIERS, VRAM_TIERS } from "./shape.ts";

interface Tally<T> {
  readonly value: T;
  count: number;
}

/** A node's score, as its offer is listed by it. */
export interface ListedScore {
  /** In thousandths (score.ts). */
  readonly weight: number;
  /** Hundredths of a percent. */
  readonly reliability: number;
}

/**
 * Offers of one tier and GPU model, a list of lanes for each region, and how many of them fail each condition of
 * shape: counted as offers come and go, so that to say why nothing fits needs no look at offers.
 */
export class Family {
  offers = 0;
  readonly #lists = new Map<string, LaneList>();
  readonly #model: string | null;
  readonly #tier: Tier;
  readonly #gpus = new Int32Array(65);
  readonly #vram = new Histogram(VRAM_TIERS);
  readonly #cpu = new Histogram(CPU_TIERS);
  readonly #memory = new Histogram(MEMORY_TIERS);
  readonly #regions = new Map<string, Tally<string>>();
  /** By rank. */
  readonly #isolations = new Int32Array(ISOLATIONS.length);
  readonly #features = new Map<string, Tally<readonly string[]>>();
  readonly #models = new Map<string, Tally<readonly string[]>>();
  readonly #durations = new Map<string, Tally<Offer["duration_s"]>>();

  /** `model` null: of nodes with several models, as a whole. */
  constructor(tier: Tier, model: string | null) {
    this.#tier = tier;
    this.#model = model;
  }

  /** Null: it is not sold in this tier. */
  add(entry: BookEntry, { weight, reliability }: ListedScore): Listing | null {
    const { offer, free } = entry;
    const prices = pricesIn(offer, this.#tier);
    if (prices === null) return null;
    const cards = offer.gpus.filter(({ model }) => this.#model === null || model === this.#model);
    const capacity = Math.min(offer.gpus_per_lease, cards.length);
    const vramMb = Math.max(...cards.map((card) => card.vram_mb));
    const gpus = Math.min(free, capacity);
    const { gpu_hour: gpuHour } = prices;
    const list = this.#lists.get(offer.region) ?? new LaneList();
    this.#lists.set(offer.region, list);
    this.#count(gpus, vramMb, offer, 1);
    return list.add({ vramMb, offer, prices, weight }, gpus, {
      entry,
      vramMb,
      capacity,
      gpuHour,
      gpuKey: Number(gpuHour),
      reliability,
    });
  }

  remove(listing: Listing): void {
    const { entry, lane, vramMb } = listing;
    const { region } = entry.offer;
    const list = this.#lists.get(region);
    this.#count(lane.gpus, vramMb, entry.offer, -1);
    list?.remove(listing);
    if (list?.isEmpty) this.#lists.delete(region);
  }

  /** `entry` sells what the listing's own did (`sellsAlike`); it may have another number of GPUs free. */
  renew(listing: Listing, entry: BookEntry): void {
    const before = listing.lane.gpus;
    const gpus = Math.min(entry.free, listing.capacity);
    listing.entry = entry;
    if (gpus === before) return;
    this.#gpus[before] = (this.#gpus[before] ?? 0) - 1;
    this.#gpus[gpus] = (this.#gpus[gpus] ?? 0) + 1;
    this.#lists.get(entry.offer.region)?.move(listing, gpus);
  }

  search(search: Search): void {
    if (search.region !== null) this.#lists.get(search.region)?.search(search);
    else for (const list of this.#lists.values()) list.search(search);
  }

  /** All lanes in the demand's region that cover `wanted` (`packed`). */
  each(wanted: number, region: string | null, visit: (lane: Lane) => void): void {
    if (region !== null) this.#lists.get(region)?.each(wanted, visit);
    else for (const list of this.#lists.values()) list.each(wanted, visit);
  }

  /**
   * Adds how many of the offers fail each condition of shape. True: all of them fail one, and not that of GPUs, which
   * might be free again.
   */
  countFailing(search: Search, counts: Counts): boolean {
    const { region } = search;
    const vram = this.#vram.below(search.vram);
    const cpu = this.#cpu.below(search.cpu);
    const memory = this.#memory.below(search.memory);
    const isolation = sumBelow(this.#isolations, search.isolation);
    const elsewhere = region === null ? 0 : this.offers - (this.#regions.get(region)?.count ?? 0);
    counts.gpus += sumBelow(this.#gpus, search.gpus);
    counts.vram += vram;
    counts.cpu += cpu;
    counts.memory += memory;
    counts.isolation += isolation;
    counts.region += elsewhere;
    const most = Math.max(vram, cpu, memory, isolation, elsewhere);
    return (search.asksMore ? Math.max(most, this.#countMore(search.demand, counts)) : most) === this.offers;
  }

  /** The largest of the counts that it adds. */
  #countMore({ features, model, duration_s }: Demand, counts: Counts): number {
    const lacking = features === undefined ? 0 : tallied(this.#features, (has) => !hasAll(has, features));
    const unloaded = model === undefined ? 0 : tallied(this.#models, (has) => !has.includes(model));
    const duration =
      duration_s === undefined ? 0 : tallied(this.#durations, (takes) => !lasts(takes, duration_s));
    counts.features += lacking;
    counts.model += unloaded;
    counts.duration += duration;
    return Math.max(lacking, unloaded, duration);
  }

  #count(gpus: number, vramMb: number, offer: Offer, by: 1 | -1): void {
    this.offers += by;
    this.#gpus[gpus] = (this.#gpus[gpus] ?? 0) + by;
    this.#vram.add(vramMb, by);
    this.#cpu.add(offer.cpu, by);
    this.#memory.add(offer.memory_gb, by);
    const rank = isolationRank(offer.isolation);
    this.#isolations[rank] = (this.#isolations[rank] ?? 0) + by;
    tally(this.#regions, offer.region, offer.region, by);
    tally(this.#features, setKey(offer.features), offer.features, by);
    tally(this.#models, setKey(offer.models), offer.models, by);
    const { min, max } = offer.duration_s;
    tally(this.#durations, `${min}-${max}`, offer.duration_s, by);
  }
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

function sumBelow(counts: Int32Array, bound: number): number {
  let sum = 0;
  for (let i = 0; i < bound; i += 1) sum += counts[i] ?? 0;
  return sum;
}
