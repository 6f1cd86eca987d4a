import { type Address, Bytes32, HexBytes } from "@gpux/protocol/ids";
import { p256Address } from "@gpux/protocol/p256";
import { bytesToHex, hexToBytes } from "viem/utils";

/** For tests: a P-256 key as a browser holds one, by WebCrypto and not to be exported. */
export interface P256Key {
  /** What terms name as `consumerSigner`. */
  readonly address: Address;
  /** As WebCrypto answers, high s or low, with the key behind it. */
  sign(digest: Bytes32): Promise<HexBytes>;
}

export async function newP256Key(): Promise<P256Key> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const pair = await crypto.subtle.generateKey(algorithm, false, ["sign", "verify"]);
  if (!("privateKey" in pair)) throw new Error("ECDSA makes pairs");
  const raw = await crypto.subtle.exportKey("raw", pair.publicKey);
  if (!(raw instanceof ArrayBuffer)) throw new Error("a raw key is bytes");
  // Without the byte that says "uncompressed".
  const point = bytesToHex(new Uint8Array(raw)).slice(4);
  return {
    address: p256Address({
      x: Bytes32.parse(`0x${point.slice(0, 64)}`),
      y: Bytes32.parse(`0x${point.slice(64)}`),
    }),
    async sign(digest) {
      const signed = await crypto.subtle.sign(
        algorithm,
        pair.privateKey,
        Uint8Array.from(hexToBytes(digest)),
      );
      return HexBytes.parse(bytesToHex(new Uint8Array(signed)) + point);
    },
  };
}
