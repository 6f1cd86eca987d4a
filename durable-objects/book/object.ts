import { DurableObject } from "cloudflare:workers";
import type { Address } from "@gpux/protocol/ids";
import type { Blocker, Demand } from "@gpux/protocol/resources";
import type { ObjectEnv } from "../bindings.ts";
import { booksOf, DIRECTORY, shardsOf } from "../books.ts";
import { configOf } from "../config.ts";
import type { BookEntry, BookRpc, FindOptions, Found, Prices } from "../interfaces.ts";
import { Book, type BookEvent } from "./machine.ts";
import { BookStore } from "./store.ts";

/** Rows of the directory that a refill takes at a time. */
const PAGE = 200;

/**
 * An index of offers, named by books.ts. Never the truth: the Node confirms every hold, and its next publication
 * mends whatever stands here. One that finds no storage of its own, because it is new or was lost, takes its rows
 * from the directory before it answers; the directory itself is filled by its nodes alone.
 */
export class BookObject extends DurableObject<ObjectEnv> implements BookRpc {
  readonly #store: BookStore;
  /** Read from the rows when first needed after a wake. */
  #book: Promise<Book> | null = null;

  constructor(ctx: DurableObjectState, env: ObjectEnv) {
    super(ctx, env);
    this.#store = new BookStore(ctx.storage.sql);
  }

  async put(entry: BookEntry): Promise<void> {
    this.#apply(await this.#ready(), { t: "put", entry });
  }

  async remove(node: Address): Promise<void> {
    this.#apply(await this.#ready(), { t: "remove", node });
  }

  async find(demand: Demand, limit: number, options?: FindOptions): Promise<Found> {
    return (await this.#ready()).find(demand, limit, Date.now(), options);
  }

  async list(after: Address | null, limit: number): Promise<BookEntry[]> {
    return (await this.#ready()).list(after, limit);
  }

  async get(node: Address): Promise<BookEntry | null> {
    return (await this.#ready()).get(node);
  }

  async skipped(node: Address): Promise<Partial<Record<Blocker, number>>> {
    return (await this.#ready()).skipped(node, Date.now());
  }

  async prices(): Promise<Prices[]> {
    return (await this.#ready()).prices(Date.now());
  }

  async rowsOf(book: string, after: Address | null, limit: number): Promise<BookEntry[]> {
    const { bookShards } = configOf(this.env);
    return (await this.#ready()).list(after, limit, ({ offer, node }) =>
      booksOf(offer, node, bookShards).includes(book),
    );
  }

  #ready(): Promise<Book> {
    this.#book ??= this.#open().catch((error: unknown) => {
      this.#book = null;
      throw error;
    });
    return this.#book;
  }

  async #open(): Promise<Book> {
    const book = new Book();
    const now = Date.now();
    for (const entry of this.#store.load()) book.apply({ t: "put", entry }, now);
    if (!this.#store.isFilled()) await this.#fill(book);
    return book;
  }

  async #fill(book: Book): Promise<void> {
    const { name } = this.ctx.id;
    const directory = shardsOf(DIRECTORY, configOf(this.env).bookShards);
    if (name !== undefined && !directory.includes(name)) {
      for (const shard of directory) {
        for (let after: Address | null = null; ; ) {
          const rows: BookEntry[] = await this.env.BOOK.getByName(shard).rowsOf(name, after, PAGE);
          for (const entry of rows) this.#apply(book, { t: "put", entry });
          if (rows.length < PAGE) break;
          after = rows.at(-1)?.node ?? null;
        }
      }
    }
    this.#store.markFilled(Date.now());
  }

  #apply(book: Book, event: BookEvent): void {
    const written = book.apply(event, Date.now());
    if (written !== null) this.#store.save(written, book.get(written));
  }
}
