import { bytesToHex, concatBytes, hexToBytes, stringToBytes } from "viem/utils";
import { Address, type Bytes32, type HexBytes } from "../ids.ts";
import { keccak256 } from "../keccak.ts";
import { recoverSigner } from "../signature.ts";
import {
  CLOCK_SKEW_S,
  type RequestPolicy,
  type RequestRefusal,
  type SignedRequest,
  signedClaims,
} from "./request-signature.ts";
import {
  type BaseSigner,
  type SignOptions,
  signedCopy,
  signedHeaders,
  type UnsignedHead,
} from "./request-signing.ts";
import { parseSignature } from "./signature-fields.ts";

export type { SignOptions, UnsignedHead } from "./request-signing.ts";

/**
 * ERC-8128: HTTP requests signed by an Ethereum account, RFC 9421 over EIP-191. The draft moves: this is the form
 * that its deployed library speaks (@slicekit/erc8128 0.2, keyid `erc8128:<chainId>:<address>`, no tag). The later
 * text has `eip155:` keyids, `tag="erc8128"` and `@scheme`; all of the profile is in this file and
 * requiredComponents, so that following it is one change.
 */

/** The label we write; any is read. */
const LABEL = "eth";
const KEY_ID = /^erc8128:([1-9][0-9]{0,14}):(0x[0-9a-fA-F]{40})$/;

export type RequestSigner = {
  readonly address: string;
  readonly chainId: number;
  /** EIP-191 `personal_sign` over the bytes. A smart wallet answers whatever its ERC-1271 takes. */
  signMessage(message: Uint8Array): Promise<HexBytes>;
};

/** From a viem account (or anything that signs `{ message: { raw } }`), for one chain. */
export function accountSigner(
  account: {
    readonly address: string;
    signMessage(options: { message: { raw: Uint8Array } }): Promise<HexBytes>;
  },
  chainId: number,
): RequestSigner {
  return {
    address: account.address,
    chainId,
    signMessage: (message) => account.signMessage({ message: { raw: message } }),
  };
}

export function formatKeyId(chainId: number, address: string): string {
  return `erc8128:${chainId}:${address.toLowerCase()}`;
}

export function parseKeyId(keyId: string): { chainId: number; address: Address } | null {
  const [, chainId, address] = KEY_ID.exec(keyId) ?? [];
  if (chainId === undefined || address === undefined) return null;
  return { chainId: Number(chainId), address: Address.parse(address) };
}

/** A copy of `request`, signed by a wallet; see {@link signedCopy}. */
export function signRequest(
  request: Request,
  signer: RequestSigner,
  options: SignOptions = {},
): Promise<Request> {
  return signedCopy(request, baseSigner(signer), options);
}

/** The headers of a request whose body's hash is known, signed by a wallet; see {@link signedHeaders}. */
export function signHead(
  head: UnsignedHead,
  signer: RequestSigner,
  options: SignOptions = {},
): Promise<Headers> {
  return signedHeaders(head, baseSigner(signer), options);
}

function baseSigner(signer: RequestSigner): BaseSigner {
  return {
    label: LABEL,
    keyid: formatKeyId(signer.chainId, signer.address),
    sign: async (base) => hexToBytes(await signer.signMessage(base)),
  };
}

export type VerifyPolicy = RequestPolicy & {
  readonly chainId: number;
  /** ERC-1271 and ERC-6492, for smart wallets: an RPC call, so only where the caller wants to pay for it. */
  readonly verifyContractSignature?: (
    address: Address,
    hash: Bytes32,
    signature: HexBytes,
  ) => Promise<boolean>;
};

export type VerifyRefusal =
  | RequestRefusal
  | "signature_missing"
  | "signature_wrong_chain"
  | "signature_invalid";

export type VerifiedRequest = {
  readonly ok: true;
  readonly address: Address;
  /** Refuse a second request with the same (keyId, nonce) until `expires` plus the skew. */
  readonly nonce: string;
  readonly keyId: string;
  readonly created: number;
  readonly expires: number;
};

/** Seconds since the epoch until which a nonce has to be remembered. */
export function nonceRetention(verified: { readonly expires: number }): number {
  return verified.expires + CLOCK_SKEW_S;
}

/**
 * Who signed the request, or why it is refused. The caller builds `url` from the host it believes it serves and
 * lists that host in `audience`: a hostile Host header is refused by that, not by the signature. Rejects only when
 * `verifyContractSignature` does (the platform failed, the request is neither good nor bad).
 */
export async function verifyRequest(
  request: SignedRequest,
  policy: VerifyPolicy,
): Promise<VerifiedRequest | { readonly ok: false; readonly code: VerifyRefusal }> {
  const parsed = parseSignature(request.headers);
  if (!parsed.ok) return parsed;
  const { alg, keyid } = parsed.value.parameters;
  const key = keyid === undefined ? null : parseKeyId(keyid);
  // No registered algorithm is this one, so a signature that names one is of another kind (ERC-8128).
  if (key === null || alg !== undefined) return { ok: false, code: "signature_malformed" };
  if (key.chainId !== policy.chainId) return { ok: false, code: "signature_wrong_chain" };

  const claims = await signedClaims(parsed.value, request, policy);
  if (!claims.ok) return claims;
  const { base, nonce, created, expires } = claims.value;
  const hash = personalHash(base);
  const signature = bytesToHex(parsed.value.signature);
  const signed =
    (await recoverSigner(hash, signature)) === key.address ||
    (await policy.verifyContractSignature?.(key.address, hash, signature)) === true;
  if (!signed) return { ok: false, code: "signature_invalid" };
  return {
    ok: true,
    address: key.address,
    nonce,
    keyId: formatKeyId(key.chainId, key.address),
    created,
    expires,
  };
}

/** EIP-191, version 0x45: what `personal_sign` signs. */
function personalHash(message: Uint8Array): Bytes32 {
  const head = stringToBytes(`\x19Ethereum Signed Message:\n${message.length}`);
  return keccak256(concatBytes([head, message]));
}
