import { inputHash } from "@gpux/protocol/job";
import { describe, expect, it } from "vitest";
import { jobOf, leaseOf, termsWith } from "../fixtures.ts";
import { type Book, enter, newBook } from "./book.ts";
import { createExposure, unsecuredOf } from "./exposure.ts";

const terms = termsWith();
const { id: lease } = leaseOf(terms);
const EVIDENCE = `0x${"0e".repeat(32)}` as const;

/** At one base unit a millisecond. */
function bookOf(gpus = 1): Book {
  return newBook(terms, { gpus: [], resources: { gpus, cpu: 0, memory_gb: 0 } }, null);
}

async function end(book: Book, n: number, ms: number, change: { attempt?: number; body?: object } = {}) {
  const job = jobOf(lease, n);
  const attempt = { epoch: 1, n: change.attempt ?? 1 };
  const body = { t: "result", job, attempt, ms, gpu: "X", outputs: [], ...change.body };
  const hash = await inputHash({ function: "f".repeat(64), inputs: {} });
  enter(book, {
    is: "ended",
    ended: { job, attempt, inputHash: hash, payableMs: 10_000, unheardMs: 0, body },
  });
}

function countersign(book: Book, cumulative: bigint): void {
  const voucher = { cumulative, evidence: EVIDENCE, provider: "0x01", meter: "0x02" } as const;
  enter(book, { is: "voucher", voucher });
}

describe("MON-6 what a provider has delivered and cannot have paid yet", () => {
  it("is what its jobs took, as far as they pay, beyond what the meter has countersigned", async () => {
    const book = bookOf();
    await end(book, 1, 4_000);
    expect(unsecuredOf(book)).toBe(4_000n);
    await end(book, 2, 50_000);
    expect(unsecuredOf(book)).toBe(14_000n);
    await end(book, 3, 1_000, { body: { t: "failed", code: "device_lost", detail: "" } });
    expect(unsecuredOf(book)).toBe(14_000n);
    countersign(book, 9_000n);
    expect(unsecuredOf(book)).toBe(5_000n);
    countersign(book, 14_000n);
    expect(unsecuredOf(book)).toBe(0n);
  });

  it("counts a job once, however many attempts it took, and a GPU's share of the rate", async () => {
    const book = bookOf(2);
    await end(book, 1, 4_000);
    await end(book, 1, 6_000, { attempt: 2 });
    expect(unsecuredOf(book)).toBe(3_000n);
  });

  it("CKP-2 counts each attempt that kept what it did, and of the others the longest", async () => {
    const book = bookOf();
    const checkpoint = { sha256: "c".repeat(64), bytes: 8 };
    await end(book, 1, 4_000, { body: { t: "yielded", checkpoint } });
    await end(book, 1, 2_000, { attempt: 2, body: { t: "yielded", checkpoint } });
    expect(unsecuredOf(book)).toBe(6_000n);
    await end(book, 1, 3_000, { attempt: 3 });
    await end(book, 1, 5_000, { attempt: 4 });
    expect(unsecuredOf(book)).toBe(11_000n);
  });

  it("is no less for this provider's own signature alone", async () => {
    const book = bookOf();
    await end(book, 1, 4_000);
    const frontier = { ...book.signed.frontier };
    enter(book, {
      is: "signed",
      signed: { cumulative: 4_000n, evidence: EVIDENCE, frontier, totalMs: 4_000, receipts: [] },
    });
    book.ended.clear();
    expect(unsecuredOf(book)).toBe(4_000n);
  });

  it("lets nobody begin above the bound, over all leases, until a signature comes or the lease is left", async () => {
    const exposure = createExposure(5_000n);
    const [one, two] = [bookOf(), bookOf()];
    const other = leaseOf(termsWith({ upfront: 1n })).id;
    exposure.add(lease, one);
    exposure.add(other, two);
    await end(one, 1, 3_000);
    await exposure.room(new AbortController().signal);
    await end(two, 2, 3_000);
    expect([exposure.total(), exposure.hasRoom()]).toEqual([6_000n, false]);
    const began: string[] = [];
    const waits = exposure.room(new AbortController().signal).then(() => began.push("began"));
    countersign(two, 500n);
    exposure.secured();
    await Promise.resolve();
    expect(began).toEqual([]);
    countersign(two, 1_000n);
    exposure.secured();
    await waits;
    await end(one, 3, 9_000);
    const again = exposure.room(new AbortController().signal);
    exposure.remove(lease);
    await again;
    expect(exposure.total()).toBe(2_000n);
  });

  it("lets go of whoever is stopped while it waits", async () => {
    const exposure = createExposure(0n);
    const book = bookOf();
    exposure.add(lease, book);
    await end(book, 1, 1);
    const stop = new AbortController();
    const waits = exposure.room(stop.signal);
    stop.abort(new Error("canceled"));
    await expect(waits).rejects.toThrow("canceled");
    await expect(exposure.room(stop.signal)).rejects.toThrow("canceled");
  });
});
