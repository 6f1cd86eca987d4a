import { bookFor, EVERYTHING } from "@gpux/durable-objects/books";
import { nodeViewOf } from "@gpux/durable-objects/node-view";
import { Address } from "@gpux/protocol/ids";
import { NodeView } from "@gpux/protocol/lease";
import { Amount } from "@gpux/protocol/money";
import { type Demand, GpuModel, Region, ratePerHour } from "@gpux/protocol/resources";
import { z } from "zod";
import { jsonAnswer } from "../json-answer.ts";
import { listOf, Page } from "../list.ts";
import { refuse } from "../refusal.ts";
import { type Mounted, NO_BODY, NONE, openRoute } from "../route.ts";

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
  async ({ env, query }) => {
    const entries = await env.BOOK.getByName(EVERYTHING).list(query.after ?? null, query.limit + 1);
    return jsonAnswer(listOf(NodeView), {
      object: "list",
      data: entries.slice(0, query.limit).map(nodeViewOf),
      has_more: entries.length > query.limit,
    });
  },
);

const getNode = openRoute(
  {
    method: "get",
    path: "/v1/nodes/{id}",
    summary: "A node, as it was last listed",
    params: z.strictObject({ id: Address }),
    query: NONE,
    body: NO_BODY,
    answers: { 200: { description: "The node", schema: NodeView } },
    refusals: ["node_unknown", "invalid_request"],
  },
  async ({ env, params }) => {
    // From the Book, not from the node's object: asking for an address that nobody has must create nothing.
    const entry = await env.BOOK.getByName(EVERYTHING).get(params.id);
    return entry === null ? refuse("node_unknown") : jsonAnswer(NodeView, nodeViewOf(entry));
  },
);

const whole = (max: number) => z.coerce.number().int().min(0).max(max);

/** A demand as query parameters: its fields, those of `resources` beside the others. */
const OfferQuery = z.strictObject({
  gpus: whole(64).min(1).default(1),
  cpu: whole(1024).default(0),
  memory_gb: whole(65_536).default(0),
  gpu_model: GpuModel.optional(),
  min_vram_mb: whole(4_194_304).optional(),
  region: Region.optional(),
  max_rate_per_hour: Amount.optional(),
  limit: Page.shape.limit,
});

const OfferView = NodeView.extend({
  object: z.literal("offer"),
  /** What the resources that were asked for cost per hour there. */
  rate_per_hour: Amount,
});

const listOffers = openRoute(
  {
    method: "get",
    path: "/v1/offers",
    summary: "What fits right now, cheapest first. Indicative: only a quote is held",
    params: NONE,
    query: OfferQuery,
    body: NO_BODY,
    answers: {
      200: {
        description: "Offers; without any, `blockers` counts the offers that fail each condition",
        schema: listOf(OfferView).extend({ blockers: z.record(z.string(), z.int()) }),
      },
    },
    refusals: ["invalid_request"],
  },
  async ({ env, query }) => {
    const { gpus, cpu, memory_gb, limit, ...rest } = query;
    const demand: Demand = { ...rest, tier: "firm", resources: { gpus, cpu, memory_gb } };
    const found = await env.BOOK.getByName(bookFor(demand)).find(demand, limit + 1);
    const offers = found.entries.slice(0, limit).map((entry) => ({
      ...nodeViewOf(entry),
      object: "offer" as const,
      rate_per_hour: ratePerHour(entry.offer.prices, demand.resources),
    }));
    return jsonAnswer(listOf(OfferView).extend({ blockers: z.record(z.string(), z.int()) }), {
      object: "list",
      data: offers,
      has_more: found.entries.length > limit,
      blockers: found.entries.length === 0 ? found.blockers : {},
    });
  },
);

export const marketRoutes: readonly Mounted[] = [listNodes, getNode, listOffers];
