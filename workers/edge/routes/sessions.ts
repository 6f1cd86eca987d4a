import type { EdgeConfig } from "@gpux/durable-objects/config";
import { encodeBase64Url } from "@gpux/protocol/http-signature/base64url";
import { importSessionKey } from "@gpux/protocol/http-signature/session";
import type { Address } from "@gpux/protocol/ids";
import {
  BEARER_SCOPES,
  isBearer,
  LONGEST_SESSION_S,
  OpenedSession,
  type SessionGrant,
  SessionId,
  SessionRequest,
  SessionView,
  SHORTEST_SESSION_S,
  sessionIdOf,
} from "@gpux/protocol/session";
import { z } from "zod";
import { jsonAnswer } from "../json-answer.ts";
import { listOf } from "../list.ts";
import { type Refusal, refuse } from "../refusal.ts";
import { type Mounted, NO_BODY, NONE, signedRoute } from "../route.ts";

const createSession = signedRoute(
  {
    method: "post",
    path: "/v1/sessions",
    summary:
      "Let a key act for the wallet that signs this, within scopes, a cap and a time. The answer alone has the token that later requests carry in `gpux-session`",
    params: NONE,
    query: NONE,
    body: SessionRequest,
    answers: { 201: { description: "The session", schema: OpenedSession } },
    refusals: [
      "invalid_json",
      "invalid_request",
      "body_too_large",
      "unsupported_media_type",
      "too_many_sessions",
      "signature_replayed",
      "scope_missing",
    ],
    contracts: true,
  },
  async ({ env, config, body }, principal) => {
    const granted = await grantOf(body, principal.address, config, Date.now());
    if (!granted.ok) return granted;
    const { grant } = granted;
    const opened = await env.ACCOUNT.getByName(principal.address).openSession(principal, grant);
    if (!opened.ok) return opened;
    const { seal } = config;
    const secret = isBearer(grant.key) ? await seal.secretOf(grant.id, seal.keyId) : null;
    const answer = {
      ...opened.session,
      token: await seal.seal(grant),
      ...(secret === null ? {} : { secret: encodeBase64Url(secret) }),
    };
    return jsonAnswer(OpenedSession, answer, 201, { location: `/v1/sessions/${grant.id}` });
  },
);

/** What the wallet asked for, when this edge may grant it. */
async function grantOf(
  asked: SessionRequest,
  address: Address,
  config: EdgeConfig,
  now: number,
): Promise<{ readonly ok: true; readonly grant: SessionGrant } | Refusal> {
  const { key, scopes, cap, audience, chain_id: chain } = asked;
  const host = new URL(config.publicOrigin).host;
  if (audience !== host) return refuse("invalid_request", `/audience: this is ${host}`);
  if (chain !== config.chainId)
    return refuse("invalid_request", `/chain_id: this edge is on ${config.chainId}`);
  const expires = Math.floor(Date.parse(asked.expires_at) / 1_000);
  const seconds = expires - now / 1_000;
  if (seconds < SHORTEST_SESSION_S || seconds > LONGEST_SESSION_S)
    return refuse("invalid_request", "/expires_at: from one minute to seven days ahead");
  if (key.kty !== "oct" && (await importSessionKey(key)) === null)
    return refuse("invalid_request", "/key: no point of its curve");
  if (isBearer(key) && !scopes.every((scope) => BEARER_SCOPES.has(scope)))
    return refuse(
      "invalid_request",
      `/scopes: a key that the edge knows gets ${[...BEARER_SCOPES].join(", ")}`,
    );
  const id = sessionIdOf(crypto.getRandomValues(new Uint8Array(16)));
  return { ok: true, grant: { v: 1, id, address, key, scopes, cap, expires, audience, chain } };
}

const listSessions = signedRoute(
  {
    method: "get",
    path: "/v1/sessions",
    summary: "The wallet's sessions, newest first; those that are over stay for a day",
    params: NONE,
    query: NONE,
    body: NO_BODY,
    answers: { 200: { description: "Sessions, without their tokens", schema: listOf(SessionView) } },
    refusals: ["invalid_request", "session_revoked", "session_expired", "scope_missing"],
    scope: "read",
    contracts: true,
  },
  async ({ env }, principal) => {
    const listed = await env.ACCOUNT.getByName(principal.address).sessions(principal);
    if (!listed.ok) return listed;
    return jsonAnswer(listOf(SessionView), { object: "list", data: listed.sessions, has_more: false });
  },
);

const deleteSession = signedRoute(
  {
    method: "delete",
    path: "/v1/sessions/{id}",
    summary:
      "Revoke a session, by the wallet or by the session itself. `untold_leases` counts the leases that will hear of it later",
    params: z.strictObject({ id: SessionId }),
    query: NONE,
    body: NO_BODY,
    answers: { 200: { description: "The session, revoked", schema: SessionView } },
    refusals: [
      "invalid_request",
      "session_unknown",
      "session_revoked",
      "session_expired",
      "scope_missing",
      "signature_replayed",
    ],
    scope: "any",
    contracts: true,
  },
  async ({ env, params }, principal) => {
    if (principal.session !== undefined && principal.session.id !== params.id)
      return refuse("scope_missing", "a session revokes itself alone; others are the wallet's to revoke");
    const revoked = await env.ACCOUNT.getByName(principal.address).revokeSession(principal, params.id);
    return revoked.ok ? jsonAnswer(SessionView, revoked.session) : revoked;
  },
);

export const sessionRoutes: readonly Mounted[] = [createSession, listSessions, deleteSession];
