import { z } from "zod";

/**
 * Identifiers. RFC 4648 base32, lower case, no padding: safe in URLs, object names and file names.
 * A lease id shows 160 of the 256 bits of the on-chain lease id; a job id begins with its first lease,
 * so that any Worker can route it without a look-up.
 */
const ALPHABET = "abcdefghijklmnopqrstuvwxyz234567";

export const LeaseId = z
  .string()
  .regex(/^lse_[a-z2-7]{32}$/, "lse_ and 32 base32 characters")
  .brand("LeaseId");
export type LeaseId = z.infer<typeof LeaseId>;

export const JobId = z
  .string()
  .regex(/^job_[a-z2-7]{32}_[a-z2-7]{26}$/, "job_, the lease's 32 base32 characters, _ and 26 more")
  .brand("JobId");
export type JobId = z.infer<typeof JobId>;

/** An order: leases that open together or not at all. Random, and known to its maker's Account alone. */
export const OrderId = z
  .string()
  .regex(/^ord_[a-z2-7]{32}$/, "ord_ and 32 base32 characters")
  .brand("OrderId");
export type OrderId = z.infer<typeof OrderId>;

/** A job id that the client chose (`PUT /v1/jobs/{id}`); its Account resolves it to a {@link JobId}. */
export const ClientJobId = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{7,63}$/, "8 to 64 of A-Za-z0-9._-");

/**
 * Hex in any case, lower-cased by an overwrite, not a transform: a transform is one-way, and `z.encode`
 * must be able to walk every wire schema back (the struct codecs of eip712.ts).
 */
function hexOf(digits: RegExp, expectation: string) {
  return z
    .templateLiteral(["0x", z.string().regex(digits)], expectation)
    .overwrite((text) => `0x${text.slice(2).toLowerCase()}`);
}

export const Address = hexOf(/^[0-9a-fA-F]{40}$/, "a 20-byte hex address");
export type Address = z.infer<typeof Address>;

export const Bytes32 = hexOf(/^[0-9a-fA-F]{64}$/, "32 bytes in hex");
export type Bytes32 = z.infer<typeof Bytes32>;

export const HexBytes = hexOf(/^(?:[0-9a-fA-F]{2})*$/, "bytes in hex");
export type HexBytes = z.infer<typeof HexBytes>;

/** SHA-256 in lower-case hex without prefix: the name of an object. */
export const Sha256 = z.string().regex(/^[0-9a-f]{64}$/, "a sha256 in lower-case hex");

export function base32(bytes: Uint8Array): string {
  let text = "";
  let buffer = 0;
  let bits = 0;
  for (const byte of bytes) {
    buffer = (buffer << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += ALPHABET[(buffer >> bits) & 31];
      buffer &= (1 << bits) - 1;
    }
  }
  return bits === 0 ? text : text + ALPHABET[(buffer << (5 - bits)) & 31];
}

/** From the on-chain bytes32 lease id: its first 20 bytes. */
export function leaseIdOf(onChain: `0x${string}`): LeaseId {
  const bytes = Uint8Array.from({ length: 20 }, (_, i) =>
    Number.parseInt(onChain.slice(2 + 2 * i, 4 + 2 * i), 16),
  );
  return LeaseId.parse(`lse_${base32(bytes)}`);
}

/** `seed` is 16 bytes: random, or on the warm path the hash of key id and nonce, so that a replay is the same job. */
export function jobIdOf(lease: LeaseId, seed: Uint8Array): JobId {
  return JobId.parse(`job_${lease.slice(4)}_${base32(seed.subarray(0, 16))}`);
}

export function leaseOfJob(job: JobId): LeaseId {
  return LeaseId.parse(`lse_${job.slice(4, 36)}`);
}
