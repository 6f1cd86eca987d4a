import { BLOCKERS, type Demand, type Spill } from "@gpux/protocol/resources";
import type { ObjectEnv } from "./bindings.ts";
import { type BookGroup, groupsFor, shardsOf } from "./books.ts";
import { configOf } from "./config.ts";
import type { BookEntry, FindOptions, Found } from "./interfaces.ts";
import { compareRanks } from "./ranking.ts";

export interface SearchOptions extends FindOptions {
  /** Ask every shard, for who wants to see the market; else two of them, and the others if those have too little. */
  readonly thorough?: boolean;
}

/**
 * The best offers for a demand, at most `limit` of different nodes, from as few Books as will do; if there is none,
 * why. What the demand lets go (`spill`) is given up only for what is still missing, the region first. A Book that
 * fails is passed over, all of them are a throw.
 */
export async function findOffers(
  env: ObjectEnv,
  demand: Demand,
  limit: number,
  options: SearchOptions = {},
): Promise<Found> {
  const { spill = [], ...strict } = demand;
  let found = await searched(env, strict, limit, options);
  for (const given of waysToGive(strict, spill)) {
    if (found.entries.length >= limit) break;
    const relaxed = { ...strict };
    for (const part of given) delete relaxed[part];
    const more = await searched(env, relaxed, limit, options);
    found = { ...found, entries: appended(found.entries, more.entries, limit, options) };
  }
  if (found.entries.length > 0) return { ...found, blockers: {}, onlyPrice: 0, onlyBusy: 0 };
  return explained(env, strict, limit, options, found);
}

/** The region alone, the model alone, then both; as far as they are asked for and may be given up. */
function waysToGive(demand: Demand, spill: readonly Spill[]): Spill[][] {
  const region = spill.includes("region") && demand.region !== undefined;
  const model = spill.includes("gpu_model") && demand.gpu_model !== undefined;
  return [
    ...(region ? [["region" as const]] : []),
    ...(model ? [["gpu_model" as const]] : []),
    ...(region && model ? [["region" as const, "gpu_model" as const]] : []),
  ];
}

function appended(
  entries: readonly BookEntry[],
  more: readonly BookEntry[],
  limit: number,
  { distinctProviders = false }: SearchOptions,
): BookEntry[] {
  const nodes = new Set(entries.map(({ node }) => node));
  const providers = new Set(entries.map(({ provider }) => provider));
  const others = more.filter(
    ({ node, provider }) => !nodes.has(node) && !(distinctProviders && providers.has(provider)),
  );
  return [...entries, ...others].slice(0, limit);
}

/** In the smallest group of Books that knows all offers which fit. */
async function searched(
  env: ObjectEnv,
  demand: Demand,
  limit: number,
  options: SearchOptions,
): Promise<Found> {
  const { toBuy: _, ...quiet } = options;
  const [group] = groupsFor(demand);
  const books = group === undefined ? [] : shardsOf(group, configOf(env).bookShards);
  const first = options.thorough === true ? books : twoOf(books);
  const found = await asked(env, first, demand, limit, quiet);
  const others = books.filter((book) => !first.includes(book));
  if (found.entries.length >= limit || others.length === 0) return found;
  return merged(limit, quiet, [found, await asked(env, others, demand, limit, quiet)]);
}

/** Why there is nothing, said by the smallest group that has offers at all; it keeps the demand for `skipped`. */
async function explained(
  env: ObjectEnv,
  demand: Demand,
  limit: number,
  options: SearchOptions,
  found: Found,
): Promise<Found> {
  let last = found;
  for (const group of groupsFor(demand).filter(({ region }) => region === null)) {
    last = await asked(env, booksIn(env, group), demand, limit, options);
    // More than nothing: another Book was behind, or an offer has come this moment.
    if (last.entries.length > 0 || last.offers > 0) return last;
  }
  return last;
}

function booksIn(env: ObjectEnv, group: BookGroup): string[] {
  return shardsOf(group, configOf(env).bookShards);
}

async function asked(
  env: ObjectEnv,
  books: readonly string[],
  demand: Demand,
  limit: number,
  { thorough: _, ...options }: SearchOptions,
): Promise<Found> {
  const answers = await Promise.allSettled(
    books.map((book) => env.BOOK.getByName(book).find(demand, limit, { ...options, ranked: true })),
  );
  const found = answers.flatMap((answer) => (answer.status === "fulfilled" ? [answer.value] : []));
  const failed = answers.flatMap((answer) => (answer.status === "rejected" ? [answer.reason] : []));
  for (const reason of failed) console.error(reason);
  if (found.length === 0 && failed.length > 0) throw failed[0];
  return merged(limit, options, found);
}

/** Of Books that share no node. */
function merged(limit: number, options: FindOptions, all: readonly Found[]): Found {
  const [only] = all;
  if (all.length === 1 && only !== undefined) return only;
  const { order = [], distinctProviders = false } = options;
  const ranked = all
    .flatMap(({ entries, ranks = [] }) =>
      ranks.flatMap((rank, i) => {
        const entry = entries[i];
        return entry === undefined ? [] : [{ entry, rank }];
      }),
    )
    .sort((a, b) => compareRanks(order, a.rank, b.rank));
  const providers = new Set<string>();
  const kept = ranked.filter(({ entry }) => {
    const first = !providers.has(entry.provider);
    providers.add(entry.provider);
    return first || !distinctProviders;
  });
  const blockers: Found["blockers"] = {};
  for (const { blockers: own } of all)
    for (const blocker of BLOCKERS)
      if (own[blocker] !== undefined) blockers[blocker] = (blockers[blocker] ?? 0) + own[blocker];
  const sum = (field: "offers" | "onlyPrice" | "onlyBusy") =>
    all.reduce((total, found) => total + found[field], 0);
  return {
    entries: kept.slice(0, limit).map(({ entry }) => entry),
    ranks: kept.slice(0, limit).map(({ rank }) => rank),
    blockers: kept.length > 0 ? {} : blockers,
    offers: sum("offers"),
    onlyPrice: sum("onlyPrice"),
    onlyBusy: sum("onlyBusy"),
  };
}

/** Two different ones at random: the load spreads, and the better of two is rarely far from the best of all. */
function twoOf(books: readonly string[]): string[] {
  const rest = [...books];
  return Array.from({ length: Math.min(2, rest.length) }, () =>
    rest.splice(Math.floor(Math.random() * rest.length), 1),
  ).flat();
}
