import type { Offer, Prices } from "@gpux/protocol/resources";
import type { BookEntry } from "../interfaces.ts";
import { Heap, type Positioned } from "./heap.ts";
import { packed, withGpus } from "./shape.ts";

/**
 * One way in which a node is sold: in one tier, by one of its models (or, where it has several, as a whole). A node
 * that changes only in what it has free keeps its listing.
 */
export interface Listing extends Positioned {
  entry: BookEntry;
  lane: Lane;
  readonly vramMb: number;
  /** GPUs that one lease could have, were none held or leased. */
  readonly capacity: number;
  readonly gpuHour: bigint;
  /** `gpuHour` as a number: never in another order, but equal where numbers end. */
  readonly gpuKey: number;
  /** Hundredths of a percent, when its score was last looked at. */
  reliability: number;
}

/** What offers of one class have in common. */
export interface ClassTerms {
  readonly vramMb: number;
  readonly offer: Offer;
  readonly prices: Prices;
  /** Of the score, in thousandths (score.ts). */
  readonly weight: number;
}

/**
 * Offers that differ in their GPUs' price, in how many are free, and in nothing else that a demand's price or fit
 * depends on: what one of them cannot do, for being too small or too short, none of them can.
 */
export class OfferClass {
  readonly key: string;
  /** As `packed`, without GPUs. */
  readonly shape: number;
  readonly duration: Offer["duration_s"];
  readonly features: readonly string[];
  readonly models: readonly string[];
  readonly coreHour: bigint;
  readonly gbHour: bigint;
  readonly start: bigint;
  readonly coreKey: number;
  readonly gbKey: number;
  readonly startKey: number;
  readonly weight: number;
  /** By GPUs that are free, one for each number of them that some offer has. In no order. */
  readonly lanes: Lane[] = [];

  constructor(key: string, { vramMb, offer, prices, weight }: ClassTerms) {
    this.key = key;
    this.shape = shapeOf(vramMb, offer);
    this.duration = offer.duration_s;
    this.features = offer.features;
    this.models = offer.models;
    this.coreHour = prices.core_hour;
    this.gbHour = prices.gb_hour;
    this.start = offer.start_price;
    this.coreKey = Number(prices.core_hour);
    this.gbKey = Number(prices.gb_hour);
    this.startKey = Number(offer.start_price);
    this.weight = weight;
  }

  /** Undefined: no offer has so many GPUs free. */
  lane(gpus: number): Lane | undefined {
    for (const lane of this.lanes) if (lane.gpus === gpus) return lane;
    return undefined;
  }
}

/** Listings of a class with so many GPUs free, by their price. */
export class Lane {
  readonly offerClass: OfferClass;
  readonly heap = new Heap<Listing>(isBefore);
  gpus: number;
  /** As `packed`. */
  shape: number;
  /** Where it stands in its list; null while it stands in none. */
  block: Block | null = null;
  /** No listing here has more; it may be above what is left of them. */
  mostReliable = 0;

  constructor(offerClass: OfferClass, gpus: number) {
    this.offerClass = offerClass;
    this.gpus = gpus;
    this.shape = withGpus(offerClass.shape, gpus);
  }

  /** The lowest price of a GPU, weighted. */
  get head(): number {
    const { first } = this.heap;
    return first === undefined ? Number.POSITIVE_INFINITY : first.gpuKey * this.offerClass.weight;
  }
}

/** Lanes of a block, at most: so much is moved when one comes or goes. */
export const BLOCK = 64;

/** Some lanes that follow each other, with their shapes and prices side by side for a fast look. */
export class Block {
  readonly lanes: Lane[] = [];
  readonly shapes = new Int32Array(BLOCK);
  /** The lowest weighted price of a GPU in each lane. */
  readonly heads = new Float64Array(BLOCK);

  takeIn(lane: Lane, head: number): void {
    let at = this.lanes.length;
    this.lanes.push(lane);
    for (; at > 0 && (this.heads[at - 1] ?? 0) > head; at -= 1) this.#copy(at - 1, at);
    this.#set(at, lane, head);
  }

  takeOut(lane: Lane): void {
    for (let at = this.lanes.indexOf(lane); at < this.lanes.length - 1; at += 1) this.#copy(at + 1, at);
    this.lanes.pop();
    lane.block = null;
  }

  /** The dearer half, as a block of its own. */
  split(): Block {
    const upper = new Block();
    const from = BLOCK / 2;
    for (const [at, lane] of this.lanes.splice(from).entries())
      upper.takeIn(lane, this.heads[from + at] ?? 0);
    return upper;
  }

  #copy(from: number, to: number): void {
    const lane = this.lanes[from];
    if (lane === undefined) return;
    this.lanes[to] = lane;
    this.shapes[to] = this.shapes[from] ?? 0;
    this.heads[to] = this.heads[from] ?? 0;
  }

  #set(at: number, lane: Lane, head: number): void {
    this.lanes[at] = lane;
    this.shapes[at] = lane.shape;
    this.heads[at] = head;
    lane.block = this;
  }
}

/** The same for all offers of a class, and for no others. */
export function classKeyOf({ vramMb, offer, prices, weight }: ClassTerms): string {
  const { duration_s: duration, features, models } = offer;
  const sets = features.length + models.length === 0 ? "" : `|${setKey(features)}|${setKey(models)}`;
  const price = `${prices.core_hour}/${prices.gb_hour}/${offer.start_price}/${weight}`;
  return `${shapeOf(vramMb, offer)}/${duration.min}-${duration.max}/${price}${sets}`;
}

export function setKey(names: readonly string[]): string {
  return [...new Set(names)].sort().join(" ");
}

export function hasAll(has: readonly string[], wanted: readonly string[]): boolean {
  return wanted.every((each) => has.includes(each));
}

export function lasts({ min, max }: Offer["duration_s"], seconds: number): boolean {
  return seconds >= min && seconds <= max;
}

function shapeOf(vramMb: number, { cpu, memory_gb: memoryGb, isolation }: Offer): number {
  return packed({ gpus: 0, vramMb, cpu, memoryGb, isolation });
}

function isBefore(a: Listing, b: Listing): boolean {
  if (a.gpuKey !== b.gpuKey) return a.gpuKey < b.gpuKey;
  if (a.gpuHour !== b.gpuHour) return a.gpuHour < b.gpuHour;
  return a.entry.node < b.entry.node;
}
