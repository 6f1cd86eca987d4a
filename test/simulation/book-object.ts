import { Book, type BookEvent } from "@gpux/durable-objects/book/machine";
import { booksOf, DIRECTORY, shardsOf } from "@gpux/durable-objects/books";
import type { BookEntry, Found, Outcome } from "@gpux/durable-objects/interfaces";
import type { Address } from "@gpux/protocol/ids";
import type { Demand } from "@gpux/protocol/resources";
import { Actor, type Flow } from "./actor.ts";
import { type BookDoor, ONE_SHARD, type Setting } from "./setting.ts";

/** Rows of the directory that a refill takes at a time, as in durable-objects/book/object.ts. */
const PAGE = 200;

/** The shell of durable-objects/book/object.ts over the same machine. */
export class BookObject extends Actor implements BookDoor {
  readonly #setting: Setting;
  readonly #title: string;
  #rows = new Map<Address, BookEntry>();
  #isFilled = false;
  #book: Book | null = null;

  constructor(title: string, setting: Setting) {
    super(`book ${title}`);
    this.#title = title;
    this.#setting = setting;
  }

  override crash(): void {
    super.crash();
    this.#book = null;
  }

  *put(entry: BookEntry): Flow<Outcome> {
    this.#apply(yield* this.#ready(), { t: "put", entry });
    return { ok: true };
  }

  *remove(node: Address): Flow<Outcome> {
    this.#apply(yield* this.#ready(), { t: "remove", node });
    return { ok: true };
  }

  *find(demand: Demand, limit: number): Flow<Found> {
    const book = yield* this.#ready();
    return book.find(demand, limit, this.#setting.schedule.now, { toBuy: true });
  }

  *rowsOf(book: string, after: Address | null, limit: number): Flow<BookEntry[]> {
    const mine = yield* this.#ready();
    return mine.list(after, limit, ({ offer, node }) => booksOf(offer, node, ONE_SHARD).includes(book));
  }

  row(node: Address): BookEntry | undefined {
    return this.#rows.get(node);
  }

  /** The shard is lost, rows and all: it takes them from the directory again, and the directory from its nodes. */
  lose(): void {
    this.crash();
    this.#rows = new Map();
    this.#isFilled = false;
  }

  *#ready(): Flow<Book> {
    if (this.#book !== null) return this.#book;
    const book = new Book();
    for (const entry of this.#rows.values()) book.apply({ t: "put", entry }, this.#setting.schedule.now);
    if (!this.#isFilled) yield* this.#fill(book);
    this.#book ??= book;
    return this.#book;
  }

  *#fill(book: Book): Flow<void> {
    const directory = shardsOf(DIRECTORY, ONE_SHARD);
    if (!directory.includes(this.#title))
      for (const name of directory) {
        const shard = this.#setting.book(name);
        const ask = () => shard.rowsOf(this.#title, null, PAGE);
        const rows = yield* this.#setting.network.call(this, shard, "rows", ask);
        for (const entry of rows) this.#apply(book, { t: "put", entry });
      }
    this.#isFilled = true;
  }

  #apply(book: Book, event: BookEvent): void {
    const node = this.#setting.machines.book.apply(book, event, this.#setting.schedule.now);
    if (node === null) return;
    const entry = book.get(node);
    if (entry === null) this.#rows.delete(node);
    else this.#rows.set(node, entry);
  }
}
