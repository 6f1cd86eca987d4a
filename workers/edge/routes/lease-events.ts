import { LeaseId } from "@gpux/protocol/ids";
import { TickView } from "@gpux/protocol/lease";
import { LeaseEvent } from "@gpux/protocol/lease-event";
import { z } from "zod";
import { onLease } from "../auth/standing.ts";
import { eventStream } from "../event-stream.ts";
import { jsonAnswer } from "../json-answer.ts";
import { listOf, Page } from "../list.ts";
import { refuse } from "../refusal.ts";
import { type Mounted, NO_BODY, NONE, signedRoute } from "../route.ts";

/** In the path of a Lease object's reader sockets; see `fetch` of durable-objects/lease/object.ts. */
const WATCH = "https://lease/watch";

const getLeaseEvents = signedRoute(
  {
    method: "get",
    scope: "read",
    path: "/v1/leases/{id}/events",
    summary:
      "What happens to the lease as a stream (text/event-stream), from its first event or after Last-Event-ID to its end",
    params: z.strictObject({ id: LeaseId }),
    query: NONE,
    headers: { "Last-Event-ID": "only events after this one" },
    body: NO_BODY,
    answers: { 200: { description: "Server-sent events; each `data` is a LeaseEvent", schema: null } },
    refusals: ["lease_unknown", "forbidden", "invalid_request"],
  },
  async ({ env, request, params }, principal) => {
    const after = z.coerce
      .number()
      .int()
      .min(0)
      .safeParse(request.headers.get("last-event-id") ?? "0");
    if (!after.success) return refuse("invalid_request", "Last-Event-ID must be an id of this stream");
    const known = await onLease(env, principal, params.id, (lease, as) => lease.view(as));
    if (!known.ok) return known;
    const query = new URLSearchParams({ after: String(after.data), as: principal.address });
    const watch = await env.LEASE.getByName(params.id).fetch(
      new Request(`${WATCH}?${query}`, { headers: { upgrade: "websocket" } }),
    );
    return watch.webSocket ? eventStream(watch.webSocket, LeaseEvent) : refuse("lease_unknown");
  },
);

const listTicks = signedRoute(
  {
    method: "get",
    scope: "read",
    path: "/v1/leases/{id}/ticks",
    summary: "The billed time of a dedicated lease, oldest first, each with its receipt and what proves it",
    params: z.strictObject({ id: LeaseId }),
    query: Page.extend({ after: z.coerce.number().int().min(0).default(0) }),
    body: NO_BODY,
    answers: { 200: { description: "Ticks; `after` takes the last one's id", schema: listOf(TickView) } },
    refusals: ["lease_unknown", "forbidden", "invalid_request"],
  },
  async ({ env, params, query }, principal) => {
    const { after, limit } = query;
    const listed = await onLease(env, principal, params.id, (lease, as) => lease.ticks(as, after, limit));
    if (!listed.ok) return listed;
    const page = { object: "list" as const, data: listed.ticks, has_more: listed.hasMore };
    return jsonAnswer(listOf(TickView), page);
  },
);

export const leaseEventRoutes: readonly Mounted[] = [getLeaseEvents, listTicks];
