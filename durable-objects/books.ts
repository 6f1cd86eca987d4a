import type { Address } from "@gpux/protocol/ids";
import type { Demand, Offer } from "@gpux/protocol/resources";

/**
 * Names of Book objects, `<gpu model | any>/<region | any>/<shard>`. A node stands in one shard of each of these:
 * the directory of all nodes, and for each of its models the model's Books for all regions and for its own.
 */

/** How many shards the Books of a model have; `any` for the directory. Configuration (BOOK_SHARDS). */
export type Shards = (model: string) => number;

/** All shards that together hold one set of nodes, each node once. */
export interface BookGroup {
  readonly model: string | null;
  readonly region: string | null;
}

export const DIRECTORY: BookGroup = { model: null, region: null };

export function shardsOf(group: BookGroup, shards: Shards): string[] {
  return Array.from({ length: shards(group.model ?? "any") }, (_, shard) => nameOf(group, shard));
}

/** The Books that an offer stands in. */
export function booksOf(offer: Offer, node: Address, shards: Shards): string[] {
  const models = new Set(offer.gpus.map((gpu) => gpu.model));
  const groups = Array.from(models, (model) => [
    { model, region: null },
    { model, region: offer.region },
  ]);
  return [DIRECTORY, ...groups.flat()].map((group) => bookOf(group, node, shards));
}

/**
 * The one of a group's Books that a node stands in. By the first bits of its address, so that the directory's shards,
 * one after another, hold all nodes in order; addresses are as good as random.
 */
export function bookOf(group: BookGroup, node: Address, shards: Shards): string {
  return nameOf(group, shardAt(node, shards(group.model ?? "any")));
}

/** The directory's shard of a node, and those after it. */
export function directoryFrom(node: Address | null, shards: Shards): string[] {
  const all = shardsOf(DIRECTORY, shards);
  return all.slice(node === null ? 0 : shardAt(node, all.length));
}

/** Those who could know an offer that fits, the smallest group first; each of them holds all of the one before it. */
export function groupsFor({ gpu_model: model, region }: Pick<Demand, "gpu_model" | "region">): BookGroup[] {
  if (model === undefined) return [DIRECTORY];
  const everywhere = { model, region: null };
  return region === undefined ? [everywhere, DIRECTORY] : [{ model, region }, everywhere, DIRECTORY];
}

function nameOf({ model, region }: BookGroup, shard: number): string {
  return `${model ?? "any"}/${region ?? "any"}/${shard}`;
}

function shardAt(node: Address, shards: number): number {
  return Math.floor((Number.parseInt(node.slice(2, 10), 16) * shards) / 2 ** 32);
}
