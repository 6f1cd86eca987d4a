import { type Close, NO_JOB, type Receipt, type Usage } from "@gpux/protocol/eip712";
import type { ToLease } from "@gpux/protocol/frames";
import type { Address, Bytes32 } from "@gpux/protocol/ids";
import { Output } from "@gpux/protocol/job";
import { append, root } from "@gpux/protocol/merkle";
import { affordedMs } from "@gpux/protocol/money";
import { charged, paidMs } from "@gpux/protocol/tariff";
import type { TypedDataHasher } from "@gpux/protocol/typed-data-encoder";
import { z } from "zod";
import {
  type Book,
  type Ended,
  isDedicated,
  leastBillable,
  ownMs,
  type Receipted,
  type Signed,
  tariffOf,
} from "./book.ts";

export type SettleRequest = Omit<Extract<ToLease, { t: "settle" }>, "v" | "seq" | "ack" | "t">;
export type CloseRequest = Omit<Extract<ToLease, { t: "close" }>, "v" | "seq" | "ack" | "t">;

/**
 * Billed time is the least of several clocks: the edge's may run this much behind ours, or a twentieth, beside what it
 * heard `started` late by ({@link Ended.unheardMs}). A refusal ends the lease, so neither a machine whose cores are all
 * busy with the job itself nor a stalled network must cause one.
 */
const BEHIND_MS = 3_000;
const BEHIND_PART = 0.05;
/** Rounding, and clocks that do not tick alike. */
const AHEAD_MS = 50;
/**
 * Of a dedicated lease: the edge's count of the time served may be so much less than ours, over all of the lease, or a
 * thousandth. The edge stops its clock before it can tell us, and a frame may wait for a job that is being broken off.
 */
const COUNT_BEHIND_MS = 15_000;
const COUNT_BEHIND_PART = 0.001;

export type SettleCheck =
  | {
      ok: true;
      /** To be in the journal before any signature leaves. */
      signed: Signed;
      usage: Usage;
    }
  | { ok: false; detail: string };

/** Who the agent is in this lease. */
export interface Signer {
  readonly address: Address;
  readonly leaseId: Bytes32;
  readonly hasher: TypedDataHasher;
}

const refuse = (detail: string): { ok: false; detail: string } => ({ ok: false, detail });

/**
 * Whether the usage and its receipts say what happened here. Receipts that were signed before may be named again, if
 * they are the same; new ones follow without a gap. A repeated request gets the answer that it got, also when more was
 * signed since: an older usage pays nothing that a newer one does not. `funded`: what the escrow holds for the lease,
 * where that is known.
 */
export function checkSettle(
  book: Book,
  self: Signer,
  request: SettleRequest,
  funded: bigint | null = null,
): SettleCheck {
  const tariff = tariffOf(book);
  let { cumulative, totalMs, frontier, evidence } = book.signed;
  let usage = { cumulative, evidence };
  const added: Receipted[] = [];
  /** The last attempt of each job that these receipts pay for: one is paid once, and none after a later one. */
  const paid = new Map<Bytes32, number>();
  for (const receipt of request.receipts) {
    const { sequence, job } = receipt;
    const digest = self.hasher.receipt(receipt);
    if (sequence <= book.signed.frontier.size) {
      const before = book.receipted.get(sequence);
      if (before?.digest !== digest)
        return refuse(`receipt ${sequence} is not the one that was signed before`);
      usage = before;
      continue;
    }
    if (sequence !== frontier.size + 1) return refuse(`receipt ${sequence} does not follow ${frontier.size}`);
    const isTime = job === NO_JOB;
    // The jobs of a dedicated lease are free: its time is paid for.
    const nextMs = isTime || !isDedicated(book) ? totalMs + Number(receipt.billedMs) : totalMs;
    const wrong =
      wrongWhere(self, receipt) ??
      (isTime
        ? wrongInTime(book, receipt, nextMs, funded)
        : wrongInJob(book, receipt, totalMs, paid.get(job) ?? 0));
    if (wrong !== null) return refuse(`receipt ${sequence}: ${wrong}`);
    if (!isTime) paid.set(job, receipt.attempt);

    const price = charged(tariff, nextMs) - charged(tariff, totalMs);
    if (receipt.price !== price)
      return refuse(`receipt ${sequence}: ${receipt.billedMs} ms cost ${price}, not ${receipt.price}`);
    cumulative += price;
    totalMs = nextMs;
    if (receipt.cumulative !== cumulative)
      return refuse(`receipt ${sequence}: the cumulative is ${cumulative}, not ${receipt.cumulative}`);
    frontier = append(frontier, digest);
    evidence = root(frontier);
    usage = { cumulative, evidence };
    added.push({ sequence, digest, job, attempt: receipt.attempt, cumulative, evidence });
  }
  if (request.usage.cumulative !== usage.cumulative)
    return refuse(`the usage is ${usage.cumulative}, not ${request.usage.cumulative}`);
  if (request.usage.evidence !== usage.evidence)
    return refuse("the evidence is not the root over the receipts");
  return {
    ok: true,
    signed: { cumulative, evidence, frontier, totalMs, receipts: added },
    usage: { leaseId: self.leaseId, cumulative: usage.cumulative, evidence: usage.evidence },
  };
}

function wrongWhere(self: Signer, receipt: Receipt): string | null {
  if (receipt.leaseId !== self.leaseId) return "it is of another lease";
  return receipt.node === self.address ? null : "it names another node";
}

/**
 * What a receipt says wrongly of the time that the lease was served, of which it makes `totalMs` in all; null when it is
 * right. Held against what the edge was told when it asked: not more, and not much less, but for time that nobody paid.
 */
function wrongInTime(book: Book, receipt: Receipt, totalMs: number, funded: bigint | null): string | null {
  if (!isDedicated(book)) return "this lease is not paid by the clock";
  const own = book.counts.get(receipt.attempt);
  if (own === undefined) return `no time was counted under ${receipt.attempt}`;
  if (receipt.inputHash !== book.terms.quote || receipt.outputHashes.length > 0)
    return "it is not for what was reserved";
  if (receipt.gpu !== (book.gpus[0]?.model ?? "")) return "the GPU is another";
  if (totalMs > own + AHEAD_MS) return `${own} ms were served, not ${totalMs}`;
  const due = funded === null ? own : Math.min(own, paidMs(tariffOf(book), funded));
  const least = due - Math.max(COUNT_BEHIND_MS, due * COUNT_BEHIND_PART);
  return totalMs < least ? `${own} ms were served, of which only ${totalMs} are billed` : null;
}

/**
 * What a receipt says wrongly of the job, `before` which so much was billed and of which attempt `paid` was the last to be
 * paid; null when it is right.
 */
function wrongInJob(book: Book, receipt: Receipt, before: number, paid: number): string | null {
  if (receipt.attempt <= paid) return `attempt ${paid} of the job is paid already`;
  const attempts = book.ended.get(receipt.job) ?? [];
  const ended = attempts.filter((each) => each.attempt.n === receipt.attempt).at(-1);
  if (ended === undefined) return "this node ended no such attempt";
  if (receipt.inputHash !== `0x${ended.inputHash}`) return "the input hash is another";
  if (receipt.gpu !== ended.body.gpu) return `the GPU was ${ended.body.gpu}`;
  if (outputHashes(ended).join() !== receipt.outputHashes.join()) return "the output hashes are others";
  const own = ownMs(ended);
  if (receipt.billedMs > BigInt(own + AHEAD_MS)) return `the job ran ${own} ms, not ${receipt.billedMs}`;
  const due = Math.max(0, leastBillable(ended) - startMs(book, before));
  const least = Math.floor(due - Math.max(BEHIND_MS, due * BEHIND_PART) - ended.unheardMs);
  if (receipt.billedMs < BigInt(Math.max(0, least)))
    return `the job ran ${own} ms, of which only ${receipt.billedMs} are billed`;
  return null;
}

/** So much less of a job's `max_price` is left for its time where it is the one that pays for the start. */
function startMs(book: Book, before: number): number {
  const { start, ...rest } = tariffOf(book);
  return before > 0 || start === 0n ? 0 : affordedMs(rest.ratePerHour, start, rest.gpus) + 1;
}

function outputHashes(ended: Ended): Bytes32[] {
  const outputs = z.array(Output).safeParse(ended.body.outputs);
  return outputs.success ? outputs.data.map((output): Bytes32 => `0x${output.sha256}`) : [];
}

export type CloseCheck = { ok: true; close: Close } | { ok: false; detail: string };

/** Whether the final usage is all that this provider has signed. `nowS` in seconds. */
export function checkClose(book: Book, leaseId: Bytes32, request: CloseRequest, nowS: number): CloseCheck {
  if (request.cumulative < book.signed.cumulative)
    return refuse(`the close pays ${request.cumulative}, the usage is ${book.signed.cumulative}`);
  if (request.evidence !== book.signed.evidence)
    return refuse("the evidence is not the root over the receipts");
  if (request.valid_before <= nowS) return refuse("its time to land is over");
  const { cumulative, evidence, valid_before: validBefore } = request;
  return { ok: true, close: { leaseId, cumulative, evidence, validBefore } };
}
