import type { Receipt } from "@gpux/protocol/eip712";
import type { Bytes32 } from "@gpux/protocol/ids";
import { append, emptyFrontier, root } from "@gpux/protocol/merkle";
import { charged } from "@gpux/protocol/tariff";
import { wireText } from "@gpux/protocol/wire";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { card, hasher, jobOf, leaseOf, NODE, NOW_S, termsWith, textWith } from "../fixtures.ts";
import { type Book, BookEntry, type Ended, enter, entriesOf, jobName, newBook, readBook } from "./book.ts";
import { checkClose, checkSettle, type SettleRequest, type Signer } from "./receipts.ts";

const terms = termsWith();
const { id, hash } = leaseOf(terms);
const self: Signer = { address: NODE, leaseId: hash, hasher };
const OUTPUT = "0b".repeat(32);
const INPUT = "1a".repeat(32);
const GPU = "SWIFTSHADER";
const share = { gpus: [card], resources: { gpus: 1, cpu: 0, memory_gb: 0 } };

function ended(
  n: number,
  ms: number,
  body: Partial<Ended["body"]> = {},
  payableMs = 60_000,
  unheardMs = 0,
): Ended {
  const job = jobOf(id, n);
  const attempt = { epoch: 1, n: 1 };
  const outputs = [{ name: "image", content_type: "image/png", bytes: 3, sha256: OUTPUT }];
  const end = body.t === undefined || body.t === "result" ? { t: "result", outputs } : { t: body.t };
  return {
    job,
    attempt,
    inputHash: INPUT,
    payableMs,
    unheardMs,
    body: { ...end, job, attempt, ms, gpu: GPU, ...body },
  };
}

function bookOf(...attempts: Ended[]): Book {
  const book = newBook(terms, share, null);
  for (const each of attempts) enter(book, { is: "ended", ended: each });
  return book;
}

/** What an honest edge asks for jobs 1, 2, ... with these billed times, changed by `change` (receipt by index). */
function settleFor(
  billed: readonly number[],
  change: (receipt: Receipt, index: number) => Receipt = (receipt) => receipt,
  start = 0n,
): SettleRequest {
  const tariff = { ratePerHour: terms.ratePerHour, gpus: 1, start };
  let total = 0;
  let frontier = emptyFrontier();
  const receipts = billed.map((ms, i) => {
    const before = charged(tariff, total);
    total += ms;
    const cumulative = charged(tariff, total);
    const receipt = change(
      {
        leaseId: hash,
        job: jobName(jobOf(id, i + 1)),
        sequence: i + 1,
        attempt: 1,
        inputHash: `0x${INPUT}`,
        outputHashes: [`0x${OUTPUT}`],
        node: NODE,
        gpu: GPU,
        billedMs: BigInt(ms),
        price: cumulative - before,
        cumulative,
        endedAt: NOW_S,
      },
      i,
    );
    frontier = append(frontier, hasher.receipt(receipt));
    return receipt;
  });
  const cumulative = receipts.at(-1)?.cumulative ?? 0n;
  return { usage: { cumulative, evidence: root(frontier) }, receipts };
}

function settled(book: Book, request: SettleRequest): void {
  const check = checkSettle(book, self, request);
  if (!check.ok) throw new Error(check.detail);
  enter(book, { is: "signed", signed: check.signed });
}

const OTHER: Bytes32 = `0x${"77".repeat(32)}`;

describe("settle", () => {
  test("signs what happened: three jobs, one of them a little under its own clock", () => {
    const book = bookOf(ended(1, 1_000), ended(2, 2_500), ended(3, 4_000));
    const check = checkSettle(book, self, settleFor([1_000, 2_490, 3_001]));
    expect(check).toMatchObject({
      ok: true,
      usage: { cumulative: 6_491n, leaseId: hash },
      signed: { totalMs: 6_491 },
    });
    expect(check.ok && check.signed.receipts.map(({ sequence }) => sequence)).toEqual([1, 2, 3]);
  });

  test.each<{ wrong: string; change: Partial<Receipt> }>([
    { wrong: "another lease", change: { leaseId: OTHER } },
    { wrong: "another node", change: { node: terms.payer } },
    { wrong: "no such attempt", change: { attempt: 2 } },
    { wrong: "no such attempt", change: { job: OTHER } },
    { wrong: "input hash", change: { inputHash: OTHER } },
    { wrong: "GPU", change: { gpu: "H200" } },
    { wrong: "output hashes", change: { outputHashes: [OTHER] } },
    { wrong: "output hashes", change: { outputHashes: [`0x${OUTPUT}`, OTHER] } },
    { wrong: "does not follow", change: { sequence: 3 } },
    { wrong: "cost", change: { price: 1_999n } },
    { wrong: "cost", change: { price: 2_001n } },
    { wrong: "cumulative", change: { cumulative: 2_999n } },
  ])("refuses a second receipt with $change: $wrong", ({ wrong, change }) => {
    const book = bookOf(ended(1, 1_000), ended(2, 2_000));
    const request = settleFor([1_000, 2_000], (receipt, i) =>
      i === 1 ? { ...receipt, ...change } : receipt,
    );
    const check = checkSettle(book, self, request);
    expect(check.ok).toBe(false);
    expect(!check.ok && check.detail).toContain(wrong);
  });

  test.each([
    { own: 10_000, billed: 10_050, ok: true },
    { own: 10_000, billed: 10_051, ok: false },
    { own: 10_000, billed: 7_000, ok: true },
    { own: 10_000, billed: 6_999, ok: false },
    { own: 50_000, billed: 47_000, ok: true },
    { own: 50_000, billed: 46_999, ok: false },
    { own: 200, billed: 0, ok: true },
    // No more than the time limit or max_price buys is due.
    { own: 70_000, billed: 60_000, ok: true },
  ])("of $own ms own, $billed ms billed: $ok", ({ own, billed, ok }) => {
    expect(checkSettle(bookOf(ended(1, own)), self, settleFor([billed])).ok).toBe(ok);
  });

  test.each([
    { body: { t: "stopped" }, own: 10_000, billed: 10_050, ok: true },
    { body: { t: "stopped" }, own: 10_000, billed: 15_000, ok: false },
    { body: { t: "stopped" }, own: 10_000, billed: 6_999, ok: false },
    { body: { t: "result" }, own: 10_000, billed: 10_000, ok: false },
    { body: { t: "failed", code: "limit_exceeded" }, own: 10_000, billed: 10_000, ok: true },
    { body: { t: "failed", code: "limit_exceeded" }, own: 10_000, billed: 12_000, ok: false },
    { body: { t: "failed", code: "limit_exceeded" }, own: 10_000, billed: 0, ok: false },
    { body: { t: "failed", code: "device_lost" }, own: 10_000, billed: 0, ok: true },
  ])(
    "without outputs, $body.t $body.code after $own ms billed $billed ms: $ok",
    ({ body, own, billed, ok }) => {
      const request = settleFor([billed], (receipt) => ({ ...receipt, outputHashes: [] }));
      expect(checkSettle(bookOf(ended(1, own, body)), self, request).ok).toBe(ok);
    },
  );

  test.each([
    { unheardMs: 6_000, billed: 1_000, ok: true },
    { unheardMs: 6_000, billed: 999, ok: false },
    { unheardMs: 0, billed: 6_999, ok: false },
  ])(
    "MTR-8 of 10 s own, the edge not heard to know of the first $unheardMs ms, $billed ms billed: $ok",
    ({ unheardMs, billed, ok }) => {
      const book = bookOf(ended(1, 10_000, {}, 60_000, unheardMs));
      expect(checkSettle(book, self, settleFor([billed])).ok).toBe(ok);
    },
  );

  test("MTR-12 signs for a start once, with the first time, and for no other", () => {
    const sold = { ...share, text: textWith({ start_price: "5000" }) };
    const book = newBook(terms, sold, null);
    for (const each of [ended(1, 0), ended(2, 1_000), ended(3, 1_000)])
      enter(book, { is: "ended", ended: each });
    const request = settleFor([0, 1_000, 1_000], (receipt) => receipt, 5_000n);
    expect(request.receipts.map(({ price }) => price)).toEqual([0n, 6_000n, 1_000n]);
    expect(checkSettle(book, self, request)).toMatchObject({ ok: true, usage: { cumulative: 7_000n } });
    expect(checkSettle(book, self, settleFor([0, 1_000, 1_000]))).toMatchObject({
      ok: false,
      detail: expect.stringContaining("cost 6000"),
    });
    const unsold = bookOf(ended(1, 0), ended(2, 1_000), ended(3, 1_000));
    expect(checkSettle(unsold, self, request).ok).toBe(false);
  });

  test("MTR-12 takes so much less of a job's time as its max_price pays for the start, of the first alone", () => {
    const sold = { ...share, text: textWith({ start_price: "40000" }) };
    const check = (...billed: number[]) => {
      const book = newBook(terms, sold, null);
      for (const [i] of billed.entries())
        enter(book, { is: "ended", ended: ended(i + 1, 60_000, {}, 60_000) });
      return checkSettle(
        book,
        self,
        settleFor(billed, (receipt) => receipt, 40_000n),
      );
    };
    expect(check(20_000, 60_000)).toMatchObject({ ok: true, usage: { cumulative: 120_000n } });
    expect(check(16_000, 60_000)).toMatchObject({ ok: false });
    expect(check(20_000, 20_000)).toMatchObject({ ok: false });
  });

  describe("CKP-2 of a job that gave way twice and then ended", () => {
    const yielded = (n: number, ms: number): Ended => {
      const attempt = { epoch: 1, n };
      const checkpoint = { sha256: "c".repeat(64), bytes: 8 };
      return { ...ended(1, ms, { t: "yielded", attempt, checkpoint }), attempt };
    };
    const last: Ended = { ...ended(1, 1_000), attempt: { epoch: 1, n: 3 } };
    const all = () => bookOf(yielded(1, 5_000), yielded(2, 7_000), last);
    /** A receipt for each of these attempts, all of the one job. */
    const paying = (attempts: readonly number[], billed: readonly number[]) =>
      settleFor(billed, (receipt, i) => ({
        ...receipt,
        job: jobName(jobOf(id, 1)),
        attempt: attempts[i] ?? 0,
        outputHashes: attempts[i] === 3 ? receipt.outputHashes : [],
      }));

    test("signs a receipt for each, in one block or in several, and after a restart", () => {
      const together = all();
      settled(together, paying([1, 2, 3], [5_000, 7_000, 1_000]));
      expect(together.ended.size).toBe(0);
      const apart = all();
      settled(apart, paying([1], [5_000]));
      const again = readBook(entriesOf(apart).map((entry) => BookEntry.parse(JSON.parse(wireText(entry)))));
      if (again === null) throw new Error("the journal tells a book");
      settled(again, paying([1, 2, 3], [5_000, 7_000, 1_000]));
      expect(again.signed).toMatchObject({ cumulative: 13_000n, totalMs: 13_000 });
      expect(again.ended.size).toBe(0);
    });

    test.each([
      { attempts: [1, 1], billed: [5_000, 5_000], wrong: "attempt 1 of the job is paid already" },
      { attempts: [2, 1], billed: [7_000, 5_000], wrong: "attempt 2 of the job is paid already" },
      { attempts: [1, 2], billed: [5_000, 7_100], wrong: "the job ran 7000 ms" },
      { attempts: [1], billed: [1_000], wrong: "of which only 1000" },
      { attempts: [4], billed: [1_000], wrong: "no such attempt" },
    ])("refuses receipts for attempts $attempts at $billed ms", ({ attempts, billed, wrong }) => {
      const check = checkSettle(all(), self, paying(attempts, billed));
      expect(!check.ok && check.detail).toContain(wrong);
    });

    test("refuses an attempt again that is paid, or one before it, in a later block", () => {
      const book = all();
      settled(book, paying([2], [7_000]));
      for (const attempt of [1, 2]) {
        const check = checkSettle(book, self, paying([2, attempt], [7_000, 5_000]));
        expect(!check.ok && check.detail).toContain("no such attempt");
      }
    });

    test("forgets the job by a receipt of a journal that names no attempt", () => {
      const book = all();
      const check = checkSettle(book, self, paying([1], [5_000]));
      if (!check.ok) throw new Error(check.detail);
      const older = check.signed.receipts.map(({ attempt: _, ...receipt }) => receipt);
      enter(book, { is: "signed", signed: { ...check.signed, receipts: older } });
      expect(book.ended.size).toBe(0);
    });
  });

  test("refuses a usage or an evidence that the receipts do not add up to", () => {
    const book = bookOf(ended(1, 1_000));
    const { usage, receipts } = settleFor([1_000]);
    expect(checkSettle(book, self, { receipts, usage: { ...usage, cumulative: 1_001n } }).ok).toBe(false);
    expect(checkSettle(book, self, { receipts, usage: { ...usage, evidence: OTHER } }).ok).toBe(false);
    expect(checkSettle(book, self, { receipts: [], usage }).ok).toBe(false);
  });

  test("answers a repeated request alike, also after more was signed, and refuses a changed one", () => {
    const book = bookOf(ended(1, 1_000), ended(2, 2_000));
    const first = settleFor([1_000]);
    const before = checkSettle(book, self, first);
    settled(book, first);
    const both = settleFor([1_000, 2_000]);
    settled(book, both);
    const again = checkSettle(book, self, first);
    expect(again.ok && again.usage).toEqual(before.ok && before.usage);
    expect(again.ok && again.signed).toMatchObject({ cumulative: 3_000n, receipts: [] });
    const changed = settleFor([1_000, 2_000], (receipt) => ({ ...receipt, endedAt: receipt.endedAt + 1 }));
    expect(checkSettle(book, self, changed).ok).toBe(false);
  });

  test("after a restart from its own journal, compacted or not, the answer is the same", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 50_000 }), { minLength: 1, maxLength: 12 }),
        fc.nat(11),
        (billed, cut) => {
          const entries: BookEntry[] = [{ is: "lease", terms, ...share, refusal: null }];
          const book = newBook(terms, share, null);
          const tell = (entry: BookEntry) => {
            entries.push(entry);
            enter(book, entry);
          };
          for (const [i, ms] of billed.entries()) tell({ is: "ended", ended: ended(i + 1, ms) });
          const first = checkSettle(book, self, settleFor(billed.slice(0, cut)));
          if (!first.ok) throw new Error(first.detail);
          tell({ is: "signed", signed: first.signed });
          tell({ is: "sent", seq: 1, body: { t: "signed" } });
          tell({ is: "dealt", seq: 9 });
          const want = checkSettle(book, self, settleFor(billed));
          expect(want.ok).toBe(true);
          for (const kept of [entries, entriesOf(book)]) {
            const again = readBook(kept.map((entry) => BookEntry.parse(JSON.parse(wireText(entry)))));
            expect(again).toEqual(book);
            expect(again && checkSettle(again, self, settleFor(billed))).toEqual(want);
          }
        },
      ),
    );
  });
});

describe("close", () => {
  const book = bookOf(ended(1, 1_000));
  settled(book, settleFor([1_000]));
  const good = { cumulative: 1_000n, evidence: book.signed.evidence, valid_before: NOW_S + 600 };

  test("signs the usage that it has signed", () => {
    expect(checkClose(book, hash, good, NOW_S)).toEqual({
      ok: true,
      close: { leaseId: hash, cumulative: 1_000n, evidence: good.evidence, validBefore: NOW_S + 600 },
    });
  });

  test.each([
    { change: { cumulative: 999n } },
    { change: { evidence: OTHER } },
    { change: { valid_before: NOW_S } },
  ])("refuses $change", ({ change }) => {
    expect(checkClose(book, hash, { ...good, ...change }, NOW_S).ok).toBe(false);
  });

  test("an unused lease closes at nothing, with the empty root", () => {
    const unused = bookOf();
    const close = { cumulative: 0n, evidence: root(emptyFrontier()), valid_before: NOW_S + 600 };
    expect(checkClose(unused, hash, close, NOW_S).ok).toBe(true);
  });
});

describe("book", () => {
  test("keeps every attempt that is to be billed, and few of the others", () => {
    const book = bookOf();
    enter(book, { is: "ended", ended: ended(1, 1_000) });
    for (let n = 0; n < 400; n += 1) {
      const job = jobOf(id, (n % 250) + 2);
      const attempt = { epoch: 1, n: n + 1 };
      const failed = { ...ended(2, 0, { t: "failed", code: "device_lost" }), job, attempt };
      enter(book, { is: "ended", ended: failed });
    }
    expect(book.ended.has(jobName(jobOf(id, 1)))).toBe(true);
    expect(book.ended.size).toBeLessThanOrEqual(257);
  });
});
