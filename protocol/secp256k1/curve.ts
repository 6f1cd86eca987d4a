import type { Bytes32, HexBytes } from "../ids.ts";

/** An ECDSA signature in numbers of 32 bytes; with low s, `yParity` is the whole recovery id. */
export interface Ecdsa {
  readonly r: Bytes32;
  readonly s: Bytes32;
  readonly yParity: 0 | 1;
}

/**
 * What is asked of secp256k1. Each runtime has one implementation, chosen by the condition under which `#secp256k1` is
 * resolved (package.json), never at run time: what a signature is worth must not hang on what failed to load.
 */
export interface Curve {
  /**
   * The key that signed: 65 bytes, uncompressed (SEC 1, 2.3.3). Null when r or s is zero or not below the order, r is
   * no x coordinate, or the key would be the point at infinity. Low s is the caller's to demand.
   */
  recover(digest: Bytes32, signature: Ecdsa): Promise<HexBytes | null>;
  /**
   * RFC 6979, low s: the same bytes for the same key and digest, everywhere. But for a digest not below the order, which
   * no hash is but once in 2^128: libsecp256k1 does not reduce it for the nonce. Throws when `key` is no private key.
   */
  sign(digest: Bytes32, key: Bytes32): Promise<Ecdsa>;
}
