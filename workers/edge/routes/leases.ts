import { LeaseId } from "@gpux/protocol/ids";
import {
  LeaseRequest,
  type LeaseStatus,
  LeaseView,
  Quote,
  QuoteRequest,
  TopUpRequest,
} from "@gpux/protocol/lease";
import { z } from "zod";
import { onLease } from "../auth/standing.ts";
import { jsonAnswer } from "../json-answer.ts";
import { listOf, Page } from "../list.ts";
import { refuse } from "../refusal.ts";
import { type Mounted, NO_BODY, NONE, signedRoute } from "../route.ts";

const LeaseParams = z.strictObject({ id: LeaseId });

const ENDED: ReadonlySet<LeaseStatus> = new Set(["closed", "expired", "lost"]);

const createQuote = signedRoute(
  {
    method: "post",
    path: "/v1/quotes",
    summary: "A firm quote: the node has confirmed that it holds the GPUs for 30 s",
    params: NONE,
    query: NONE,
    body: QuoteRequest,
    answers: { 201: { description: "The quote", schema: Quote } },
    scope: "quotes",
    refusals: [
      "invalid_json",
      "invalid_request",
      "price_below_offers",
      "no_capacity",
      "too_many_quotes",
      "signature_replayed",
    ],
  },
  async ({ env, body }, principal) => {
    const quoted = await env.ACCOUNT.getByName(principal.address).quote(principal, body);
    if (quoted.ok) return jsonAnswer(Quote, quoted.quote, 201);
    return refuse(quoted.code, quoted.detail, "wait" in quoted ? { wait: quoted.wait } : {});
  },
);

const createLease = signedRoute(
  {
    method: "post",
    path: "/v1/leases",
    summary: "Fund a quoted lease; idempotent by the funding's salt",
    params: NONE,
    query: NONE,
    body: LeaseRequest,
    answers: { 201: { description: "The lease, funding or active", schema: LeaseView } },
    scope: "leases",
    contracts: true,
    refusals: [
      "invalid_json",
      "invalid_request",
      "quote_unknown",
      "quote_expired",
      "funding_invalid",
      "insufficient_funds",
      "signature_replayed",
    ],
  },
  async ({ env, body }, principal) => {
    const account = env.ACCOUNT.getByName(principal.address);
    const opened = await account.openLease(principal, body.lease, body.funding);
    return opened.ok
      ? jsonAnswer(LeaseView, opened.lease, 201, { location: `/v1/leases/${opened.lease.id}` })
      : opened;
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
    summary: "Add to an open lease's funding, signed as the funding that opened it; idempotent by the salt",
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
    ],
  },
  async ({ env, params, body }, principal) => {
    const toppedUp = await onLease(env, principal, params.id, (lease, as) => lease.topUp(as, body.funding));
    return toppedUp.ok ? jsonAnswer(LeaseView, toppedUp.lease) : toppedUp;
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
  listLeases,
  getLease,
  topUpLease,
  closeLease,
];
