import type { ObjectEnv } from "@gpux/durable-objects/bindings";
import { configOf } from "@gpux/durable-objects/config";
import type { Principal } from "@gpux/durable-objects/interfaces";
import { upgradeWithCredentials } from "@gpux/protocol/http-signature/socket-credentials";
import { LeaseId } from "@gpux/protocol/ids";
import { z } from "zod";
import { authenticate } from "./auth/authenticate.ts";
import { onLease } from "./auth/standing.ts";
import { type Refusal, refuse } from "./refusal.ts";
import { type Answer, admissionOf, type Mounted, NO_BODY, NONE, type Route } from "./route.ts";

const PATH = /^\/v1\/leases\/([^/]+)\/session$/;
const Params = z.strictObject({ id: LeaseId });

const route: Route<typeof Params, typeof NONE, typeof NO_BODY> = {
  method: "get",
  path: "/v1/leases/{id}/session",
  summary:
    "Upgrade to a WebSocket into the lease: jobs as frames, the same jobs and answers as over HTTP (docs/SPEC.md SOC-*). Without an upgrade: what it would be refused for",
  params: Params,
  query: NONE,
  headers: {
    "Sec-WebSocket-Protocol":
      "gpux.v1; from clients that cannot set header fields also gpux.auth.<base64url of JSON with the fields signature-input, signature and gpux-session>",
  },
  body: NO_BODY,
  answers: { 101: { description: "The socket; its first frame is `ready`", schema: null } },
  refusals: [
    "lease_unknown",
    "lease_closed",
    "forbidden",
    "invalid_request",
    "body_too_large",
    "signature_replayed",
    "upgrade_required",
    "too_many_sockets",
  ],
  scope: "jobs",
};

/** The upgrade of a client's own socket into its lease, when this is one: the router cannot answer it. */
export function isClientUpgrade(request: Request): boolean {
  return isUpgrade(request) && PATH.test(new URL(request.url).pathname);
}

function isUpgrade(request: Request): boolean {
  return request.headers.get("upgrade")?.toLowerCase() === "websocket";
}

/**
 * Ends in the Lease, if it may: the Account has vouched for the session there before the socket is. Outside of the router:
 * a 101 from an object has immutable headers. `id` of the request, for refusals to quote.
 */
export async function connectClient(request: Request, env: ObjectEnv, id: string): Promise<Answer> {
  if (request.method !== "GET") return { ...refuse("method_not_allowed"), headers: { allow: "GET" } };
  const lease = LeaseId.safeParse(PATH.exec(new URL(request.url).pathname)?.[1]);
  if (!lease.success) return refuse("invalid_request", "/path/id: lse_ and 32 base32 characters");
  if (Number(request.headers.get("content-length") ?? 0) > 0)
    return refuse("body_too_large", "an upgrade has no body");
  const upgrade = upgradeWithCredentials(request);
  if (!upgrade.ok) return refuse("signature_malformed", "the credentials among the subprotocols");
  const signed = { bytes: new Uint8Array() };
  const authentic = await authenticate(upgrade.request, signed, configOf(env), admissionOf(route));
  if (!authentic.ok) return authentic;
  const { principal } = authentic;
  const known = await onLease(env, principal, lease.data, (asked, as) => asked.view(as));
  if (!known.ok) return known;
  if (!isUpgrade(request)) return refuse("upgrade_required");
  if (!upgrade.speaks) return refuse("upgrade_required", "gpux.v1 is not among the subprotocols");
  const headers = headersOf(principal, id);
  const response = await env.LEASE.getByName(lease.data).fetch(
    new Request("https://lease/client", { headers }),
  );
  return response.status === 101 ? response : refusalOf(response.status);
}

/** What the object is told of the client; nothing that it sent goes with it. */
function headersOf({ address, nonce, expires, session }: Principal, id: string): Record<string, string> {
  return {
    upgrade: "websocket",
    "x-gpux-principal": address,
    "x-gpux-nonce": nonce,
    "x-gpux-expires": String(expires),
    ...(session === undefined ? {} : { "x-gpux-session": session.id }),
    "x-gpux-bearer": session?.bearer ? "yes" : "no",
    "x-gpux-request": id,
  };
}

function refusalOf(status: number): Refusal {
  if (status === 401) return refuse("signature_replayed");
  if (status === 403) return refuse("forbidden");
  if (status === 410) return refuse("lease_closed");
  if (status === 429) return refuse("too_many_sockets");
  return refuse("internal");
}

/** As it is described; without an upgrade it comes here by the router. */
export const clientSocketRoutes: readonly Mounted[] = [
  { route, signed: true, respond: (request, _params, env) => connectClient(request, env, "") },
];
