import type { EdgeConfig } from "@gpux/durable-objects/config";
import type { Principal } from "@gpux/durable-objects/interfaces";
import { verifyRequest } from "@gpux/protocol/http-signature/erc8128";
import type { SignedRequest } from "@gpux/protocol/http-signature/request-signature";
import { verifySessionRequest } from "@gpux/protocol/http-signature/session";
import { SESSION_HEADER } from "@gpux/protocol/http-signature/session-token";
import type { Address, Bytes32, HexBytes } from "@gpux/protocol/ids";
import { isBearer, type SessionScope } from "@gpux/protocol/session";
import { type Refusal, refuse } from "../refusal.ts";
import { contractAccepts } from "./contract-signature.ts";

class ChainUnavailable extends Error {}

/** The request's body as far as its signature goes: the raw bytes, or the hash that a streamed one is held to. */
export type SignedBody = { readonly bytes: Uint8Array } | { readonly sha256: Uint8Array };

/** Who may come, beside externally owned accounts. */
export interface Admission {
  /** What a session needs; null: none will do, the wallet itself must sign. */
  readonly scope: SessionScope | "any" | null;
  /** Whether smart wallets are asked (ERC-1271), which costs a call to the chain. */
  readonly contracts: boolean;
}

type Authentic = { readonly ok: true; readonly principal: Principal } | Refusal;

/**
 * Who signed the request: a session, whose sealed grant travels with it, or a wallet by ERC-8128. A session is checked
 * without asking any store or chain; whether it has been revoked, and replay inside the window, are for the object that
 * the request lands on.
 */
export async function authenticate(
  request: Request,
  body: SignedBody,
  config: EdgeConfig,
  admission: Admission,
): Promise<Authentic> {
  const { method, url, headers } = request;
  const signed =
    "bytes" in body
      ? { method, url, headers, body: body.bytes }
      : { method, url, headers, body: new Uint8Array(), streamed: body.sha256 };
  const policy = {
    now: Date.now(),
    audience: [new URL(config.publicOrigin).host],
    chainId: config.chainId,
  };
  return headers.has(SESSION_HEADER)
    ? bySession(signed, { ...policy, seal: config.seal }, admission.scope)
    : byWallet(signed, policy, config, admission.contracts);
}

async function bySession(
  signed: SignedRequest,
  policy: Parameters<typeof verifySessionRequest>[1],
  scope: Admission["scope"],
): Promise<Authentic> {
  const verified = await verifySessionRequest(signed, policy);
  if (!verified.ok) return refuse(verified.code);
  const { grant, nonce, expires } = verified;
  if (scope === null) return refuse("scope_missing", "only the wallet itself may do this");
  if (scope !== "any" && !grant.scopes.includes(scope)) return refuse("scope_missing", `the scope ${scope}`);
  const { id, address, scopes, key } = grant;
  // No nonce has a space in it: two sessions of one wallet cannot meet.
  const session = { id, scopes, bearer: isBearer(key) };
  return { ok: true, principal: { address, nonce: `${id} ${nonce}`, expires, session } };
}

async function byWallet(
  signed: SignedRequest,
  policy: { readonly now: number; readonly audience: readonly string[]; readonly chainId: number },
  config: EdgeConfig,
  contracts: boolean,
): Promise<Authentic> {
  const ask = (address: Address, hash: Bytes32, signature: HexBytes) =>
    askContract(config, address, hash, signature);
  try {
    const verified = await verifyRequest(signed, {
      ...policy,
      ...(contracts ? { verifyContractSignature: ask } : {}),
    });
    if (!verified.ok) return refuse(verified.code);
    const { address, nonce, expires } = verified;
    return { ok: true, principal: { address, nonce, expires } };
  } catch (error) {
    if (error instanceof ChainUnavailable) return refuse("chain_unavailable", error.message);
    throw error;
  }
}

async function askContract(config: EdgeConfig, address: Address, hash: Bytes32, signature: HexBytes) {
  try {
    return await contractAccepts(config.rpcUrl, address, hash, signature);
  } catch {
    throw new ChainUnavailable("the signature is not the account's own, and its contract cannot be asked");
  }
}
