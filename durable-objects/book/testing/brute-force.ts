import { verifiedGpus } from "@gpux/protocol/challenge/verdict";
import type { Address } from "@gpux/protocol/ids";
import { type Blocker, blockersOf, type Demand, pricesIn, ratePerHour } from "@gpux/protocol/resources";
import type { BookEntry, FindOptions, Found } from "../../interfaces.ts";
import { standingOf } from "../../presence.ts";
import { weightOf } from "../../score.ts";

/** Conditions of shape; the others are counted only among offers whose shape fits (SPEC MKT-3). */
const SHAPE: ReadonlySet<Blocker> = new Set([
  "gpus",
  "vram",
  "cpu",
  "memory",
  "region",
  "isolation",
  "features",
  "model",
  "duration",
]);

interface Judged {
  readonly entry: BookEntry;
  readonly failed: readonly Blocker[];
}

/** What a Book must answer, by looking at every row: no classes, no heaps, no sums kept. Without `where` and `order`. */
export function bruteForce(
  rows: ReadonlyMap<Address, BookEntry>,
  demand: Demand,
  limit: number,
  now: number,
  options: FindOptions = {},
): Found {
  const online = [...rows.values()].filter(({ status }) => status === "online");
  const judged = online.map((entry): Judged => {
    const { reliability } = standingOf(entry.presence, true, now);
    const verified = verifiedGpus(entry.challenge, now);
    const seller = { provider: entry.provider, reliability, verified };
    return { entry, failed: blockersOf(entry.offer, entry.node, entry.free, demand, seller) };
  });
  const weighted = ({ offer, presence }: BookEntry) => {
    const prices = pricesIn(offer, demand.tier);
    const weight = BigInt(weightOf(standingOf(presence, true, now).score));
    return prices === null ? 0n : (ratePerHour(prices, demand.resources) + offer.start_price) * weight;
  };
  const leasable = ({ offer, free }: BookEntry) => {
    const gpus = offer.gpus.filter(
      ({ model }) => demand.gpu_model === undefined || model === demand.gpu_model,
    );
    return Math.min(free, offer.gpus_per_lease, gpus.length);
  };
  const fitting = judged
    .filter(({ failed }) => failed.length === 0)
    .map(({ entry }) => entry)
    .sort((a, b) => {
      const [x, y] = [weighted(a), weighted(b)];
      if (x !== y) return x < y ? -1 : 1;
      return leasable(b) - leasable(a) || (a.node < b.node ? -1 : 1);
    });
  const taken = new Set<Address>();
  const entries = fitting.filter(({ provider }) => {
    if (options.distinctProviders !== true) return true;
    const first = !taken.has(provider);
    taken.add(provider);
    return first;
  });
  if (entries.length > 0)
    return {
      entries: entries.slice(0, limit),
      blockers: {},
      offers: online.length,
      onlyPrice: 0,
      onlyBusy: 0,
    };
  return { entries: [], offers: online.length, ...reasons(judged, demand) };
}

function reasons(judged: readonly Judged[], demand: Demand) {
  const blockers: Partial<Record<Blocker, number>> = {};
  let onlyPrice = 0;
  let onlyBusy = 0;
  for (const { entry, failed } of judged) {
    const unsold = failed.find((blocker) => blocker === "tier" || blocker === "gpu_model");
    const shape = failed.filter((blocker) => SHAPE.has(blocker));
    // An offer of another tier, then of another model, is counted as that and looked at no further.
    const counted = failed.includes("tier")
      ? ["tier" as const]
      : unsold
        ? [unsold]
        : shape.length
          ? shape
          : failed;
    for (const blocker of counted) blockers[blocker] = (blockers[blocker] ?? 0) + 1;
    if (failed.length === 1 && failed[0] === "price") onlyPrice += 1;
    const idle = blockersOf(entry.offer, entry.node, entry.offer.gpus.length, demand);
    if (failed.length === 1 && failed[0] === "gpus" && idle.length === 0) onlyBusy += 1;
  }
  return { blockers, onlyPrice, onlyBusy };
}
