import { NO_JOB, type Receipt } from "@gpux/protocol/eip712";
import type { Bytes32 } from "@gpux/protocol/ids";
import { append, emptyFrontier, root } from "@gpux/protocol/merkle";
import { accrued, MAX_AMOUNT } from "@gpux/protocol/money";
import { wireText } from "@gpux/protocol/wire";
import { describe, expect, test } from "vitest";
import { card, hasher, jobOf, leaseOf, NODE, NOW_S, quoteHash, termsWith, textWith } from "../fixtures.ts";
import { type Book, BookEntry, countedMs, enter, entriesOf, jobName, newBook, readBook } from "./book.ts";
import { checkSettle, type SettleRequest, type Signer } from "./receipts.ts";

const text = textWith({ mode: "dedicated" });
const terms = termsWith({ unattended: MAX_AMOUNT, quote: quoteHash(text) });
const { id, hash } = leaseOf(terms);
const self: Signer = { address: NODE, leaseId: hash, hasher };
const OTHER: Bytes32 = `0x${"77".repeat(32)}`;

/** A dedicated lease whose agent was asked 1, 2, ... and answered with these milliseconds. */
function bookOf(...counts: number[]): Book {
  const book = newBook(terms, { gpus: [card], resources: { gpus: 1, cpu: 0, memory_gb: 0 }, text }, null);
  for (const [i, ms] of counts.entries()) enter(book, { is: "served", n: i + 1, ms });
  return book;
}

type Entry = { readonly job: Bytes32; readonly ms: number; readonly attempt: number };
const time = (attempt: number, ms: number): Entry => ({ job: NO_JOB, attempt, ms });

/** What an honest edge asks for these receipts, with the last one changed. */
function settleFor(entries: readonly Entry[], change: Partial<Receipt> = {}): SettleRequest {
  let total = 0;
  let cumulative = 0n;
  let frontier = emptyFrontier();
  const receipts = entries.map(({ job, attempt, ms }, i): Receipt => {
    const isTime = job === NO_JOB;
    const price = isTime ? accrued(terms.ratePerHour, total + ms) - accrued(terms.ratePerHour, total) : 0n;
    total += isTime ? ms : 0;
    cumulative += price;
    const receipt: Receipt = {
      leaseId: hash,
      job,
      sequence: i + 1,
      attempt,
      inputHash: isTime ? terms.quote : `0x${"1a".repeat(32)}`,
      outputHashes: [],
      node: NODE,
      gpu: card.model,
      billedMs: BigInt(ms),
      price,
      cumulative,
      endedAt: NOW_S,
      ...(i === entries.length - 1 ? change : {}),
    };
    frontier = append(frontier, hasher.receipt(receipt));
    return receipt;
  });
  return { usage: { cumulative, evidence: root(frontier) }, receipts };
}

const check = (book: Book, request: SettleRequest, funded: bigint | null = null) => {
  const result = checkSettle(book, self, request, funded);
  return result.ok ? "signs" : result.detail;
};

describe("receipts of time", () => {
  test("MTR-10 signs what it counted, tick after tick, with the jobs of the lease free between them", () => {
    const book = bookOf(60_000, 120_500);
    const job = jobOf(id, 1);
    const attempt = { epoch: 1, n: 1 };
    const body = { t: "failed", job, attempt, ms: 2_000, gpu: card.model, code: "limit_exceeded" };
    const ended = { job, attempt, inputHash: "1a".repeat(32), payableMs: 120_000, unheardMs: 0, body };
    enter(book, { is: "ended", ended });
    const free = { job: jobName(job), attempt: 1, ms: 2_000 };
    const result = checkSettle(book, self, settleFor([time(1, 59_990), free, time(2, 60_000)]));
    expect(result).toMatchObject({
      ok: true,
      signed: { totalMs: 119_990 },
      usage: { cumulative: 119_990n },
    });
  });

  test.each<{ wrong: string; change: Partial<Receipt> }>([
    { wrong: "another lease", change: { leaseId: OTHER } },
    { wrong: "another node", change: { node: `0x${"99".repeat(20)}` } },
    { wrong: "time that nobody asked for", change: { attempt: 2 } },
    { wrong: "what was not reserved", change: { inputHash: OTHER } },
    { wrong: "outputs", change: { outputHashes: [OTHER] } },
    { wrong: "another card", change: { gpu: "H100" } },
    { wrong: "another price", change: { price: 60_001n, cumulative: 60_001n } },
  ])("MTR-10 does not sign for $wrong", ({ change }) => {
    expect(check(bookOf(60_000), settleFor([time(1, 60_000)]))).toBe("signs");
    expect(check(bookOf(60_000), settleFor([time(1, 60_000)], change))).not.toBe("signs");
  });

  test.each([
    { what: "a little less than its own clock", own: 60_000, billed: 45_000, ok: true },
    { what: "much less", own: 60_000, billed: 44_999, ok: false },
    { what: "a thousandth less of a long lease", own: 36_000_000, billed: 35_964_000, ok: true },
    { what: "more than that", own: 36_000_000, billed: 35_963_999, ok: false },
    { what: "more than its own clock", own: 60_000, billed: 60_051, ok: false },
  ])("MTR-10 signs for $what: $ok", ({ own, billed, ok }) => {
    expect(check(bookOf(own), settleFor([time(1, billed)])) === "signs").toBe(ok);
  });

  test("MTR-11 time that the money does not pay for is not missed", () => {
    const request = settleFor([time(1, 20_000)]);
    expect(check(bookOf(60_000), request, 20_000n)).toBe("signs");
    expect(check(bookOf(60_000), request, 40_000n)).not.toBe("signs");
  });

  test("MTR-10 other leases are not paid by the clock", () => {
    const other = newBook(terms, { gpus: [card], resources: { gpus: 1, cpu: 0, memory_gb: 0 } }, null);
    enter(other, { is: "served", n: 1, ms: 60_000 });
    expect(check(other, settleFor([time(1, 60_000)]))).toContain("not paid by the clock");
  });

  test("MTR-10 a restart knows what the edge was told, and counts on from there", () => {
    const book = bookOf(60_000, 120_000);
    const lines = entriesOf(book).map((entry) => BookEntry.parse(JSON.parse(wireText(entry))));
    const again = readBook(lines);
    expect(again).toEqual(book);
    expect(again && countedMs(again)).toBe(120_000);
    expect(again && check(again, settleFor([time(2, 120_000)]))).toBe("signs");
  });
});
