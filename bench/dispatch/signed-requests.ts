import { devnetAccount } from "@gpux/contracts/roles";
import { jobIdFor, scopeOf } from "@gpux/durable-objects/request-scope";
import { decodeBase64Url } from "@gpux/protocol/http-signature/base64url";
import { accountSigner, type SignOptions, signRequest } from "@gpux/protocol/http-signature/erc8128";
import { type SessionSigner, signSessionRequest } from "@gpux/protocol/http-signature/session";
import { Address, type JobId, type LeaseId } from "@gpux/protocol/ids";
import { OpenedSession } from "@gpux/protocol/session";
import { createClient } from "@gpux/sdk";
import { PAYLOAD_BYTES } from "./echo.ts";
import { type BenchMarket, type OpenLease, unpooled } from "./market.ts";

/** Requests as the consumer's client would send them, made before the clock starts. */

export type Sign = (request: Request) => Promise<Request>;

/** The longest that a signature may be good for (request-signature.ts). */
const SIGNED_FOR: SignOptions = { expiresInS: 300 };
/** Base units: the most that one job may cost. */
export const MAX_PRICE = "1000";
/** Base units: more than any bench spends. */
const CAP = 1_000_000_000n;
const SCOPES = ["read", "jobs"] as const;
const HOUR_S = 3_600;

/** By the wallet itself, ERC-8128. */
export function byWallet({ chainId }: BenchMarket): Sign {
  const signer = accountSigner(devnetAccount("consumer").account, chainId);
  return (request) => signRequest(request, signer, SIGNED_FOR);
}

/** By the Ed25519 key of a new session. */
export async function byEd25519({ url }: BenchMarket): Promise<Sign> {
  const { account } = devnetAccount("consumer");
  const session = await createClient({ url, account, fetch: unpooled }).session({
    cap: CAP,
    scopes: SCOPES,
    expiresIn: HOUR_S,
  });
  return bySession({ id: session.id, token: session.token, sign: session.key.sign });
}

/** By the secret that the edge gave a new session, as stock HTTP clients can. */
export async function byHmac(market: BenchMarket): Promise<Sign> {
  const body = {
    key: { kty: "oct" },
    scopes: SCOPES,
    cap: `${CAP}`,
    expires_at: new Date(Date.now() + HOUR_S * 1_000).toISOString(),
    audience: new URL(market.url).host,
    chain_id: market.chainId,
  };
  const asked = jsonRequest(`${market.url}/v1/sessions`, body);
  const answer = await unpooled(await byWallet(market)(asked));
  if (!answer.ok) throw new Error(`POST /v1/sessions: ${answer.status} ${await answer.text()}`);
  const { id, token, secret } = OpenedSession.parse(await answer.json());
  const raw = decodeBase64Url(secret ?? "");
  if (raw === null) throw new Error("an oct session is told its secret");
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", raw, algorithm, false, ["sign"]);
  const sign = async (base: Uint8Array) =>
    new Uint8Array(await crypto.subtle.sign("HMAC", key, base.slice()));
  return bySession({ id, token, sign });
}

function bySession(signer: SessionSigner): Sign {
  return (request) => signSessionRequest(request, signer, SIGNED_FOR);
}

export function jsonRequest(
  url: string,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
): Request {
  return new Request(url, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
}

let made = 0;

/** Other bytes for every job, so that no output is in the store already. */
export function jobBody(sha256: string) {
  const bytes = Buffer.alloc(PAYLOAD_BYTES, 7);
  bytes.writeUInt32LE(made++);
  return { function: sha256, inputs: { data: { base64: bytes.toString("base64") } }, max_price: MAX_PRICE };
}

/** The same with what a lease needs to take it. */
export function paidJobBody(sha256: string, { allowance }: OpenLease) {
  return { ...jobBody(sha256), allowance };
}

/** The id that the edge will give the job of the consumer with this Idempotency-Key. */
export function jobIdOfKey(lease: LeaseId, key: string): Promise<JobId> {
  const by = Address.parse(devnetAccount("consumer").address);
  return jobIdFor(lease, by, scopeOf(null, key, ""));
}

/** The request as HTTP/1.1 on the wire. */
export async function bytesOf(request: Request): Promise<Uint8Array> {
  const url = new URL(request.url);
  const body = Buffer.from(await request.arrayBuffer());
  const fields = [...request.headers].map(([name, value]) => `${name}: ${value}`);
  const head = [
    `${request.method} ${url.pathname}${url.search} HTTP/1.1`,
    `host: ${url.host}`,
    ...fields,
    ...(request.method === "GET" ? [] : [`content-length: ${body.length}`]),
  ];
  return Buffer.concat([Buffer.from(`${head.join("\r\n")}\r\n\r\n`), body]);
}
