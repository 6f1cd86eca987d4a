import { verifiedGpus } from "@gpux/protocol/challenge/verdict";
import type { Address, Bytes32 } from "@gpux/protocol/ids";
import { type Blocker, blockersOf, type Demand, pricesIn, ratePerHour } from "@gpux/protocol/resources";
import { bytesToHex } from "viem/utils";
import type { ObjectEnv } from "../bindings.ts";
import { configOf } from "../config.ts";
import type { BookEntry, Found, NothingFits } from "../interfaces.ts";
import { amountOf, type Draft, draftQuote, type Wanted } from "./quote.ts";

/** A draft with what to put in. */
export interface Offered {
  readonly draft: Draft;
  readonly amount: bigint;
  /** The node as it described itself just now. */
  readonly entry: BookEntry;
}

type Missed = { readonly ok: false; readonly blockers: readonly Blocker[] };

/** By how many offers each condition failed. */
export type Blockers = Partial<Record<Blocker, number>>;

/** The demand with how long the lease is to last at most, which an offer may have bounds for. */
export function demandFor({ demand, duration_s, extendable_s }: Wanted): Demand {
  return { ...demand, duration_s: demand.duration_s ?? duration_s + extendable_s };
}

/**
 * What a listed node offers now, written as terms; nothing is held yet. The price is the node's own of this moment: it
 * is refused where it rose above the demand's limit. `maxPrice`: of the job that it is for, which is put in at least.
 */
export async function offer(
  env: ObjectEnv,
  by: Address,
  request: Wanted,
  listed: BookEntry,
  maxPrice = 0n,
): Promise<({ readonly ok: true } & Offered) | Missed> {
  const described = await env.NODE.getByName(listed.node).describe();
  if (!described.ok) return { ok: false, blockers: ["gpus"] };
  const { entry, free } = described;
  // Conditions hold for what is free; the Book knows what there is.
  const unsold = { ...entry.offer, cpu: free.cpu, memory_gb: free.memory_gb };
  const now = Date.now();
  const seller = { provider: entry.provider, verified: verifiedGpus(entry.challenge, now) };
  const blockers = blockersOf(unsold, entry.node, free.gpus.length, demandFor(request), seller);
  if (blockers.length > 0) return { ok: false, blockers };
  // A job that could not pay for the start would end before it has begun.
  if (maxPrice > 0n && entry.offer.start_price >= maxPrice) return { ok: false, blockers: ["price"] };
  const salt: Bytes32 = bytesToHex(crypto.getRandomValues(new Uint8Array(32)));
  const draft = draftQuote(configOf(env), by, request, { entry, cards: free.gpus }, salt, now);
  if (draft === null) return { ok: false, blockers: ["gpu_model"] };
  const { start_price: startPrice } = entry.offer;
  const usual = amountOf(request, { ratePerHour: draft.hold.terms.ratePerHour, startPrice });
  return { ok: true, draft, entry, amount: usual > maxPrice ? usual : maxPrice };
}

/** QTE-1: the agent itself confirms, then the lease waits in `quoted`. Else the node is let go of. */
export async function hold(
  env: ObjectEnv,
  { draft, amount }: { readonly draft: Pick<Draft, "hold">; readonly amount: bigint },
): Promise<boolean> {
  const request = draft.hold;
  const node = env.NODE.getByName(request.terms.providerSigner);
  const held = await node.hold(request);
  if (!held.ok) return false;
  const kept = await env.LEASE.getByName(request.lease).quote({ ...request, amount });
  if (!kept.ok) await node.release(request.lease);
  return kept.ok;
}

/** QTE-3: whether the node asks for more than it was listed for. */
export function hasRisen(listed: BookEntry, now: BookEntry, { resources, tier }: Demand): boolean {
  const [before, after] = [pricesIn(listed.offer, tier), pricesIn(now.offer, tier)];
  if (before === null || after === null) return after !== before;
  if (now.offer.start_price > listed.offer.start_price) return true;
  return ratePerHour(after, resources) > ratePerHour(before, resources);
}

export function count(blockers: Blockers, failed: readonly Blocker[]): void {
  for (const blocker of failed) blockers[blocker] = (blockers[blocker] ?? 0) + 1;
}

/** QTE-7: why nothing came of it, and whether waiting helps: where what is needed comes free again. */
export function nothingFits(found: Found, blockers: Blockers): NothingFits {
  const code = found.entries.length === 0 && found.onlyPrice > 0 ? "price_below_offers" : "no_capacity";
  const possible = found.entries.length > 0 || found.onlyBusy > 0;
  return { ok: false, code, wait: { possible, blockers } };
}
