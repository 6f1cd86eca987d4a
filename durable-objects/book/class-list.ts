import type { OfferClass } from "./offer-class.ts";
import { covers } from "./shape.ts";

const NO_SHAPES: readonly number[] = [];

/** What looks for offers in a list. */
export interface ClassSearch {
  /** As `packed` of shape.ts. */
  readonly wanted: number;
  fitsClass(offerClass: OfferClass): boolean;
  look(offerClass: OfferClass): void;
  /** A weighted price of one GPU above which nothing is looked for any more. */
  bound(): number;
}

/** Classes by the lowest weighted price of a GPU in each, with their shapes side by side for a fast look. */
export class ClassList {
  readonly #classes: OfferClass[] = [];
  readonly #byKey = new Map<string, OfferClass>();
  #shapes = new Int32Array(16);
  #heads = new Float64Array(16);
  /** Shapes of which none covers another, and that together cover all; null: to be found again. */
  #largest: readonly number[] | null = NO_SHAPES;

  get classes(): readonly OfferClass[] {
    return this.#classes;
  }

  get(key: string): OfferClass | undefined {
    return this.#byKey.get(key);
  }

  /**
   * Changes a class, which may be new or end up empty, and puts it where its price now belongs. `change` must touch
   * no other class.
   */
  change<T>(offerClass: OfferClass, change: () => T): T {
    const from = this.#byKey.has(offerClass.key) ? this.#positionOf(offerClass) : -1;
    const before = offerClass.head;
    const result = change();
    if (offerClass.count === 0) {
      if (from !== -1) this.#takeOut(from);
      this.#byKey.delete(offerClass.key);
      // What stood below it may be largest now.
      if (this.#largest?.includes(offerClass.shape)) this.#largest = null;
      return result;
    }
    if (from !== -1 && offerClass.head === before) return result;
    if (from !== -1) this.#takeOut(from);
    else if (this.#largest !== null) this.#largest = withShape(this.#largest, offerClass.shape);
    this.#putIn(offerClass);
    this.#byKey.set(offerClass.key, offerClass);
    return result;
  }

  /** Whether any class covers `wanted`: the few that no other covers say it for all. */
  covers(wanted: number): boolean {
    this.#largest ??= this.#classes.reduce((largest, { shape }) => withShape(largest, shape), NO_SHAPES);
    for (const shape of this.#largest) if (covers(shape, wanted)) return true;
    return false;
  }

  /** Cheapest first, until no class can have one of the best offers. */
  search(search: ClassSearch): void {
    const { wanted } = search;
    if (!this.covers(wanted)) return;
    // This loop is what a refusal costs: nothing is looked up twice in it.
    const shapes = this.#shapes;
    const heads = this.#heads;
    const { length } = this.#classes;
    let most = search.bound();
    for (let i = 0; i < length; i += 1) {
      if (!covers(shapes[i] ?? 0, wanted)) continue;
      if ((heads[i] ?? 0) > most) return;
      const offerClass = this.#classes[i];
      if (offerClass === undefined || !search.fitsClass(offerClass)) continue;
      search.look(offerClass);
      most = search.bound();
    }
  }

  /** All that cover `wanted`. */
  each(wanted: number, visit: (offerClass: OfferClass) => void): void {
    if (!this.covers(wanted)) return;
    const shapes = this.#shapes;
    const { length } = this.#classes;
    for (let i = 0; i < length; i += 1) {
      if (!covers(shapes[i] ?? 0, wanted)) continue;
      const offerClass = this.#classes[i];
      if (offerClass !== undefined) visit(offerClass);
    }
  }

  #positionOf(offerClass: OfferClass): number {
    let at = this.#lowest(offerClass.head);
    while (this.#classes[at] !== offerClass) at += 1;
    return at;
  }

  /** The first position whose price is not below `head`. */
  #lowest(head: number): number {
    let low = 0;
    let high = this.#classes.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#heads[middle] ?? 0) < head) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #takeOut(at: number): void {
    this.#classes.splice(at, 1);
    this.#shapes.copyWithin(at, at + 1);
    this.#heads.copyWithin(at, at + 1);
  }

  #putIn(offerClass: OfferClass): void {
    if (this.#classes.length === this.#shapes.length) this.#grow();
    const at = this.#lowest(offerClass.head);
    this.#shapes.copyWithin(at + 1, at, this.#classes.length);
    this.#heads.copyWithin(at + 1, at, this.#classes.length);
    this.#classes.splice(at, 0, offerClass);
    this.#shapes[at] = offerClass.shape;
    this.#heads[at] = offerClass.head;
  }

  #grow(): void {
    const shapes = new Int32Array(this.#shapes.length * 2);
    const heads = new Float64Array(this.#heads.length * 2);
    shapes.set(this.#shapes);
    heads.set(this.#heads);
    this.#shapes = shapes;
    this.#heads = heads;
  }
}

/** `largest` with another shape, and without those that it covers. */
function withShape(largest: readonly number[], shape: number): readonly number[] {
  if (largest.some((each) => covers(each, shape))) return largest;
  return [...largest.filter((each) => !covers(shape, each)), shape];
}
