import {
  accountSigner,
  signHead,
  signRequest,
  type UnsignedHead,
} from "@gpux/protocol/http-signature/erc8128";
import type { PrivateKeyAccount } from "viem/accounts";
import type { EdgeClock } from "./edge-clock.ts";

/** Signs the agent's own requests to the edge (ERC-8128), for uploads and for socket upgrades alike. */
export interface Credentials {
  readonly account: PrivateKeyAccount;
  readonly chainId: number;
  readonly clock: EdgeClock;
}

export function signedRequest({ account, chainId, clock }: Credentials, request: Request): Promise<Request> {
  return signRequest(request, accountSigner(account, chainId), { now: clock.now() });
}

/** The headers of a request whose body is too large to be read once more for its hash. */
export function signedHead({ account, chainId, clock }: Credentials, head: UnsignedHead): Promise<Headers> {
  return signHead(head, accountSigner(account, chainId), { now: clock.now() });
}

/** Headers for a WebSocket upgrade: the signature is over the GET that it is on the wire. Fresh for every dial. */
export async function upgradeHeaders(
  credentials: Credentials,
  socketUrl: string,
): Promise<Record<string, string>> {
  const url = new URL(socketUrl);
  url.protocol = url.protocol === "wss:" ? "https:" : "http:";
  const signed = await signedRequest(credentials, new Request(url));
  return Object.fromEntries(signed.headers);
}

/** A path of the edge as a WebSocket URL. */
export function socketUrl(edge: string, path: string): string {
  const url = new URL(path, edge);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}
