import { bookOf, DIRECTORY, directoryFrom } from "@gpux/durable-objects/books";
import type { BookEntry } from "@gpux/durable-objects/interfaces";
import { nodeViewOf } from "@gpux/durable-objects/node-view";
import { findOffers } from "@gpux/durable-objects/offers";
import { verifiedGpus } from "@gpux/protocol/challenge/verdict";
import { Address } from "@gpux/protocol/ids";
import { NodeView } from "@gpux/protocol/lease";
import { GpuPrices, OfferList, type OfferView } from "@gpux/protocol/market";
import { formatAmount } from "@gpux/protocol/money";
import { OfferQuery, offerSearch } from "@gpux/protocol/offer-query";
import { type Demand, pricesIn, ratePerHour } from "@gpux/protocol/resources";
import { z } from "zod";
import { gpuPrices } from "../gpu-prices.ts";
import { jsonAnswer } from "../json-answer.ts";
import { listOf, Page } from "../list.ts";
import { refuse } from "../refusal.ts";
import { type Mounted, NO_BODY, NONE, openRoute } from "../route.ts";
import { skippedOf } from "../skipped.ts";

const listNodes = openRoute(
  {
    method: "get",
    path: "/v1/nodes",
    summary: "All nodes, whatever their status, by address",
    params: NONE,
    query: Page.extend({ after: Address.optional() }),
    body: NO_BODY,
    answers: { 200: { description: "Nodes", schema: listOf(NodeView) } },
    refusals: ["invalid_request"],
  },
  async ({ env, config, query }) => {
    const { after = null, limit } = query;
    const entries: BookEntry[] = [];
    for (const shard of directoryFrom(after, config.bookShards)) {
      if (entries.length > limit) break;
      entries.push(...(await env.BOOK.getByName(shard).list(after, limit + 1 - entries.length)));
    }
    return jsonAnswer(listOf(NodeView), {
      object: "list",
      data: entries.slice(0, limit).map((entry) => nodeViewOf(entry, Date.now())),
      has_more: entries.length > limit,
    });
  },
);

const getNode = openRoute(
  {
    method: "get",
    path: "/v1/nodes/{id}",
    summary: "A node, as it was last listed, and why it was passed by",
    params: z.strictObject({ id: Address }),
    query: NONE,
    body: NO_BODY,
    answers: { 200: { description: "The node", schema: NodeView } },
    refusals: ["node_unknown", "invalid_request"],
  },
  async ({ env, config, params }) => {
    // From the Book, not from the node's object: asking for an address that nobody has must create nothing.
    const entry = await env.BOOK.getByName(bookOf(DIRECTORY, params.id, config.bookShards)).get(params.id);
    if (entry === null) return refuse("node_unknown");
    const skipped = await skippedOf(env, entry);
    return jsonAnswer(NodeView, { ...nodeViewOf(entry, Date.now()), skipped });
  },
);

const listOffers = openRoute(
  {
    method: "get",
    path: "/v1/offers",
    summary: "What fits right now, best first (docs/matching.md). Indicative: only a quote is held",
    params: NONE,
    query: OfferQuery,
    body: NO_BODY,
    answers: {
      200: {
        description: "Offers; without any, `wait` says why and whether waiting may help",
        schema: OfferList,
      },
    },
    refusals: ["invalid_request"],
  },
  async ({ env, query }) => {
    const asked = offerSearch(query);
    if (!asked.ok) {
      const pointer = `query/${asked.parameter}`;
      return refuse("invalid_request", `${pointer}: ${asked.detail}`, {
        errors: [{ pointer, detail: asked.detail }],
      });
    }
    const { demand, where, order, limit } = asked.search;
    const found = await findOffers(env, demand, limit + 1, { thorough: true, where, order });
    const empty = found.entries.length === 0;
    return jsonAnswer(OfferList, {
      object: "list",
      data: found.entries.slice(0, limit).map((entry) => offerViewOf(entry, demand)),
      has_more: found.entries.length > limit,
      blockers: found.blockers,
      ...(empty ? { wait: { possible: found.onlyBusy > 0, blockers: found.blockers } } : {}),
    });
  },
);

function offerViewOf(entry: BookEntry, demand: Demand): OfferView {
  const now = Date.now();
  const { offer } = entry;
  const { resources } = demand;
  // Who reads it finds what a search asks by, under the same names.
  const model = demand.gpu_model ?? offer.gpus[0]?.model ?? "UNKNOWN_GPU";
  const own = offer.gpus.filter((gpu) => demand.gpu_model === undefined || gpu.model === demand.gpu_model);
  const rate = ratePerHour(pricesIn(offer, demand.tier) ?? offer.prices, resources);
  return {
    ...nodeViewOf(entry, now),
    object: "offer",
    verified: verifiedGpus(entry.challenge, now) >= resources.gpus,
    rate_per_hour: rate,
    tier: demand.tier,
    gpu_name: model,
    num_gpus: resources.gpus,
    gpu_ram: Math.max(...own.map((gpu) => gpu.vram_mb)),
    cpu_cores: resources.cpu,
    cpu_ram: resources.memory_gb * 1_000,
    geolocation: offer.region,
    dph_total: formatAmount(rate),
    start_usd: formatAmount(offer.start_price),
    min_bid: offer.yieldable === null ? null : formatAmount(ratePerHour(offer.yieldable, resources)),
    duration: offer.duration_s.max,
    machine_id: entry.node,
    host_id: entry.provider,
  };
}

const listGpuPrices = openRoute(
  {
    method: "get",
    path: "/v1/gpu-prices",
    summary: "What GPUs ask per hour, by model",
    params: NONE,
    query: NONE,
    body: NO_BODY,
    answers: { 200: { description: "Prices of the GPUs that are online", schema: GpuPrices } },
    refusals: [],
  },
  async ({ env }) =>
    jsonAnswer(GpuPrices, await gpuPrices(env), 200, {
      "cache-control": "public, max-age=60, stale-while-revalidate=120",
    }),
);

export const marketRoutes: readonly Mounted[] = [listNodes, getNode, listOffers, listGpuPrices];
