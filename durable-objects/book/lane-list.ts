import { BLOCK, Block, type ClassTerms, classKeyOf, Lane, type Listing, OfferClass } from "./offer-class.ts";
import { covers, withGpus } from "./shape.ts";

/** What looks for offers in a list. */
export interface LaneSearch {
  /** As `packed` of shape.ts. */
  readonly wanted: number;
  /** A weighted price of one GPU above which nothing is looked for any more. */
  readonly bound: number;
  look(lane: Lane): void;
}

/** Offers by the lowest weighted price of a GPU in each lane of theirs. */
export class LaneList {
  readonly #classes = new Map<string, OfferClass>();
  /** Cheapest first; none is empty. */
  readonly #blocks: Block[] = [];
  /** How many lanes are of a shape. */
  readonly #shapes = new Map<number, number>();
  /** Shapes of which none covers another, and that together cover all; null: to be found again. */
  #largest: number[] | null = [];

  get isEmpty(): boolean {
    return this.#blocks.length === 0;
  }

  /** Puts an offer with so many GPUs free into the class of its terms. */
  add(terms: ClassTerms, gpus: number, listing: Omit<Listing, "lane" | "position">): Listing {
    const key = classKeyOf(terms);
    const offerClass = this.#classes.get(key) ?? new OfferClass(key, terms);
    if (offerClass.lanes.length === 0) this.#classes.set(key, offerClass);
    const lane = offerClass.lane(gpus) ?? this.#newLane(offerClass, gpus);
    const added = { ...listing, lane, position: 0 };
    this.#join(added, lane);
    return added;
  }

  remove(listing: Listing): void {
    const { offerClass } = listing.lane;
    this.#leave(listing);
    if (offerClass.lanes.length === 0) this.#classes.delete(offerClass.key);
  }

  /** Another number of its GPUs is free. */
  move(listing: Listing, gpus: number): void {
    const { lane } = listing;
    const { offerClass, block } = lane;
    if (gpus === lane.gpus) return;
    const known = offerClass.lane(gpus);
    if (known === undefined && lane.heap.size === 1 && block !== null) {
      // Its price and so its place are what they were: the lane itself becomes another.
      this.#count(lane.shape, -1);
      lane.gpus = gpus;
      lane.shape = withGpus(offerClass.shape, gpus);
      block.shapes[block.lanes.indexOf(lane)] = lane.shape;
      this.#count(lane.shape, 1);
      return;
    }
    this.#leave(listing);
    this.#join(listing, known ?? this.#newLane(offerClass, gpus));
  }

  /** Whether any lane covers `wanted`: the few shapes that no other covers say it for all. */
  covers(wanted: number): boolean {
    this.#largest ??= this.#findLargest();
    const largest = this.#largest;
    for (let i = 0; i < largest.length; i += 1) if (covers(largest[i] ?? 0, wanted)) return true;
    return false;
  }

  /** Cheapest first, until no lane can have one of the best offers. */
  search(search: LaneSearch): void {
    const { wanted } = search;
    if (!this.covers(wanted)) return;
    for (const { lanes, shapes, heads } of this.#blocks) {
      // This loop is what a find costs: nothing is looked up twice in it.
      const { length } = lanes;
      for (let i = 0; i < length; i += 1) {
        if (!covers(shapes[i] ?? 0, wanted)) continue;
        if ((heads[i] ?? 0) > search.bound) return;
        const lane = lanes[i];
        if (lane !== undefined) search.look(lane);
      }
    }
  }

  /** All that cover `wanted`. */
  each(wanted: number, visit: (lane: Lane) => void): void {
    if (!this.covers(wanted)) return;
    for (const { lanes } of this.#blocks)
      for (const lane of lanes) if (covers(lane.shape, wanted)) visit(lane);
  }

  #newLane(offerClass: OfferClass, gpus: number): Lane {
    const lane = new Lane(offerClass, gpus);
    offerClass.lanes.push(lane);
    this.#count(lane.shape, 1);
    return lane;
  }

  #join(listing: Listing, lane: Lane): void {
    listing.lane = lane;
    lane.heap.push(listing);
    lane.mostReliable = Math.max(lane.mostReliable, listing.reliability);
    if (lane.block !== null && lane.heap.first !== listing) return;
    this.#takeOut(lane);
    this.#takeIn(lane);
  }

  #leave(listing: Listing): void {
    const { lane } = listing;
    const wasFirst = lane.heap.first === listing;
    lane.heap.remove(listing);
    if (!wasFirst) return;
    this.#takeOut(lane);
    if (lane.heap.size > 0) return this.#takeIn(lane);
    const { lanes } = lane.offerClass;
    lanes.splice(lanes.indexOf(lane), 1);
    this.#count(lane.shape, -1);
  }

  #takeIn(lane: Lane): void {
    const { head } = lane;
    const at = Math.max(0, this.#firstAbove(head) - 1);
    const block = this.#blocks[at] ?? new Block();
    if (this.#blocks.length === 0) this.#blocks.push(block);
    if (block.lanes.length < BLOCK) return block.takeIn(lane, head);
    const upper = block.split();
    this.#blocks.splice(at + 1, 0, upper);
    (head < (upper.heads[0] ?? 0) ? block : upper).takeIn(lane, head);
  }

  #takeOut(lane: Lane): void {
    const { block } = lane;
    if (block === null) return;
    if (block.lanes.length === 1) this.#blocks.splice(this.#blocks.indexOf(block), 1);
    block.takeOut(lane);
  }

  /** The first block whose cheapest lane is above `head`. */
  #firstAbove(head: number): number {
    let low = 0;
    let high = this.#blocks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#blocks[middle]?.heads[0] ?? 0) > head) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #count(shape: number, by: 1 | -1): void {
    const count = (this.#shapes.get(shape) ?? 0) + by;
    if (count > 0) this.#shapes.set(shape, count);
    else this.#shapes.delete(shape);
    if (this.#largest === null) return;
    // What stood below a shape that is gone may be largest now.
    if (count === 0 && this.#largest.includes(shape)) this.#largest = null;
    else if (count === 1 && by === 1) this.#largest = withShape(this.#largest, shape);
  }

  #findLargest(): number[] {
    let largest: number[] = [];
    for (const shape of this.#shapes.keys()) largest = withShape(largest, shape);
    return largest;
  }
}

/** `largest` with another shape, and without those that it covers. */
function withShape(largest: number[], shape: number): number[] {
  for (const each of largest) if (covers(each, shape)) return largest;
  return [...largest.filter((each) => !covers(shape, each)), shape];
}
