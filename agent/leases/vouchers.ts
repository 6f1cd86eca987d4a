import { mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { ToLease } from "@gpux/protocol/frames";
import { type LeaseId, LeaseId as LeaseIdSchema } from "@gpux/protocol/ids";
import type { SettleIntent } from "@gpux/protocol/intent";
import { KeptIntent } from "@gpux/protocol/kept";
import { recoverSigner } from "@gpux/protocol/signature";
import { createHasher } from "@gpux/protocol/typed-data-encoder";
import { z } from "zod";
import { readJournal } from "../journal.ts";
import type { StatePaths } from "../state-dir.ts";
import { type Book, BookEntry, readBook, type Voucher } from "./book.ts";
import type { Chain } from "./chain.ts";
import type { SigningDesk } from "./signing.ts";

/**
 * Vouchers: usages that this agent and the meter have both signed. Whoever holds one can have the provider paid, with
 * nobody's help; so the agent keeps the highest of each lease until the chain says that the lease is closed, also when
 * the edge says that it is over.
 */

type VoucherFrame = Extract<ToLease, { t: "voucher" }>;
type Settle = z.output<typeof SettleIntent>;

/** Where the settlement is. */
interface Place {
  readonly chainId: number;
  readonly escrow: `0x${string}`;
}

/** Null when it is not the meter's signature over something that this agent signed as the lease's usage. */
export async function voucherOf(desk: SigningDesk, frame: VoucherFrame): Promise<Voucher | null> {
  const { book, self, account } = desk;
  const { cumulative, evidence, meter_signature: meter } = frame;
  const signed = [book.signed, ...book.receipted.values()].some(
    (usage) => usage.cumulative === cumulative && usage.evidence === evidence,
  );
  if (!signed) return null;
  const hash = self.hasher.usage({ leaseId: self.leaseId, cumulative, evidence });
  if ((await recoverSigner(hash, meter)) !== book.terms.meter) return null;
  return { cumulative, evidence, provider: await account.sign({ hash }), meter };
}

/** What pays the provider, as anybody may submit it; null when nothing was countersigned yet. */
function settlementOf(book: Book): Settle | null {
  const { voucher, terms, allowance } = book;
  if (voucher === null) return null;
  const { cumulative, evidence, provider, meter } = voucher;
  return {
    kind: "settle",
    terms,
    cumulative,
    evidence,
    signatures: { provider, meter },
    ...(allowance === null ? {} : { allowance }),
  };
}

const keptPath = (paths: StatePaths, id: LeaseId) => join(paths.vouchers, `${id}.json`);

/** Before the journal of a lease goes, its voucher is put aside, unless the chain says that nothing can come of it. */
export async function putAside(
  paths: StatePaths,
  place: Place,
  lease: { readonly id: LeaseId; readonly book: Book },
  chain: Chain,
): Promise<void> {
  const intent = settlementOf(lease.book);
  if (intent === null || (await isClosed(chain, place, intent))) return;
  await mkdir(paths.vouchers, { recursive: true, mode: 0o700 });
  const path = keptPath(paths, lease.id);
  const file = await open(`${path}.new`, "w", 0o600);
  try {
    const kept = z.encode(KeptIntent, { chain_id: place.chainId, escrow: place.escrow, intent });
    await file.writeFile(`${JSON.stringify(kept)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
}

/** Deletes what was put aside and has become worthless. */
export async function clearAside(paths: StatePaths, place: Place, chain: Chain): Promise<void> {
  for (const { id, kept } of await readAside(paths))
    if (await isClosed(chain, place, kept.intent)) await rm(keptPath(paths, id), { force: true });
}

/** A chain that cannot be read, or is another, is no reason to throw a signature away. */
async function isClosed(chain: Chain, place: Place, intent: KeptIntent["intent"]): Promise<boolean> {
  if (intent.kind !== "settle") return false;
  const leaseId = createHasher(place).leaseTerms(intent.terms);
  const lease = await chain.lease(leaseId, "latest").catch(() => null);
  return lease?.status === "closed";
}

export interface HeldVoucher {
  readonly id: LeaseId;
  readonly kept: KeptIntent;
}

/** Every voucher in the state folder, whether an agent runs on it or not: nothing is written. */
export async function heldVouchers(paths: StatePaths, place: Place): Promise<HeldVoucher[]> {
  const held = new Map((await readAside(paths)).map((each) => [each.id, each]));
  for (const name of await filesOf(paths.leases, ".jsonl")) {
    const id = LeaseIdSchema.safeParse(name);
    if (!id.success) continue;
    const book = readBook(await readJournal(join(paths.leases, `${name}.jsonl`), BookEntry));
    const intent = book === null ? null : settlementOf(book);
    if (intent === null) continue;
    held.set(id.data, { id: id.data, kept: { chain_id: place.chainId, escrow: place.escrow, intent } });
  }
  return [...held.values()];
}

async function readAside(paths: StatePaths): Promise<HeldVoucher[]> {
  const held: HeldVoucher[] = [];
  for (const name of await filesOf(paths.vouchers, ".json")) {
    const id = LeaseIdSchema.safeParse(name);
    if (!id.success) continue;
    const kept = KeptIntent.parse(JSON.parse(await readFile(keptPath(paths, id.data), "utf8")));
    held.push({ id: id.data, kept });
  }
  return held;
}

/** Names without `extension`; none when there is no such folder. */
async function filesOf(folder: string, extension: string): Promise<string[]> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
  return names.filter((name) => name.endsWith(extension)).map((name) => name.slice(0, -extension.length));
}
