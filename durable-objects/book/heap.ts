/** Knows where it stands, so that it can be taken out without a search. */
export interface Positioned {
  position: number;
}

/** A binary heap whose items can be removed from the middle and walked in their order. */
export class Heap<Item extends Positioned> {
  readonly #items: Item[] = [];
  readonly #before: (a: Item, b: Item) => boolean;

  /** `before` is a strict total order. */
  constructor(before: (a: Item, b: Item) => boolean) {
    this.#before = before;
  }

  get size(): number {
    return this.#items.length;
  }

  get first(): Item | undefined {
    return this.#items[0];
  }

  /** In no order. */
  get items(): readonly Item[] {
    return this.#items;
  }

  push(item: Item): void {
    this.#items.push(item);
    this.#up(item, this.#items.length - 1);
  }

  /** The item must be in this heap. */
  remove(item: Item): void {
    const last = this.#items.pop();
    if (last === undefined || last === item) return;
    this.#up(last, item.position);
    this.#down(last, last.position);
  }

  /** First to last, until `visit` answers false. The heap must not change meanwhile. */
  walk(visit: (item: Item) => boolean): void {
    const { first } = this;
    if (first === undefined || !visit(first)) return;
    // What can come next stands below what has come: a heap of those, as small as the walk is short.
    const frontier = new Heap<{ position: number; item: Item }>((a, b) => this.#before(a.item, b.item));
    for (let item: Item | undefined = first; item !== undefined; ) {
      for (const below of [2 * item.position + 1, 2 * item.position + 2]) {
        const child = this.#items[below];
        if (child !== undefined) frontier.push({ position: 0, item: child });
      }
      const next = frontier.first;
      if (next === undefined || !visit(next.item)) return;
      frontier.remove(next);
      item = next.item;
    }
  }

  #up(item: Item, from: number): void {
    let position = from;
    while (position > 0) {
      const above = this.#items[(position - 1) >> 1];
      if (above === undefined || this.#before(above, item)) break;
      this.#set(above, position);
      position = (position - 1) >> 1;
    }
    this.#set(item, position);
  }

  #down(item: Item, from: number): void {
    let position = from;
    for (;;) {
      const left = this.#items[2 * position + 1];
      const right = this.#items[2 * position + 2];
      const least = left !== undefined && right !== undefined && this.#before(right, left) ? right : left;
      if (least === undefined || !this.#before(least, item)) break;
      const below = least.position;
      this.#set(least, position);
      position = below;
    }
    this.#set(item, position);
  }

  #set(item: Item, position: number): void {
    this.#items[position] = item;
    item.position = position;
  }
}
