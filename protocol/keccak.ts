import { bytesToHex, stringToBytes } from "viem/utils";
import { keccak } from "#keccak";
import type { Bytes32 } from "./ids.ts";

/** Keccak-256 of bytes, as bytes. */
export const keccakBytes = keccak;

/** Keccak-256 of bytes, or of a text's UTF-8, as lower-case hex. */
export function keccak256(message: Uint8Array | string): Bytes32 {
  return bytesToHex(keccak(typeof message === "string" ? stringToBytes(message) : message));
}
