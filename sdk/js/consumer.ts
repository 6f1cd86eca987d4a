import { digest, escrowDomain, type LeaseTerms } from "@gpux/protocol/eip712";
import { decodeBase64Url } from "@gpux/protocol/http-signature/base64url";
import { type Address, Bytes32 } from "@gpux/protocol/ids";
import type { Settlement } from "@gpux/protocol/lease";
import { p256Address, serializeP256, toP256 } from "@gpux/protocol/p256";
import { bytesToHex, hexToBytes } from "viem/utils";
import type { Account } from "./account.ts";
import { GpuxError } from "./error.ts";
import type { SessionKeyPair } from "./session-key.ts";
import { signAllowance } from "./spending.ts";

/** Most that a lease may have used in all, base units. */
interface Allowance {
  readonly leaseHash: Bytes32;
  readonly cumulative: bigint;
}

/** Who signs for what jobs may spend: the `consumerSigner` of a lease's terms. */
export interface Consumer {
  readonly address: Address;
  /** A key of its own, not the account that signs requests. */
  readonly isKey: boolean;
  /** In wire form. */
  allow(
    settlement: Settlement,
    allowance: Allowance,
  ): Promise<{ cumulative: string; signature: `0x${string}` }>;
}

/** The account itself: it is asked for typed data. */
export function accountConsumer(account: Account): Consumer {
  return {
    address: lower(account.address),
    isKey: false,
    allow: (settlement, allowance) => signAllowance(account, settlement, allowance),
  };
}

/**
 * A P-256 key of WebCrypto's, which may be one that cannot be read out: nobody is prompted. The contract knows it by the
 * last 20 bytes of keccak256(x, y). Throws `request_invalid` for a key on another curve.
 */
export function keyConsumer({ publicJwk, sign }: SessionKeyPair): Consumer {
  const [x, y] = publicJwk.kty === "EC" ? [coordinate(publicJwk.x), coordinate(publicJwk.y)] : [null, null];
  if (x === null || y === null)
    throw new GpuxError({
      code: "request_invalid",
      title: "The key cannot be a lease's consumer",
      hint: "Make it with newP256Key(): the escrow contract verifies P-256 and secp256k1 signatures.",
      detail: `its type is ${publicJwk.kty}`,
      fault: "tenant",
    });
  return {
    address: p256Address({ x, y }),
    isKey: true,
    async allow(settlement, { leaseHash, cumulative }) {
      const domain = escrowDomain({ chainId: settlement.chain_id, escrow: settlement.escrow });
      const hash = digest(domain, "Allowance", { leaseId: leaseHash, cumulative });
      const pair = bytesToHex(await sign(hexToBytes(hash)));
      // The lower of the two values of s, which alone the contract takes.
      const parts = toP256(`${pair}${x.slice(2)}${y.slice(2)}`);
      if (parts === null) throw new TypeError("ECDSA on P-256 signs with 64 bytes");
      return { cumulative: cumulative.toString(), signature: serializeP256(parts) };
    },
  };
}

/** The consumer must be the one that the terms name, or its signature is worth nothing. */
export function isConsumer(consumer: Consumer, terms: LeaseTerms): boolean {
  return terms.consumerSigner === consumer.address;
}

function coordinate(text: string): Bytes32 | null {
  const bytes = decodeBase64Url(text);
  return bytes?.length === 32 ? Bytes32.parse(bytesToHex(bytes)) : null;
}

function lower(address: `0x${string}`): Address {
  return `0x${address.slice(2).toLowerCase()}`;
}
