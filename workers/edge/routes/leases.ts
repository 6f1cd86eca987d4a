import type { ObjectEnv } from "@gpux/durable-objects/bindings";
import type { NothingFits, Principal } from "@gpux/durable-objects/interfaces";
import { canonicalJson, sha256Hex } from "@gpux/protocol/canonical";
import { LeaseId, OrderId } from "@gpux/protocol/ids";
import {
  ExtendRequest,
  IndicativeQuote,
  type LeaseStatus,
  LeaseView,
  Quote,
  QuoteRequest,
  TopUpRequest,
} from "@gpux/protocol/lease";
import { LeaseOpening, Order, OrderRequest } from "@gpux/protocol/order";
import { z } from "zod";
import { onLease } from "../auth/standing.ts";
import { idempotencyKey } from "../idempotency-key.ts";
import { jsonAnswer } from "../json-answer.ts";
import { listOf, Page } from "../list.ts";
import { type Refusal, refuse } from "../refusal.ts";
import { type Answer, type Mounted, NO_BODY, NONE, signedRoute } from "../route.ts";

const LeaseParams = z.strictObject({ id: LeaseId });

const ENDED: ReadonlySet<LeaseStatus> = new Set(["closed", "expired", "lost"]);

const createQuote = signedRoute(
  {
    method: "post",
    path: "/v1/quotes",
    summary:
      "A firm quote: the node has confirmed that it holds the GPUs for 30 s; with `firm: false` the price alone, free, holding nothing",
    params: NONE,
    query: NONE,
    body: QuoteRequest,
    answers: {
      200: { description: "Not firm: nothing is held and nothing can be signed", schema: IndicativeQuote },
      201: { description: "The quote", schema: Quote },
    },
    scope: "quotes",
    refusals: [
      "invalid_json",
      "invalid_request",
      "price_below_offers",
      "no_capacity",
      "too_many_quotes",
      "hold_limit",
      "signature_replayed",
    ],
  },
  async ({ env, body }, principal) => {
    const quoted = await env.ACCOUNT.getByName(principal.address).quote(principal, body);
    if (!quoted.ok) return refuseMarket(quoted);
    return quoted.quote.firm
      ? jsonAnswer(Quote, quoted.quote, 201)
      : jsonAnswer(IndicativeQuote, quoted.quote, 200);
  },
);

const createLease = signedRoute(
  {
    method: "post",
    path: "/v1/leases",
    summary:
      "Fund a quoted lease or a quoted order, from the payer's wallet (idempotent by the salt) or its credit (by the targets), or order several nodes at once: all of them hold, or none",
    params: NONE,
    query: NONE,
    headers: { "Idempotency-Key": "of an order: the same key and body are the same order" },
    body: LeaseOpening,
    answers: {
      200: { description: "The order of an earlier request with this key", schema: Order },
      201: {
        description: "The lease, funding or active; or the order, quoted, funding or open",
        schema: z.union([LeaseView, Order]),
      },
    },
    scope: "leases",
    contracts: true,
    refusals: [
      "invalid_json",
      "invalid_request",
      "quote_unknown",
      "quote_expired",
      "order_unknown",
      "order_closed",
      "funding_invalid",
      "insufficient_funds",
      "insufficient_credit",
      "relayer_low_balance",
      "lease_closed",
      "node_offline",
      "price_below_offers",
      "no_capacity",
      "too_many_quotes",
      "hold_limit",
      "idempotency_key_reused",
      "idempotency_in_progress",
      "signature_replayed",
    ],
  },
  async ({ env, request, body }, principal) => {
    const account = env.ACCOUNT.getByName(principal.address);
    if ("nodes" in body) return placeOrder(env, request, principal, body);
    if ("order" in body) {
      const funded = await account.fundOrder(principal, body.order, body.funding);
      return funded.ok ? orderAnswer(funded.order, 201) : funded;
    }
    const opened = await account.openLease(principal, body.lease, body.funding);
    return opened.ok
      ? jsonAnswer(LeaseView, opened.lease, 201, { location: `/v1/leases/${opened.lease.id}` })
      : opened;
  },
);

async function placeOrder(
  env: ObjectEnv,
  request: Request,
  principal: Principal,
  body: OrderRequest,
): Promise<Answer> {
  const key = idempotencyKey(request);
  if (!key.ok) return key;
  const bodyHash = await sha256Hex(canonicalJson(z.encode(OrderRequest, body)));
  const account = env.ACCOUNT.getByName(principal.address);
  const placed = await account.order(principal, key.key, bodyHash, body);
  if (!placed.ok) return refuseMarket(placed);
  return placed.replayed
    ? orderAnswer(placed.order, 200, { "idempotent-replayed": "true" })
    : orderAnswer(placed.order, 201);
}

function orderAnswer(order: Order, status: number, headers: Record<string, string> = {}): Response {
  return jsonAnswer(Order, order, status, { location: `/v1/orders/${order.id}`, ...headers });
}

/** With why nothing fits, where that is the reason. */
function refuseMarket({ code, detail, wait }: NothingFits): Refusal {
  return refuse(code, detail, wait === undefined ? {} : { wait });
}

const getOrder = signedRoute(
  {
    method: "get",
    path: "/v1/orders/{id}",
    summary: "An order of the principal's, with how each of its leases stands",
    params: z.strictObject({ id: OrderId }),
    query: NONE,
    body: NO_BODY,
    answers: { 200: { description: "The order", schema: Order } },
    scope: "read",
    refusals: ["order_unknown"],
  },
  async ({ env, params }, principal) => {
    const seen = await env.ACCOUNT.getByName(principal.address).viewOrder(principal, params.id);
    return seen.ok ? jsonAnswer(Order, seen.order) : seen;
  },
);

const listLeases = signedRoute(
  {
    method: "get",
    path: "/v1/leases",
    summary: "The principal's leases that have not ended, newest first",
    params: NONE,
    query: Page.extend({ after: LeaseId.optional() }),
    body: NO_BODY,
    answers: { 200: { description: "Leases", schema: listOf(LeaseView) } },
    scope: "read",
    standing: "asked",
    refusals: ["invalid_request"],
  },
  async ({ env, query }, principal) => {
    const all = await env.ACCOUNT.getByName(principal.address).leases();
    const from = query.after === undefined ? 0 : all.indexOf(query.after) + 1;
    const page = all.slice(from, from + query.limit);
    const views = await Promise.all(page.map((id) => env.LEASE.getByName(id).view(principal.address)));
    return jsonAnswer(listOf(LeaseView), {
      object: "list",
      // The Account learns of a lease's end when it next offers it a job; until then the Lease itself says so.
      data: views.flatMap((view) => (view.ok && !ENDED.has(view.lease.status) ? [view.lease] : [])),
      has_more: from + query.limit < all.length,
    });
  },
);

const getLease = signedRoute(
  {
    method: "get",
    path: "/v1/leases/{id}",
    summary: "A lease",
    params: LeaseParams,
    query: NONE,
    body: NO_BODY,
    answers: { 200: { description: "The lease", schema: LeaseView } },
    scope: "read",
    refusals: ["lease_unknown", "forbidden"],
  },
  async ({ env, params }, principal) => {
    const view = await onLease(env, principal, params.id, (lease, as) => lease.view(as));
    return view.ok ? jsonAnswer(LeaseView, view.lease) : view;
  },
);

const topUpLease = signedRoute(
  {
    method: "post",
    path: "/v1/leases/{id}/topup",
    summary:
      "Add to an open lease's funding, from the payer's wallet (idempotent by the salt) or its credit (by the target); or leave it signed raises from credit, which it lands when less than `below` is left",
    params: LeaseParams,
    query: NONE,
    body: TopUpRequest,
    answers: { 200: { description: "The lease; `top_ups` names what has not landed", schema: LeaseView } },
    scope: "leases",
    contracts: true,
    refusals: [
      "invalid_json",
      "invalid_request",
      "lease_unknown",
      "lease_closed",
      "forbidden",
      "payment_required",
      "funding_invalid",
      "insufficient_funds",
      "insufficient_credit",
    ],
  },
  async ({ env, params, body }, principal) => {
    const toppedUp = await onLease(env, principal, params.id, (lease, as) =>
      "funding" in body ? lease.topUp(as, body.funding) : lease.autoTopUp(as, body.auto_top_up),
    );
    return toppedUp.ok ? jsonAnswer(LeaseView, toppedUp.lease) : toppedUp;
  },
);

const extendLease = signedRoute(
  {
    method: "post",
    path: "/v1/leases/{id}/extend",
    summary:
      "Move the lease's end later, as far as its terms allow (`extendable_s` of the quote), with more money if it comes along. Idempotent",
    params: LeaseParams,
    query: NONE,
    body: ExtendRequest,
    answers: { 200: { description: "The lease; `ends_at` is its end", schema: LeaseView } },
    scope: "leases",
    contracts: true,
    refusals: [
      "invalid_json",
      "invalid_request",
      "lease_unknown",
      "lease_closed",
      "not_extendable",
      "forbidden",
      "payment_required",
      "funding_invalid",
      "insufficient_funds",
    ],
  },
  async ({ env, params, body }, principal) => {
    const extended = await onLease(env, principal, params.id, (lease, as) =>
      lease.extend(as, body.extended_s, body.funding ?? null),
    );
    return extended.ok ? jsonAnswer(LeaseView, extended.lease) : extended;
  },
);

const closeLease = signedRoute(
  {
    method: "post",
    path: "/v1/leases/{id}/close",
    summary: "Take no more jobs; when those that run have ended, settle and pay back the rest. Idempotent",
    params: LeaseParams,
    query: NONE,
    body: NO_BODY,
    answers: { 200: { description: "The lease, on its way to closed", schema: LeaseView } },
    scope: "leases",
    refusals: ["lease_unknown", "lease_closed", "forbidden"],
  },
  async ({ env, params }, principal) => {
    const closed = await onLease(env, principal, params.id, (lease, as) => lease.close(as));
    return closed.ok ? jsonAnswer(LeaseView, closed.lease) : closed;
  },
);

export const leaseRoutes: readonly Mounted[] = [
  createQuote,
  createLease,
  getOrder,
  listLeases,
  getLease,
  topUpLease,
  extendLease,
  closeLease,
];
