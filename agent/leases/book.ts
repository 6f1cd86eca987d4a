import { LeaseTerms } from "@gpux/protocol/eip712";
import { JOB_FAILURES, type JobFailureCode } from "@gpux/protocol/errors";
import { Bytes32, HexBytes, JobId, Sha256 } from "@gpux/protocol/ids";
import { AttemptToken, InputValue, SignedAllowance } from "@gpux/protocol/job";
import { keccak256 } from "@gpux/protocol/keccak";
import { QuoteText } from "@gpux/protocol/lease";
import { EMPTY_ROOT, emptyFrontier, Frontier } from "@gpux/protocol/merkle";
import { Amount } from "@gpux/protocol/money";
import { sideBySide } from "@gpux/protocol/quote-text";
import { Gpu, Resources } from "@gpux/protocol/resources";
import { startPriceOf, type Tariff } from "@gpux/protocol/tariff";
import { z } from "zod";
import type { Sold } from "../control/control.ts";
import { FrameBody, leaseBody } from "../link/frames.ts";
import type { Unacknowledged } from "../link/outbox.ts";

/** A receipt that is signed, with the usage that it brought the lease to. */
const Receipted = z.strictObject({
  sequence: z.int().min(1),
  digest: Bytes32,
  job: Bytes32,
  /** Missing in journals of before a job could have several. */
  attempt: z.int().min(1).optional(),
  cumulative: Amount,
  evidence: Bytes32,
});
export type Receipted = z.output<typeof Receipted>;

/** An attempt that ended here, with the very frame that told the edge. */
const Ended = z.strictObject({
  job: JobId,
  attempt: AttemptToken,
  inputHash: Sha256,
  /** The most that may be billed for it: its time limit, and what `max_price` buys. */
  payableMs: z.number().min(0),
  /**
   * How long it ran before the edge was heard to know of its start: the edge's clock of it may have begun so much later
   * than ours.
   */
  unheardMs: z.number().min(0).default(0),
  body: FrameBody,
  /** Of a job that the edge had not written down when it sent it: what makes it known to an edge that crashed. */
  accepted: z
    .strictObject({ function: Sha256, inputs: z.record(z.string(), InputValue), ticket: z.string() })
    .optional(),
});
export type Ended = z.infer<typeof Ended>;

/** What this provider has signed as the lease's usage so far. */
const Signed = z.strictObject({
  cumulative: Amount,
  evidence: Bytes32,
  frontier: Frontier,
  /** Sum of the receipts' billedMs: prices are differences of floors over it. */
  totalMs: z.int().min(0),
  /** Those that this signature added; in a compacted journal, the latest of all. */
  receipts: z.array(Receipted),
});
export type Signed = z.output<typeof Signed>;

/** A usage with both signatures that settle it. */
const Voucher = z.strictObject({
  cumulative: Amount,
  evidence: Bytes32,
  provider: HexBytes,
  meter: HexBytes,
});
export type Voucher = z.output<typeof Voucher>;

/** One line of a lease's journal. */
export const BookEntry = z.discriminatedUnion("is", [
  z.strictObject({
    is: z.literal("lease"),
    terms: LeaseTerms,
    resources: Resources,
    gpus: z.array(Gpu).default([]),
    /** What exactly was sold; none in journals of before it was kept. */
    text: QuoteText.optional(),
    refusal: z.string().nullable(),
  }),
  z.strictObject({ is: z.literal("allowance"), allowance: SignedAllowance }),
  z.strictObject({ is: z.literal("sent"), seq: z.int().min(1), body: FrameBody }),
  z.strictObject({ is: z.literal("acknowledged"), seq: z.int().min(0) }),
  z.strictObject({ is: z.literal("dealt"), seq: z.int().min(0) }),
  z.strictObject({ is: z.literal("ended"), ended: Ended }),
  z.strictObject({ is: z.literal("signed"), signed: Signed }),
  z.strictObject({ is: z.literal("voucher"), voucher: Voucher }),
  /** How long a dedicated lease was served, as the edge was told in answer to its question number `n`. */
  z.strictObject({ is: z.literal("served"), n: z.int().min(1), ms: z.int().min(0) }),
  z.strictObject({ is: z.literal("resting"), resting: z.boolean() }),
  z.strictObject({ is: z.literal("closing"), cumulative: Amount, evidence: Bytes32 }),
]);
export type BookEntry = z.output<typeof BookEntry>;

/** All that a lease's journal says; {@link enter} is the only thing that changes it. */
export interface Book extends Sold {
  readonly terms: LeaseTerms;
  /** Why this lease is served only to be refused. */
  readonly refusal: string | null;
  /** The highest that the consumer signed. */
  allowance: z.output<typeof SignedAllowance> | null;
  frames: Unacknowledged[];
  nextSeq: number;
  dealt: number;
  /** By the receipt's name of the job; gone once a receipt of that attempt, or of a later one, is signed. */
  readonly ended: Map<Bytes32, Ended[]>;
  signed: Signed;
  /** What the edge was told of the time served, by the number of its question; the latest of them. */
  readonly counts: Map<number, number>;
  /** The latest receipts by sequence, so that a repeated request meets the same answer. */
  readonly receipted: Map<number, Receipted>;
  /** The highest that the meter countersigned. */
  voucher: Voucher | null;
  closing: { cumulative: bigint; evidence: Bytes32 } | null;
  /** It has no work, and others may have its resources. */
  resting: boolean;
}

/** Counts are signed for one after another: of so many, all but the last are settled. */
const COUNTS_KEPT = 256;
/** A repeated `settle` reaches back at most as far as one frame carries. */
const RECEIPTS_KEPT = 1_024;
/** Ended attempts that nobody will be billed for are kept only to answer a repeated `run`. */
const UNBILLED_KEPT = 256;
/** Far more than the edge lets be open in one lease: what is older will never be billed. */
const ENDED_KEPT = 4_096;

const nothingSigned: Signed = {
  cumulative: 0n,
  evidence: EMPTY_ROOT,
  frontier: emptyFrontier(),
  totalMs: 0,
  receipts: [],
};

/** The book that the entries of a journal tell; null when the lease itself was never written. */
export function readBook(entries: readonly BookEntry[]): Book | null {
  const [first, ...rest] = entries;
  if (first?.is !== "lease") return null;
  const book = newBook(first.terms, first, first.refusal);
  for (const entry of rest) enter(book, entry);
  return book;
}

export function newBook(terms: LeaseTerms, { gpus, resources, text }: Sold, refusal: string | null): Book {
  return {
    terms,
    gpus,
    resources,
    text,
    refusal,
    allowance: null,
    frames: [],
    nextSeq: 1,
    dealt: 0,
    ended: new Map(),
    signed: nothingSigned,
    counts: new Map(),
    receipted: new Map(),
    voucher: null,
    closing: null,
    resting: false,
  };
}

/** Entering the same entry twice is entering it once. */
export function enter(book: Book, entry: BookEntry): void {
  switch (entry.is) {
    case "lease":
      return;
    case "allowance":
      if (entry.allowance.cumulative > (book.allowance?.cumulative ?? -1n)) book.allowance = entry.allowance;
      return;
    case "sent":
      if (entry.seq < book.nextSeq) return;
      book.frames.push({ seq: entry.seq, body: entry.body });
      book.nextSeq = entry.seq + 1;
      return;
    case "acknowledged":
      book.frames = book.frames.filter((frame) => frame.seq > entry.seq);
      book.nextSeq = Math.max(book.nextSeq, entry.seq + 1);
      return;
    case "dealt":
      book.dealt = Math.max(book.dealt, entry.seq);
      return;
    case "ended":
      enterEnded(book, entry.ended);
      return;
    case "signed":
      enterSigned(book, entry.signed);
      return;
    case "voucher":
      if (entry.voucher.cumulative >= (book.voucher?.cumulative ?? 0n)) book.voucher = entry.voucher;
      return;
    case "served":
      book.counts.set(entry.n, entry.ms);
      for (const n of [...book.counts.keys()].slice(0, -COUNTS_KEPT)) book.counts.delete(n);
      return;
    case "resting":
      book.resting = entry.resting;
      return;
    case "closing":
      book.closing = { cumulative: entry.cumulative, evidence: entry.evidence };
      return;
  }
}

function enterEnded(book: Book, ended: Ended): void {
  const name = jobName(ended.job);
  const others = (book.ended.get(name) ?? []).filter((each) => !sameAttempt(each.attempt, ended.attempt));
  // Deleted first, so that the map stays in order of ending.
  book.ended.delete(name);
  book.ended.set(name, [...others, ended]);
  forgetOldest(book, ENDED_KEPT, () => true);
  forgetOldest(book, UNBILLED_KEPT, (attempts) => attempts.every((each) => leastBillable(each) === 0));
}

function forgetOldest(book: Book, kept: number, which: (attempts: readonly Ended[]) => boolean): void {
  if (book.ended.size <= kept) return;
  const names = [...book.ended].flatMap(([name, attempts]) => (which(attempts) ? [name] : []));
  for (const name of names.slice(0, Math.max(0, names.length - kept))) book.ended.delete(name);
}

function enterSigned(book: Book, signed: Signed): void {
  book.signed = signed;
  for (const receipt of signed.receipts) {
    book.receipted.set(receipt.sequence, receipt);
    const { job, attempt = Number.POSITIVE_INFINITY } = receipt;
    const later = (book.ended.get(job) ?? []).filter((each) => each.attempt.n > attempt);
    if (later.length > 0) book.ended.set(job, later);
    else book.ended.delete(job);
  }
  const surplus = book.receipted.size - RECEIPTS_KEPT;
  for (const sequence of [...book.receipted.keys()].sort((a, b) => a - b).slice(0, Math.max(0, surplus)))
    book.receipted.delete(sequence);
}

/** The shortest journal that tells the same book. */
export function entriesOf(book: Book): BookEntry[] {
  const receipts = [...book.receipted.values()];
  return [
    {
      is: "lease",
      terms: book.terms,
      resources: book.resources,
      gpus: [...book.gpus],
      text: book.text,
      refusal: book.refusal,
    },
    ...(book.allowance === null ? [] : [{ is: "allowance" as const, allowance: book.allowance }]),
    { is: "signed", signed: { ...book.signed, receipts } },
    ...[...book.counts].map(([n, ms]) => ({ is: "served" as const, n, ms })),
    ...[...book.ended.values()].flat().map((ended) => ({ is: "ended" as const, ended })),
    { is: "acknowledged", seq: (book.frames[0]?.seq ?? book.nextSeq) - 1 },
    ...book.frames.map((frame) => ({ is: "sent" as const, ...frame })),
    { is: "dealt", seq: book.dealt },
    ...(book.voucher === null ? [] : [{ is: "voucher" as const, voucher: book.voucher }]),
    ...(book.resting ? [{ is: "resting" as const, resting: true }] : []),
    ...(book.closing === null ? [] : [{ is: "closing" as const, ...book.closing }]),
  ];
}

/** What the lease's time costs: of a dedicated one that of all its GPUs, of a serverless one that of each. */
export function tariffOf(book: Pick<Book, "terms" | "resources" | "text">): Tariff {
  const gpus = isDedicated(book) ? 1 : book.resources.gpus;
  return { ratePerHour: book.terms.ratePerHour, gpus, start: startPriceOf(book.text) };
}

/** Jobs that may be under way at once. */
export function placesOf({ text, resources }: Pick<Book, "text" | "resources">): number {
  return text === undefined ? resources.gpus : sideBySide(text);
}

/** Reserved and paid by the clock, its jobs free. */
export function isDedicated({ text }: Pick<Book, "text">): boolean {
  return text?.mode === "dedicated";
}

/** What the edge was last told of the time served. */
export function countedMs({ counts }: Book): number {
  return Math.max(0, ...counts.values());
}

/** How a receipt names a job: keccak256 of its id's UTF-8 (protocol/eip712.ts). */
export function jobName(job: string): Bytes32 {
  return keccak256(job);
}

export function sameAttempt(a: AttemptToken, b: AttemptToken): boolean {
  return a.epoch === b.epoch && a.n === b.n;
}

export function findEnded(book: Book, job: string, attempt: AttemptToken): Ended | undefined {
  return book.ended.get(jobName(job))?.find((each) => sameAttempt(each.attempt, attempt));
}

const EndFrame = z.looseObject({
  t: z.enum(["result", "failed", "stopped", "yielded"]),
  job: JobId,
  attempt: AttemptToken,
});

/** Attempts whose end the edge was told but has not acknowledged. */
export function untoldEnds(book: Book): { job: JobId; attempt: AttemptToken }[] {
  return book.frames.flatMap(({ body }) => {
    const end = EndFrame.safeParse(body);
    return end.success ? [{ job: end.data.job, attempt: end.data.attempt }] : [];
  });
}

/**
 * What goes before the end that is said again (ACK-5): an edge that crashed may know nothing of the job. Not sooner: what
 * the edge had room for it in, it knows only from the ends before.
 */
export function acceptanceOf(book: Book, body: FrameBody): FrameBody | null {
  const end = EndFrame.safeParse(body);
  if (!end.success) return null;
  const { job, attempt } = end.data;
  const accepted = findEnded(book, job, attempt)?.accepted;
  return accepted === undefined ? null : leaseBody({ t: "accepted", job, attempt, ...accepted });
}

/** The agent's own measure of an ended attempt. */
export function ownMs(ended: Ended): number {
  const { ms } = ended.body;
  return typeof ms === "number" ? ms : 0;
}

function isFailureCode(code: unknown): code is JobFailureCode {
  return typeof code === "string" && Object.hasOwn(JOB_FAILURES, code);
}

/** The time for which the provider expects pay: none for what was not the tenant's doing. */
export function leastBillable(ended: Ended): number {
  const { t, code } = ended.body;
  if (t === "failed" && !(isFailureCode(code) && JOB_FAILURES[code].fault === "tenant")) return 0;
  return Math.min(ownMs(ended), ended.payableMs);
}
