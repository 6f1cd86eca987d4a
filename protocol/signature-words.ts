import { isP256 } from "./consumer-signature.ts";
import type { Address, Bytes32, HexBytes } from "./ids.ts";
import type { Intent, VoucherSignatures } from "./intent.ts";
import { p256Address, serializeP256, toP256 } from "./p256.ts";
import { type CompactSignature, toCompact } from "./signature.ts";

/** Signatures from their wire form into the words of the contract's `Sig`, `Pair`, `Allowance` and `PublicKey`. */

const ROLES = { consumer: 1, provider: 2, meter: 4 } as const;
const ZERO: Bytes32 = `0x${"00".repeat(32)}`;
export const NO_SIGNATURE: CompactSignature = { r: ZERO, vs: ZERO };
/** The consumer signs by ECDSA. */
const NO_KEY = { x: ZERO, y: ZERO };

/** A `Sig` of the consumer: for a P-256 key the bare r and s, its key travels beside it. */
function consumersSig(signature: HexBytes): CompactSignature | null {
  if (!isP256(signature)) return toCompact(signature);
  const parts = toP256(signature);
  return parts === null ? null : { r: parts.r, vs: parts.s };
}

/** The contract takes the signature of the lower role bit first. */
export function pairOf(by: VoucherSignatures) {
  const signed = (["consumer", "provider", "meter"] as const).flatMap((role) => {
    const signature = by[role];
    if (signature === undefined) return [];
    const sig = role === "consumer" ? consumersSig(signature) : toCompact(signature);
    return [{ bit: ROLES[role], sig }];
  });
  const [a, b] = signed;
  if (!a?.sig || !b?.sig) return null;
  return { roles: a.bit | b.bit, a: a.sig, b: b.sig };
}

type Voucher = Extract<Intent, { kind: "settle" | "close" }>;

/** Without one, the contract takes a zero ceiling and does not look at the signature. */
export function allowanceOf(allowance: Voucher["allowance"]) {
  if (allowance === undefined) return { cumulative: 0n, sig: NO_SIGNATURE };
  const sig = consumersSig(allowance.signature);
  return sig === null ? null : { cumulative: allowance.cumulative, sig };
}

/** Of the signature that the contract will read: the allowance's only where the consumer did not sign the usage. */
export function consumerKeyOf({ signatures, allowance }: Voucher) {
  const signature = signatures.consumer ?? allowance?.signature;
  const parts = signature === undefined ? null : toP256(signature);
  return parts === null ? NO_KEY : { x: parts.x, y: parts.y };
}

/** The bytes of a spender's signature, which is a key's; null when malformed. */
export function spendersBytes(signature: HexBytes): HexBytes | null {
  if (!isP256(signature)) return toCompact(signature) === null ? null : signature;
  const parts = toP256(signature);
  return parts === null ? null : serializeP256(parts);
}

/**
 * The bytes of an owner's signature. They may be a smart wallet's, of any form, and are then not ours to change, also
 * where they happen to have the length of a P-256 signature: only one by a key that may sign gets its low s.
 */
export function ownersBytes(signature: HexBytes, owners: readonly Address[]): HexBytes {
  const parts = toP256(signature);
  return parts !== null && owners.includes(p256Address(parts)) ? serializeP256(parts) : signature;
}
