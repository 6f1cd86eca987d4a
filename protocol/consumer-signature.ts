import { type Address, type Bytes32, HexBytes } from "./ids.ts";
import { p256Signer } from "./p256.ts";
import { recoverSigner } from "./signature.ts";

/**
 * What a lease's consumer signs usage, allowances, closes and allocations with: a secp256k1 key (65 bytes, or 64 in the
 * compact form of EIP-2098) or a P-256 key (128 bytes, p256.ts). The other parties' keys are secp256k1.
 */
export const ConsumerSignature = HexBytes.refine(
  (hex) => hex.length === 132 || hex.length === 130 || hex.length === 258,
  "a signature of 65 or 64 bytes, or of 128 for a P-256 key",
);

/** Whether the bytes have the length of a P-256 signature; those of secp256k1 never do. */
export function isP256(signature: string): boolean {
  return signature.length === 258;
}

/** The id of the key that signed `digest`, to hold against `consumerSigner`; null when none did. Never throws. */
export function consumerOf(digest: Bytes32, signature: string): Promise<Address | null> {
  return isP256(signature) ? p256Signer(digest, signature) : recoverSigner(digest, signature);
}
