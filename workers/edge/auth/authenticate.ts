import type { EdgeConfig } from "@gpux/durable-objects/config";
import type { Principal } from "@gpux/durable-objects/interfaces";
import { verifyRequest } from "@gpux/protocol/http-signature/erc8128";
import type { Address, Bytes32, HexBytes } from "@gpux/protocol/ids";
import { type Refusal, refuse } from "../refusal.ts";
import { contractAccepts } from "./contract-signature.ts";

class ChainUnavailable extends Error {}

/** The request's body as far as its signature goes: the raw bytes, or the hash that a streamed one is held to. */
export type SignedBody = { readonly bytes: Uint8Array } | { readonly sha256: Uint8Array };

/**
 * Who signed the request. ERC-8128 by an externally owned account, else by the smart wallet at that address
 * (ERC-1271). Replay inside the window is refused by the object that the request lands on.
 */
export async function authenticate(
  request: Request,
  body: SignedBody,
  config: EdgeConfig,
): Promise<{ readonly ok: true; readonly principal: Principal } | Refusal> {
  const { method, url, headers } = request;
  const signed =
    "bytes" in body
      ? { method, url, headers, body: body.bytes }
      : { method, url, headers, body: new Uint8Array(), streamed: body.sha256 };
  try {
    const verified = await verifyRequest(signed, {
      now: Date.now(),
      audience: [new URL(config.publicOrigin).host],
      chainId: config.chainId,
      verifyContractSignature: (address, hash, signature) => askContract(config, address, hash, signature),
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
