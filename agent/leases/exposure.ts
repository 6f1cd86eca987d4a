import type { LeaseId } from "@gpux/protocol/ids";
import { charged } from "@gpux/protocol/tariff";
import { type Book, type Ended, leastBillable, tariffOf } from "./book.ts";

/**
 * What this provider has delivered on a lease and cannot have paid without the edge yet, base units: beyond the usage that
 * the meter has countersigned. Of a job that ended in several attempts one is paid, and those that kept what they did.
 */
export function unsecuredOf(book: Book): bigint {
  const { resources, signed, ended, voucher } = book;
  const tariff = { ...tariffOf(book), gpus: resources.gpus };
  const ms = ended.values().reduce((sum, attempts) => sum + deliveredMs(attempts), signed.totalMs);
  const at = (time: number) => charged(tariff, Math.floor(time));
  const delivered = signed.cumulative + at(ms) - at(signed.totalMs);
  const secured = voucher?.cumulative ?? 0n;
  return delivered > secured ? delivered - secured : 0n;
}

function deliveredMs(attempts: readonly Ended[]): number {
  const kept = attempts.filter(({ body }) => body.t === "yielded");
  const others = attempts.filter((each) => !kept.includes(each));
  const most = others.reduce((longest, each) => Math.max(longest, leastBillable(each)), 0);
  return kept.reduce((sum, each) => sum + leastBillable(each), most);
}

/** How much a provider works for on an edge's word alone, over all leases that it serves. */
export interface Exposure {
  add(lease: LeaseId, book: Book): void;
  remove(lease: LeaseId): void;
  /** A meter's signature came: who waits may go on. */
  secured(): void;
  /** Base units. */
  total(): bigint;
  /** Whether {@link total} is within the bound. */
  hasRoom(): boolean;
  /** Resolves when it is; rejects with the signal's reason when that aborts first. */
  room(signal: AbortSignal): Promise<void>;
}

/** `most` in base units. */
export function createExposure(most: bigint): Exposure {
  const books = new Map<LeaseId, Book>();
  let moved = Promise.withResolvers<void>();
  const move = () => {
    moved.resolve();
    moved = Promise.withResolvers();
  };
  const exposure: Exposure = {
    add: (lease, book) => void books.set(lease, book),
    remove(lease) {
      books.delete(lease);
      move();
    },
    secured: move,
    total: () => books.values().reduce((sum, book) => sum + unsecuredOf(book), 0n),
    hasRoom: () => exposure.total() <= most,
    async room(signal) {
      const aborted = Promise.withResolvers<void>();
      const abort = () => aborted.resolve();
      signal.addEventListener("abort", abort, { once: true });
      try {
        signal.throwIfAborted();
        while (!exposure.hasRoom()) {
          await Promise.race([moved.promise, aborted.promise]);
          signal.throwIfAborted();
        }
      } finally {
        signal.removeEventListener("abort", abort);
      }
    },
  };
  return exposure;
}
