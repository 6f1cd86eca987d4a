import { DurableObject } from "cloudflare:workers";
import type { Address } from "@gpux/protocol/ids";
import type { Demand } from "@gpux/protocol/resources";
import type { ObjectEnv } from "../bindings.ts";
import type { BookEntry, BookRpc, Found } from "../interfaces.ts";
import { type BookEvent, type BookState, find, list, step } from "./machine.ts";
import { BookStore } from "./store.ts";

/**
 * An index of offers, named by books.ts. Never the truth: the Node confirms every hold, and its next publication
 * mends whatever stands here.
 */
export class BookObject extends DurableObject<ObjectEnv> implements BookRpc {
  readonly #store: BookStore;
  /** Read from the rows when first needed after a wake. */
  #state: BookState | null = null;

  constructor(ctx: DurableObjectState, env: ObjectEnv) {
    super(ctx, env);
    this.#store = new BookStore(ctx.storage.sql);
  }

  async put(entry: BookEntry): Promise<void> {
    this.#apply({ t: "put", entry });
  }

  async remove(node: Address): Promise<void> {
    this.#apply({ t: "remove", node });
  }

  async find(demand: Demand, limit: number): Promise<Found> {
    return find(this.#entries(), demand, limit);
  }

  async list(after: Address | null, limit: number): Promise<BookEntry[]> {
    return list(this.#entries(), after, limit);
  }

  async get(node: Address): Promise<BookEntry | null> {
    return this.#entries().get(node) ?? null;
  }

  #entries(): BookState {
    this.#state ??= this.#store.load();
    return this.#state;
  }

  #apply(event: BookEvent): void {
    const { next, written } = step(this.#entries(), event);
    if (written === null) return;
    this.#store.save(next, written);
    this.#state = next;
  }
}
