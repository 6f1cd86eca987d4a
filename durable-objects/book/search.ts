import { verifiedGpus } from "@gpux/protocol/challenge/verdict";
import { type Condition, type Facts, FIELDS, holds, type OrderTerm } from "@gpux/protocol/offer-query";
import {
  type Blocker,
  basisPointsOf,
  type Demand,
  isExcluded,
  isolationRank,
  pricesIn,
  ratePerHour,
} from "@gpux/protocol/resources";
import type { BookEntry, FindOptions, Rank } from "../interfaces.ts";
import { compareKeys } from "../ranking.ts";
import { hasAll, type Lane, type Listing, lasts, type OfferClass } from "./offer-class.ts";
import { CPU_TIERS, MEMORY_TIERS, packed, VRAM_TIERS } from "./shape.ts";

/**
 * Prices are compared as numbers while those are far enough apart to be certain, else to the base unit as bigint: a
 * product of a few numbers is off by less than this part of itself.
 */
const CERTAIN = 1e-12;

const NO_KEYS: readonly never[] = [];

interface Candidate {
  readonly listing: Listing;
  /** The weighted rate, as a number. */
  readonly cost: number;
  readonly sortKeys: readonly (bigint | string | null)[];
}

/** One demand, prepared to be held against many offers. */
export class Search {
  readonly demand: Demand;
  /** As {@link packed}. */
  readonly wanted: number;
  readonly limit: number;
  /** What every find reads of the demand, read once: demands have many forms, a search has one. */
  readonly model: string | null;
  readonly region: string | null;
  readonly gpus: number;
  readonly cpu: number;
  readonly memory: number;
  readonly vram: number;
  readonly isolation: number;
  /** The demand names what is in no size of a shape: features, a model, a duration. */
  readonly asksMore: boolean;
  /** The tiers do not say it all: each offer of a class is to be looked at. */
  readonly #betweenTiers: boolean;
  readonly #most: bigint | null;
  readonly #mostKey: number;
  readonly #reliability: number;
  readonly #verified: boolean;
  readonly #now: number;
  readonly #where: readonly Condition[];
  readonly #order: readonly OrderTerm[];
  readonly #distinct: boolean;
  readonly #looksAtEach: boolean;
  /** No GPU dearer than this, weighted, can still be among the best. */
  bound = Number.POSITIVE_INFINITY;
  /** Best first. */
  readonly #top: Candidate[] = [];

  /** `now` in milliseconds. */
  constructor(demand: Demand, limit: number, now: number, options: FindOptions = {}) {
    const { gpus, cpu, memory_gb: memory } = demand.resources;
    const { min_vram_mb: vram = 0, isolation = "process" } = demand;
    this.demand = demand;
    this.limit = limit;
    this.wanted = packed({ gpus, cpu, memoryGb: memory, vramMb: vram, isolation });
    this.model = demand.gpu_model ?? null;
    this.region = demand.region ?? null;
    this.gpus = gpus;
    this.cpu = cpu;
    this.memory = memory;
    this.vram = vram;
    this.isolation = isolationRank(isolation);
    this.asksMore =
      demand.duration_s !== undefined || demand.features !== undefined || demand.model !== undefined;
    this.#betweenTiers = !(CPU_TIERS.has(cpu) && MEMORY_TIERS.has(memory) && VRAM_TIERS.has(vram));
    this.#most = demand.max_rate_per_hour ?? null;
    this.#mostKey = this.#most === null ? Number.POSITIVE_INFINITY : Number(this.#most);
    this.#reliability = demand.min_reliability === undefined ? 0 : basisPointsOf(demand.min_reliability);
    this.#verified = demand.verified === true;
    this.#now = now;
    this.#where = options.where ?? [];
    this.#order = options.order ?? [];
    this.#distinct = options.distinctProviders === true;
    this.#looksAtEach =
      this.#betweenTiers ||
      this.#verified ||
      this.#where.length > 0 ||
      demand.exclude !== undefined ||
      demand.node !== undefined;
  }

  get found(): Listing[] {
    return this.#top.map(({ listing }) => listing);
  }

  get ranks(): Rank[] {
    return this.#top.map(({ listing, sortKeys }) => ({
      node: listing.entry.node,
      keys: sortKeys,
      weighted: this.#worth(listing) * BigInt(listing.lane.offerClass.weight),
      gpus: listing.lane.gpus,
    }));
  }

  /** Beside what {@link packed} tells. */
  fitsClass({ duration, features, models }: OfferClass): boolean {
    if (!this.asksMore) return true;
    const { demand } = this;
    return (
      (demand.duration_s === undefined || lasts(duration, demand.duration_s)) &&
      (demand.features === undefined || hasAll(features, demand.features)) &&
      (demand.model === undefined || models.includes(demand.model))
    );
  }

  /** Looks at one offer, of a class whose shape fits. */
  lookAt(listing: Listing): void {
    this.#consider(listing, listing.lane.offerClass);
  }

  /** Looks through a lane whose shape fits. */
  look({ offerClass, heap, mostReliable }: Lane): void {
    if (mostReliable < this.#reliability || !this.fitsClass(offerClass)) return;
    const { first } = heap;
    if (first === undefined || !this.#consider(first, offerClass) || heap.size === 1) return;
    heap.walk((listing) => listing === first || this.#consider(listing, offerClass));
  }

  /** False where nothing that follows in the lane can be among the best. */
  #consider(listing: Listing, offerClass: OfferClass): boolean {
    const rate = this.#rateKey(listing, offerClass);
    if (this.#isAbove(listing, rate)) return false;
    const cost = (rate + offerClass.startKey) * offerClass.weight;
    const ordered = this.#order.length > 0;
    if (!ordered && this.#top.length === this.limit) {
      const worst = this.#top[this.limit - 1];
      if (worst !== undefined && this.#compareCost(listing, cost, worst) >= 0) return false;
    }
    if (listing.reliability < this.#reliability) return true;
    if (this.#looksAtEach && this.#failing(listing) !== null) return true;
    this.#insert({ listing, cost, sortKeys: ordered ? this.#sortKeys(listing) : NO_KEYS });
    if (ordered) return true;
    const worst = this.#top.length < this.limit ? undefined : this.#top[this.limit - 1];
    this.bound = worst === undefined ? Number.POSITIVE_INFINITY : (worst.cost / this.gpus) * (1 + CERTAIN);
    return this.limit > 1;
  }

  /**
   * What a lane's listings, whose shape fits, fail beside it. `busy`: the shape fits but for the GPUs that are free;
   * listings that never have enough are left out.
   */
  explain(lane: Lane, busy: boolean, count: (blockers: readonly Blocker[], listings: number) => void): void {
    if (!busy && !this.#looksAtEach && this.#reliability === 0) {
      const { first } = lane.heap;
      // The cheapest is too dear, so all are.
      if (first !== undefined && this.#isAbove(first, this.#rateKey(first, lane.offerClass)))
        return count(["price"], lane.heap.size);
      if (this.#most === null) return count([], lane.heap.size);
    }
    for (const listing of lane.heap.items) {
      if (busy && listing.capacity < this.gpus) continue;
      if (!this.#isTooSmall(listing)) count(this.failed(listing), 1);
    }
  }

  /** What an offer fails beside its shape. */
  failed(listing: Listing): Blocker[] {
    const blockers = new Set<Blocker>();
    const { entry } = listing;
    if (this.demand.node !== undefined && this.demand.node !== entry.node) blockers.add("node");
    if (isExcluded(entry.node, entry.provider, this.demand)) blockers.add("excluded");
    if (listing.reliability < this.#reliability) blockers.add("reliability");
    if (!this.#isVerified(entry)) blockers.add("verified");
    if (this.#isAbove(listing, this.#rateKey(listing, listing.lane.offerClass))) blockers.add("price");
    if (this.#where.length > 0) {
      const facts = this.#facts(listing);
      for (const condition of this.#where)
        if (!holds(condition, facts[condition.field])) blockers.add(FIELDS[condition.field].blocker);
    }
    return [...blockers];
  }

  #failing(listing: Listing): Blocker | "size" | null {
    if (this.#betweenTiers && this.#isTooSmall(listing)) return "size";
    const { entry } = listing;
    if (this.demand.node !== undefined && this.demand.node !== entry.node) return "node";
    if (isExcluded(entry.node, entry.provider, this.demand)) return "excluded";
    if (!this.#isVerified(entry)) return "verified";
    if (this.#where.length === 0) return null;
    const facts = this.#facts(listing);
    const failed = this.#where.find((condition) => !holds(condition, facts[condition.field]));
    return failed === undefined ? null : FIELDS[failed.field].blocker;
  }

  /** As much as is asked for. */
  #isVerified({ challenge }: BookEntry): boolean {
    return !this.#verified || verifiedGpus(challenge, this.#now) >= this.gpus;
  }

  #isTooSmall({ entry: { offer }, vramMb }: Listing): boolean {
    return vramMb < this.vram || offer.cpu < this.cpu || offer.memory_gb < this.memory;
  }

  /** `rate`: the listing's, as a number. */
  #isAbove(listing: Listing, rate: number): boolean {
    if (this.#most === null) return false;
    if (rate < this.#mostKey * (1 - CERTAIN)) return false;
    return rate > this.#mostKey * (1 + CERTAIN) || this.#rate(listing) > this.#most;
  }

  #rateKey({ gpuKey }: Listing, { coreKey, gbKey }: OfferClass): number {
    return gpuKey * this.gpus + coreKey * this.cpu + gbKey * this.memory;
  }

  #rate({ gpuHour, lane }: Listing): bigint {
    return ratePerHour(
      { gpu_hour: gpuHour, core_hour: lane.offerClass.coreHour, gb_hour: lane.offerClass.gbHour },
      this.demand.resources,
    );
  }

  /** What an hour costs with its start: by it offers are ordered, not refused. */
  #worth(listing: Listing): bigint {
    return this.#rate(listing) + listing.lane.offerClass.start;
  }

  #insert(candidate: Candidate): void {
    if (this.#distinct) {
      const { provider } = candidate.listing.entry;
      const rival = this.#top.findIndex(({ listing }) => listing.entry.provider === provider);
      const known = this.#top[rival];
      if (known !== undefined) {
        if (this.#compare(candidate, known) >= 0) return;
        this.#top.splice(rival, 1);
      }
    }
    let at = this.#top.length;
    while (at > 0) {
      const above = this.#top[at - 1];
      if (above === undefined || this.#compare(above, candidate) <= 0) break;
      at -= 1;
    }
    this.#top.splice(at, 0, candidate);
    if (this.#top.length > this.limit) this.#top.pop();
  }

  #compare(a: Candidate, b: Candidate): number {
    const sorted = compareKeys(this.#order, a.sortKeys, b.sortKeys);
    if (sorted !== 0) return sorted;
    return this.#compareCost(a.listing, a.cost, b);
  }

  /** Weighted rate, then the more GPUs, then the lower address. */
  #compareCost(a: Listing, cost: number, { listing: b, cost: other }: Candidate): number {
    const difference = cost - other;
    if (Math.abs(difference) > Math.max(cost, other) * CERTAIN) return difference;
    const exact =
      this.#worth(a) * BigInt(a.lane.offerClass.weight) - this.#worth(b) * BigInt(b.lane.offerClass.weight);
    if (exact !== 0n) return exact < 0n ? -1 : 1;
    const gpus = b.lane.gpus - a.lane.gpus;
    if (gpus !== 0) return gpus;
    return a.entry.node < b.entry.node ? -1 : a.entry.node === b.entry.node ? 0 : 1;
  }

  #sortKeys(listing: Listing): (bigint | string | null)[] {
    const facts = this.#facts(listing);
    return this.#order.map(({ field }) => (field === "score" ? null : facts[field]));
  }

  #facts(listing: Listing): Facts {
    const { entry, vramMb, reliability } = listing;
    const { offer } = entry;
    const { resources, gpu_model } = this.demand;
    const yieldable = pricesIn(offer, "yieldable");
    return {
      gpu_name: gpu_model ?? offer.gpus[0]?.model ?? null,
      num_gpus: BigInt(resources.gpus),
      gpu_ram: BigInt(vramMb),
      cpu_cores: BigInt(resources.cpu),
      cpu_ram: BigInt(resources.memory_gb) * 1_000n,
      geolocation: offer.region,
      reliability: BigInt(reliability),
      dph_total: this.#rate(listing),
      start_usd: offer.start_price,
      min_bid: yieldable === null ? null : ratePerHour(yieldable, resources),
      duration: BigInt(offer.duration_s.max),
      isolation: BigInt(isolationRank(offer.isolation)),
      verified: String(verifiedGpus(entry.challenge, this.#now) >= this.gpus),
      machine_id: entry.node,
      host_id: entry.provider,
    };
  }
}
