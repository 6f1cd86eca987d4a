import type { ErrorCode } from "@gpux/protocol/errors";
import type { SignedRequest } from "@gpux/protocol/http-signature/request-signature";
import { verifySessionRequest } from "@gpux/protocol/http-signature/session";
import { createSeal, SESSION_HEADER } from "@gpux/protocol/http-signature/session-token";
import { Address } from "@gpux/protocol/ids";
import {
  OpenedSession,
  type SessionGrant,
  SessionRequest,
  type SessionScope,
  SessionView,
  sessionIdOf,
} from "@gpux/protocol/session";
import { z } from "zod";
import { settlement } from "./market.ts";

type Verdict =
  | { readonly ok: true; readonly address: Address; readonly nonce: string }
  | { readonly ok: false; readonly code: ErrorCode };

/** The sessions of a scripted edge: it seals, checks and revokes them as the real one does, and keeps them here. */
export function createScriptedSessions(host: string, now: () => number) {
  const seal = createSeal(`test:${"5e".repeat(32)}`);
  const opened: SessionView[] = [];
  const revoked = new Set<string>();

  /** What a path needs, as far as the tests go: money needs more than a session that runs jobs. */
  function scopeOf(method: string, path: string): SessionScope {
    if (path.startsWith("/v1/leases") && method === "POST" && !path.endsWith("/jobs")) return "leases";
    return method === "GET" ? "read" : "jobs";
  }

  return {
    opened,
    revoked,
    /** Null when a wallet signed, or nobody. */
    async verdict(request: SignedRequest): Promise<Verdict | null> {
      if (request.headers.get(SESSION_HEADER) === null) return null;
      const policy = { now: now(), audience: [host], chainId: settlement.chain_id, seal };
      const verified = await verifySessionRequest(request, policy);
      if (!verified.ok) return verified;
      const { grant, nonce } = verified;
      if (revoked.has(grant.id)) return { ok: false, code: "session_revoked" };
      const needed = scopeOf(request.method, new URL(request.url).pathname);
      if (!grant.scopes.includes(needed)) return { ok: false, code: "scope_missing" };
      return { ok: true, address: grant.address, nonce: `${grant.id} ${nonce}` };
    },
    async open(body: string, signer: string | null): Promise<Response> {
      const {
        key,
        scopes,
        cap,
        expires_at,
        audience,
        chain_id: chain,
      } = SessionRequest.parse(JSON.parse(body));
      const id = sessionIdOf(crypto.getRandomValues(new Uint8Array(16)));
      const expires = Date.parse(expires_at) / 1_000;
      const address = Address.parse(signer);
      const grant: SessionGrant = { v: 1, id, address, key, scopes, cap, expires, audience, chain };
      const created_at = new Date(now()).toISOString();
      const none = { reserved: 0n, revoked_at: null, untold_leases: 0 };
      const view: SessionView = { id, object: "session", key, scopes, cap, created_at, expires_at, ...none };
      opened.unshift(view);
      return Response.json(z.encode(OpenedSession, { ...view, token: await seal.seal(grant) }), {
        status: 201,
      });
    },
    list: () => opened.map((view) => z.encode(SessionView, view)),
    close(id: string): Response | null {
      const view = opened.find((each) => each.id === id);
      if (view === undefined) return null;
      revoked.add(id);
      return Response.json(z.encode(SessionView, { ...view, revoked_at: new Date(now()).toISOString() }));
    },
  };
}
