import type { Address, Bytes32, HexBytes } from "@gpux/protocol/ids";

/**
 * Signatures without curves: a token that only {@link Keyring.sign} makes, good for one signer and one digest. What is
 * not in the ring was never signed, so nobody can forge; what is may be shown again, as a real one may.
 */
export class Keyring {
  readonly #made = new Set<string>();

  sign(by: Address, digest: Bytes32): HexBytes {
    const token = tokenOf(by, digest);
    this.#made.add(token);
    return token;
  }

  isSigned(by: Address, digest: Bytes32, signature: string): boolean {
    return signature === tokenOf(by, digest) && this.#made.has(signature);
  }
}

/** As long as a real one, and like those of RFC 6979 always the same. */
function tokenOf(by: Address, digest: Bytes32): HexBytes {
  return `0x${by.slice(2)}${digest.slice(2)}${"1b".repeat(13)}`;
}
