import type { Demand, Offer } from "@gpux/protocol/resources";

/**
 * Names of Book objects, `<gpu model | any>/<region | any>/<shard>`. For now a node stands in the book of everything
 * and in one book per GPU model, each across all regions; issue 4 shards by region and k.
 */
export const EVERYTHING = "any/any/0";

/** The books that an offer stands in. */
export function booksOf(offer: Offer): string[] {
  return [EVERYTHING, ...new Set(offer.gpus.map((gpu) => `${gpu.model}/any/0`))];
}

/** The smallest book that has every offer which could fit. */
export function bookFor(demand: Pick<Demand, "gpu_model">): string {
  return demand.gpu_model === undefined ? EVERYTHING : `${demand.gpu_model}/any/0`;
}
