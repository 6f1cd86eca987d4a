import type { PrivateKeyAccount } from "viem/accounts";
import type { LeaseBody } from "../link/frames.ts";
import type { Book, BookEntry } from "./book.ts";
import { type CloseRequest, checkClose, checkSettle, type SettleRequest, type Signer } from "./receipts.ts";

/** What signing needs: who signs, and how a decision gets onto the disk before any signature is made. */
export interface SigningDesk {
  readonly book: Book;
  readonly self: Signer;
  readonly account: PrivateKeyAccount;
  /** What the escrow holds for the lease, where that was read. */
  readonly funded: () => bigint | null;
  /** Enters and syncs; rejects when the disk fails, and then nothing is signed. */
  readonly persist: (entry: BookEntry) => Promise<void>;
}

const reasonOf = (detail: string): string => detail.slice(0, 400);

/** The answer to `settle`: the signature over the usage, and so over every receipt named, or why not. */
export async function answerSettle(desk: SigningDesk, request: SettleRequest): Promise<LeaseBody> {
  const check = checkSettle(desk.book, desk.self, request, desk.funded());
  if (!check.ok) return { t: "refused", what: "settle", reason: reasonOf(check.detail) };
  if (check.signed.receipts.length > 0) await desk.persist({ is: "signed", signed: check.signed });
  const signature = await desk.account.sign({ hash: desk.self.hasher.usage(check.usage) });
  const { cumulative, evidence } = check.usage;
  return { t: "signed", usage: { cumulative, evidence, signature } };
}

/** The answer to `close`: the signature that ends the lease at this usage, or why not. */
export async function answerClose(
  desk: SigningDesk,
  request: CloseRequest,
  nowS: number,
): Promise<LeaseBody> {
  const check = checkClose(desk.book, desk.self.leaseId, request, nowS);
  if (!check.ok) return { t: "refused", what: "close", reason: reasonOf(check.detail) };
  const { cumulative, evidence, validBefore } = check.close;
  await desk.persist({ is: "closing", cumulative, evidence });
  const signature = await desk.account.sign({ hash: desk.self.hasher.close(check.close) });
  return { t: "close_signed", cumulative, valid_before: validBefore, signature };
}
