import { type BookEvent, type BookState, find } from "@gpux/durable-objects/book/machine";
import type { BookEntry, Found, Outcome } from "@gpux/durable-objects/interfaces";
import type { Address } from "@gpux/protocol/ids";
import type { Demand } from "@gpux/protocol/resources";
import { Actor, type Flow } from "./actor.ts";
import type { BookDoor, Setting } from "./setting.ts";

/** The shell of durable-objects/book/object.ts over the same machine. */
export class BookObject extends Actor implements BookDoor {
  readonly #setting: Setting;
  state: BookState = new Map();

  constructor(name: string, setting: Setting) {
    super(`book ${name}`);
    this.#setting = setting;
  }

  *put(entry: BookEntry): Flow<Outcome> {
    yield* [];
    this.#apply({ t: "put", entry });
    return { ok: true };
  }

  *remove(node: Address): Flow<Outcome> {
    yield* [];
    this.#apply({ t: "remove", node });
    return { ok: true };
  }

  *find(demand: Demand, limit: number): Flow<Found> {
    yield* [];
    return find(this.state, demand, limit);
  }

  /** The shard is lost, rows and all: its nodes write themselves in again with what changes next. */
  lose(): void {
    this.crash();
    this.state = new Map();
  }

  #apply(event: BookEvent): void {
    this.state = this.#setting.machines.book.step(this.state, event).next;
  }
}
