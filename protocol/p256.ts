import { keccak256 } from "viem/utils";
import type { Address, Bytes32, HexBytes } from "./ids.ts";

/**
 * P-256 signatures, which a consumer's key may make (WebCrypto and passkeys hold such keys; DESIGN section 8). Nothing
 * recovers a key from one, so it brings its key along: 128 bytes `r s x y`, over SHA-256 of the EIP-712 digest. The
 * signer's id is the last 20 bytes of keccak256(x, y), in the place of an address.
 */
export interface P256Signature {
  readonly r: Bytes32;
  /** In the lower half of the order, whatever was parsed. */
  readonly s: Bytes32;
  readonly x: Bytes32;
  readonly y: Bytes32;
}

/** FIPS 186-5, the order of the curve's base point. */
const ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
const ECDSA = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

const word = (value: bigint): Bytes32 => `0x${value.toString(16).padStart(64, "0")}`;

function bytesOf(hex: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: hex.length / 2 - 1 }, (_, i) =>
    Number.parseInt(hex.slice(2 + 2 * i, 4 + 2 * i), 16),
  );
}

/**
 * From 128 bytes; null for another length, and for r or s outside the order. WebCrypto makes a high s half of the time,
 * which the contract refuses (one message, one signature): it becomes n - s, which says the same.
 */
export function toP256(signature: string): P256Signature | null {
  if (!/^0x[0-9a-fA-F]{256}$/.test(signature)) return null;
  const at = (n: number) => BigInt(`0x${signature.slice(2 + 64 * n, 66 + 64 * n)}`);
  const [r, s] = [at(0), at(1)];
  if (r === 0n || r >= ORDER || s === 0n || s >= ORDER) return null;
  return { r: word(r), s: word(s > ORDER / 2n ? ORDER - s : s), x: word(at(2)), y: word(at(3)) };
}

/** The 128 bytes `r s x y`. */
export function serializeP256({ r, s, x, y }: P256Signature): HexBytes {
  return `0x${r.slice(2)}${s.slice(2)}${x.slice(2)}${y.slice(2)}`;
}

/** What terms name as `consumerSigner` for the key. */
export function p256Address(key: Pick<P256Signature, "x" | "y">): Address {
  return `0x${keccak256(`0x${key.x.slice(2)}${key.y.slice(2)}`).slice(26)}`;
}

/** Who signed `digest`; null for what is malformed, off the curve or signed otherwise. Never throws. */
export async function p256Signer(digest: Bytes32, signature: string): Promise<Address | null> {
  const parts = toP256(signature);
  if (parts === null) return null;
  // SEC 1, 2.3.3: 4, x, y.
  const point = bytesOf(`0x04${parts.x.slice(2)}${parts.y.slice(2)}`);
  try {
    const key = await crypto.subtle.importKey("raw", point, ECDSA, false, ["verify"]);
    const pair = bytesOf(`0x${parts.r.slice(2)}${parts.s.slice(2)}`);
    return (await crypto.subtle.verify(ECDSA, key, pair, bytesOf(digest))) ? p256Address(parts) : null;
  } catch {
    // x and y are no point of the curve.
    return null;
  }
}
