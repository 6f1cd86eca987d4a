import type { ObjectEnv } from "@gpux/durable-objects/bindings";
import { configOf } from "@gpux/durable-objects/config";
import { LeaseId } from "@gpux/protocol/ids";
import { authenticate } from "./auth/authenticate.ts";
import { type Refusal, refuse } from "./refusal.ts";
import type { Answer } from "./route.ts";

const PREFIX = "/v1/agent/";

/**
 * Upgrades that an isolate checks at once. After a deploy or an outage all agents dial: those beyond what can be checked
 * within a dial's patience are told at once to come back, or they would give up, and be checked all the same.
 */
export const UPGRADES_AT_ONCE = 64;
let underway = 0;

export function isAgentPath(pathname: string): boolean {
  return pathname.startsWith(PREFIX);
}

/**
 * The agent's upgrades: `GET /v1/agent/connect` ends in the Node of whoever signed, `GET /v1/agent/leases/{id}` in the
 * Lease. The object gets the verified signer and nonce in headers of ours; nothing that the client sent goes with
 * them. Outside of the router: a 101 from an object has immutable headers.
 */
export async function connectAgent(request: Request, env: ObjectEnv): Promise<Answer> {
  if (request.method !== "GET") return { ...refuse("method_not_allowed"), headers: { allow: "GET" } };
  const path = new URL(request.url).pathname.slice(PREFIX.length);
  const lease = LeaseId.safeParse(/^leases\/([^/]+)$/.exec(path)?.[1]);
  if (path !== "connect" && !lease.success) return refuse("not_found");
  if (request.headers.get("upgrade")?.toLowerCase() !== "websocket")
    return refuse("invalid_request", "a WebSocket upgrade is needed here");
  const length = Number(request.headers.get("content-length") ?? 0);
  if (length > 0) return refuse("body_too_large", "an upgrade has no body");
  if (underway >= UPGRADES_AT_ONCE) return refuse("edge_busy");
  underway += 1;
  try {
    return await upgraded(request, env, lease.success ? lease.data : null);
  } finally {
    underway -= 1;
  }
}

async function upgraded(request: Request, env: ObjectEnv, lease: LeaseId | null): Promise<Answer> {
  const agents = { scope: null, contracts: false } as const;
  const authentic = await authenticate(request, { bytes: new Uint8Array() }, configOf(env), agents);
  if (!authentic.ok) return authentic;
  const { address, nonce, expires } = authentic.principal;
  const headers = {
    upgrade: "websocket",
    "x-gpux-principal": address,
    "x-gpux-nonce": nonce,
    "x-gpux-expires": String(expires),
  };
  const response =
    lease === null
      ? await env.NODE.getByName(address).fetch(new Request("https://node/connect", { headers }))
      : await env.LEASE.getByName(lease).fetch(new Request("https://lease/agent", { headers }));
  return response.status === 101 ? response : refusalOf(response.status, lease !== null);
}

/** What an object's plain status means; objects answer upgrades without a body worth passing on. */
function refusalOf(status: number, ofLease: boolean): Refusal {
  if (status === 401) return refuse("signature_replayed");
  if (status === 403) return refuse("forbidden", ofLease ? "the lease is another node's" : undefined);
  if (status === 410 && ofLease) return refuse("lease_gone");
  return refuse("internal");
}
