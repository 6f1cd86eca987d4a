import { Address, JobId } from "@gpux/protocol/ids";
import { z } from "zod";
import { takeNonce } from "../nonce-window.ts";
import { clientUpgradeOf, upgradeOf } from "../upgrade.ts";
import { mayNot } from "./answers.ts";
import { LONGEST_SOCKET_MS, MOST_CLIENTS } from "./clients.ts";
import type { Life } from "./life.ts";
import { isSettled } from "./state.ts";

const status = (code: number) => new Response(null, { status: code });

/**
 * Sockets into a lease: `/agent` (the data socket), `/client` (a session socket) and `/watch?job=&after=&as=` (a reader of
 * events; without `job`, the lease's). The Worker has authenticated them, and knows refusals by their status.
 */
export function accept(life: Life, sql: SqlStorage, request: Request): Response {
  if (request.headers.get("upgrade") !== "websocket") return status(426);
  const url = new URL(request.url);
  if (url.pathname === "/agent") return acceptAgent(life, sql, request);
  if (url.pathname === "/client") return acceptClient(life, sql, request);
  if (life.state === null) return status(404);
  const as = Address.safeParse(url.searchParams.get("as"));
  const after = z.coerce.number().int().min(0).catch(0).parse(url.searchParams.get("after"));
  if (!as.success || mayNot(life.state, as.data) !== null) return status(403);
  const job = JobId.nullable().safeParse(url.searchParams.get("job"));
  const watching = job.success ? life.watch(job.data, after) : null;
  return watching ?? status(404);
}

function acceptAgent(life: Life, sql: SqlStorage, request: Request): Response {
  // The agent forgets what is gone. A lost lease still takes its late signatures.
  if (life.state === null || isSettled(life.state.lease)) return status(410);
  const upgrade = upgradeOf(request);
  if (upgrade?.signer !== life.state.lease.terms.providerSigner) return status(403);
  if (!takeNonce(sql, upgrade, Date.now())) return new Response("signature_replayed", { status: 401 });
  return life.agent.accept();
}

function acceptClient(life: Life, sql: SqlStorage, request: Request): Response {
  if (life.state === null || isSettled(life.state.lease)) return status(410);
  const upgrade = clientUpgradeOf(request);
  if (upgrade === null) return status(403);
  const { signer: address, session, bearer, request: id } = upgrade;
  if (life.mayNot(session === null ? address : { address, session, bearer }) !== null) return status(403);
  const now = Date.now();
  if (life.clients.count >= MOST_CLIENTS) return status(429);
  if (!takeNonce(sql, upgrade, now)) return status(401);
  const grantEnd = session === null ? null : life.sessions.endOf(session);
  const until = Math.min(now + LONGEST_SOCKET_MS, grantEnd ?? Number.POSITIVE_INFINITY);
  const accepted = life.clients.accept(life.state.lease.id, { address, session, bearer, until, request: id });
  life.arm();
  return accepted;
}
