import { SELF } from "cloudflare:test";
import { accountSigner, type SignOptions, signRequest } from "@gpux/protocol/http-signature/erc8128";
import { Address } from "@gpux/protocol/ids";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import type { Principal } from "../interfaces.ts";

/** As vitest.config.mts sets them for the edge under test. */
export const ORIGIN = "https://edge.test";
export const CHAIN_ID = 31_337;

export type Account = ReturnType<typeof privateKeyToAccount>;

/** An account that no test has used before, so that tests share no state. */
export function newAccount(): Account {
  return privateKeyToAccount(generatePrivateKey());
}

export function addressOf(account: Account): Address {
  return Address.parse(account.address);
}

/** Who the edge found to have signed; a nonce of its own unless the test wants it twice. */
export function principalOf(account: Account, nonce: string = crypto.randomUUID()): Principal {
  return { address: addressOf(account), nonce, expires: Math.floor(Date.now() / 1_000) + 60 };
}

export interface Sent {
  readonly method?: string;
  readonly json?: unknown;
  readonly body?: Uint8Array<ArrayBuffer> | string;
  readonly headers?: Readonly<Record<string, string>>;
}

export function requestOf(path: string, { method, json, body, headers }: Sent = {}): Request {
  const content = json === undefined ? body : JSON.stringify(json);
  return new Request(`${ORIGIN}${path}`, {
    method: method ?? (content === undefined ? "GET" : "POST"),
    headers: { ...(json === undefined ? {} : { "content-type": "application/json" }), ...headers },
    ...(content === undefined ? {} : { body: content }),
  });
}

/** A request as a wallet signs it; `chainId` of the local chain. */
export function signed(account: Account, request: Request, options: SignOptions = {}): Promise<Request> {
  return signRequest(request, accountSigner(account, CHAIN_ID), options);
}

export async function call(account: Account, path: string, sent: Sent = {}): Promise<Response> {
  return SELF.fetch(await signed(account, requestOf(path, sent)));
}
