import { hexToBytes } from "viem/utils";
import { z } from "zod";
import { curve } from "#secp256k1";
import { type Address, Bytes32, type HexBytes } from "./ids.ts";
import { keccak256 } from "./keccak.ts";

/**
 * secp256k1 signatures in two encodings: 65 bytes `r s v` as wallets return them, and EIP-2098 compact
 * `{r, vs}` as the contract takes them. Only low-s passes (EIP-2): one message, one key, one signature.
 */

/** EIP-2098: `vs` is s with the recovery bit on top. The form of every signature on our wires. */
export const CompactSignature = z.strictObject({ r: Bytes32, vs: Bytes32 });
export type CompactSignature = z.infer<typeof CompactSignature>;

const HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0n;
const PARITY_BIT = 1n << 255n;

type Parts = { r: bigint; s: bigint; yParity: 0 | 1 };

/** Hardware wallets answer v as 0 or 1, most others as 27 or 28. */
function parityOfV(v: number): 0 | 1 | null {
  if (v === 27 || v === 0) return 0;
  if (v === 28 || v === 1) return 1;
  return null;
}

function split(signature: string): Parts | null {
  if (!/^0x(?:[0-9a-fA-F]{128}|[0-9a-fA-F]{130})$/.test(signature)) return null;
  const r = BigInt(signature.slice(0, 66));
  const second = BigInt(`0x${signature.slice(66, 130)}`);
  if (signature.length === 130) {
    const s = second & ~PARITY_BIT;
    return s <= HALF_ORDER ? { r, s, yParity: second >= PARITY_BIT ? 1 : 0 } : null;
  }
  const yParity = parityOfV(Number.parseInt(signature.slice(130), 16));
  return yParity === null || second > HALF_ORDER ? null : { r, s: second, yParity };
}

function word(value: bigint): Bytes32 {
  return `0x${value.toString(16).padStart(64, "0")}`;
}

/** From 65 bytes (or 64, already compact) to EIP-2098; `null` when malformed or high-s. */
export function toCompact(signature: string): CompactSignature | null {
  const parts = split(signature);
  if (parts === null) return null;
  return { r: word(parts.r), vs: word(parts.yParity === 1 ? parts.s | PARITY_BIT : parts.s) };
}

/** To the 65 bytes `r s v` with v 27 or 28, for USDC, wallets and libraries; `null` when high-s. */
export function fromCompact(compact: CompactSignature): HexBytes | null {
  const parts = split(serializeCompact(compact));
  if (parts === null) return null;
  return `0x${word(parts.r).slice(2)}${word(parts.s).slice(2)}${parts.yParity === 1 ? "1c" : "1b"}`;
}

/** The 64 bytes `r vs`. */
export function serializeCompact(compact: CompactSignature): HexBytes {
  return `0x${compact.r.slice(2)}${compact.vs.slice(2)}`;
}

/**
 * Who signed `digest`, lower-cased; `null` for what is malformed, high-s or on no curve point. Never throws.
 * Takes 64 or 65 bytes. A null or another address both mean: not signed by whom you expect.
 */
export async function recoverSigner(digest: Bytes32, signature: string): Promise<Address | null> {
  const parts = split(signature);
  if (parts === null) return null;
  const { r, s, yParity } = parts;
  const key = await curve.recover(digest, { r: word(r), s: word(s), yParity });
  // The first byte says only that the point is not compressed.
  return key === null ? null : `0x${keccak256(hexToBytes(`0x${key.slice(4)}`)).slice(26)}`;
}
