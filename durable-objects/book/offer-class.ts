import type { Offer, Prices } from "@gpux/protocol/resources";
import type { BookEntry } from "../interfaces.ts";
import { Heap, type Positioned } from "./heap.ts";
import { packed } from "./shape.ts";

/** One way in which a node is sold: in one tier, by one of its models (or, where it has several, as a whole). */
export interface Listing extends Positioned {
  readonly entry: BookEntry;
  readonly lane: Lane;
  readonly vramMb: number;
  /** GPUs that one lease could have, were none held or leased. */
  readonly capacity: number;
  readonly gpuHour: bigint;
  /** `gpuHour` as a number: never in another order, but equal where numbers end. */
  readonly gpuKey: number;
  /** Hundredths of a percent, when it was listed. */
  readonly reliability: number;
}

/** Listings of a class that differ in the GPU's price and nothing else that a demand's price depends on. */
export interface Lane {
  readonly offerClass: OfferClass;
  readonly key: string;
  readonly coreHour: bigint;
  readonly gbHour: bigint;
  readonly start: bigint;
  readonly coreKey: number;
  readonly gbKey: number;
  readonly startKey: number;
  /** Of the score, in thousandths (score.ts). */
  readonly weight: number;
  readonly heap: Heap<Listing>;
  /** The lowest price of a GPU, weighted. */
  head: number;
  /** No listing here has more; it may be above what is left of them. */
  mostReliable: number;
}

export interface ClassShape {
  readonly gpus: number;
  readonly vramMb: number;
  readonly offer: Offer;
}

/** What of a listing its class does not tell. */
export type ListedSizes = Pick<Listing, "vramMb" | "capacity">;

/** Offers of one shape: what one of them cannot do, for being too small or too short, none of them can. */
export class OfferClass {
  readonly key: string;
  readonly shape: number;
  readonly gpus: number;
  readonly duration: Offer["duration_s"];
  readonly features: readonly string[];
  readonly models: readonly string[];
  /** By their lowest price. */
  readonly lanes: Lane[] = [];
  count = 0;
  /** The lowest weighted price of a GPU. */
  head = Number.POSITIVE_INFINITY;

  constructor(key: string, { gpus, vramMb, offer }: ClassShape) {
    this.key = key;
    this.shape = packed({
      gpus,
      vramMb,
      cpu: offer.cpu,
      memoryGb: offer.memory_gb,
      isolation: offer.isolation,
    });
    this.gpus = gpus;
    this.duration = offer.duration_s;
    this.features = offer.features;
    this.models = offer.models;
  }

  add(entry: BookEntry, sizes: ListedSizes, prices: Prices, weight: number, reliability: number): Listing {
    const lane = this.#lane(prices, entry.offer.start_price, weight);
    const { gpu_hour: gpuHour } = prices;
    const { vramMb, capacity } = sizes;
    const listing = {
      entry,
      lane,
      vramMb,
      capacity,
      gpuHour,
      gpuKey: Number(gpuHour),
      reliability,
      position: 0,
    };
    lane.heap.push(listing);
    lane.mostReliable = Math.max(lane.mostReliable, reliability);
    this.count += 1;
    this.#measure(lane);
    return listing;
  }

  remove(listing: Listing): void {
    const { lane } = listing;
    lane.heap.remove(listing);
    if (lane.heap.size === 0) this.lanes.splice(this.lanes.indexOf(lane), 1);
    this.count -= 1;
    this.#measure(lane);
  }

  #lane(prices: Prices, start: bigint, weight: number): Lane {
    const key = `${prices.core_hour}/${prices.gb_hour}/${start}/${weight}`;
    const known = this.lanes.find((lane) => lane.key === key);
    if (known !== undefined) return known;
    const lane: Lane = {
      offerClass: this,
      key,
      coreHour: prices.core_hour,
      gbHour: prices.gb_hour,
      start,
      coreKey: Number(prices.core_hour),
      gbKey: Number(prices.gb_hour),
      startKey: Number(start),
      weight,
      heap: new Heap(isBefore),
      head: Number.POSITIVE_INFINITY,
      mostReliable: 0,
    };
    this.lanes.push(lane);
    return lane;
  }

  #measure(lane: Lane): void {
    const { first } = lane.heap;
    const head = first === undefined ? Number.POSITIVE_INFINITY : first.gpuKey * lane.weight;
    if (head !== lane.head) {
      lane.head = head;
      this.lanes.sort((a, b) => a.head - b.head);
    }
    this.head = this.lanes[0]?.head ?? Number.POSITIVE_INFINITY;
  }
}

/** What two offers of one shape round to the same. */
export function classKeyOf({ gpus, vramMb, offer }: ClassShape): string {
  const { cpu, memory_gb: memoryGb, isolation, duration_s: duration, features, models } = offer;
  const shape = packed({ gpus, vramMb, cpu, memoryGb, isolation });
  const sets = features.length + models.length === 0 ? "" : `|${setKey(features)}|${setKey(models)}`;
  return `${shape}/${duration.min}-${duration.max}${sets}`;
}

export function setKey(names: readonly string[]): string {
  return [...new Set(names)].sort().join(" ");
}

function isBefore(a: Listing, b: Listing): boolean {
  if (a.gpuKey !== b.gpuKey) return a.gpuKey < b.gpuKey;
  if (a.gpuHour !== b.gpuHour) return a.gpuHour < b.gpuHour;
  return a.entry.node < b.entry.node;
}
