import type { QuoteText } from "./lease.ts";
import { type Blocker, blockersOf, type Demand, Offer, Prices } from "./resources.ts";

/**
 * What of a demand fails by a quote's text: whether a lease that was bought by it does for this demand, or a quote is
 * what was asked for. GPUs are not at issue, they are held; what no text says (a duration, who else sells, how
 * reliable the node is) is not judged. A firm lease does for who would take a yieldable one.
 */
export function textBlockersOf(text: QuoteText, demand: Demand): Blocker[] {
  if (!Prices.safeParse(text.prices).success) return ["price"];
  const offer = Offer.safeParse({
    gpus: text.gpus,
    cpu: text.resources.cpu,
    memory_gb: text.resources.memory_gb,
    region: text.region,
    prices: text.prices,
    concurrency: 1,
    features: text.features ?? [],
    isolation: text.isolation ?? "process",
    models: text.models ?? [],
  });
  if (!offer.success) return ["gpus"];
  const { duration_s: _, min_reliability: __, ...judged } = demand;
  // A text says it where it was asked for; what was not asked for may be true, but is not promised.
  const seller = { verified: text.verified === true ? text.resources.gpus : 0 };
  const failed = blockersOf(offer.data, text.node, text.resources.gpus, { ...judged, tier: "firm" }, seller);
  return demand.tier === "firm" && text.tier === "yieldable" ? ["tier", ...failed] : failed;
}

/** LSE-16: jobs of the lease that may be under way at once. */
export function sideBySide({
  mode,
  concurrency,
  resources,
}: Pick<QuoteText, "mode" | "concurrency" | "resources">): number {
  return mode === "dedicated" ? (concurrency ?? resources.gpus) : resources.gpus;
}

/** What another lease must give that does for whatever runs on one of this text: the same card at least, and all else. */
export function standInFor({
  gpus,
  resources,
  region,
  tier,
  isolation,
  features,
  models,
  verified,
}: QuoteText): Demand {
  const vram = Math.min(...gpus.map(({ vram_mb }) => vram_mb));
  return {
    resources,
    tier,
    region,
    ...(gpus[0] === undefined ? {} : { gpu_model: gpus[0].model, min_vram_mb: vram }),
    ...(isolation === undefined ? {} : { isolation }),
    ...(features === undefined ? {} : { features }),
    ...(models?.[0] === undefined ? {} : { model: models[0] }),
    ...(verified === undefined ? {} : { verified }),
  };
}
