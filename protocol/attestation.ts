import { z } from "zod";
import { ConsumerSignature } from "./consumer-signature.ts";
import { LeaseTerms, MAX_ORDER_LEASES, Receipt, Seconds } from "./eip712.ts";
import { Address, Bytes32, HexBytes } from "./ids.ts";
import { SignedAllowance } from "./job.ts";
import { Amount } from "./money.ts";

/**
 * What a Lease object may ask of the meter (workers/meter), by service binding. Requests and answers are in wire
 * form: amounts as decimal strings, signatures as 65-byte hex (r, s, v).
 */

/** A request names at most this many receipts; a lease with more to sign asks in turns. */
export const MAX_ATTESTED_RECEIPTS = 256;

/** The lease's funding is on chain: `openedAt` is the timestamp of its block, in seconds. */
export const OpenRequest = z.strictObject({ terms: LeaseTerms, openedAt: Seconds });
export type OpenRequest = z.output<typeof OpenRequest>;

/**
 * Asks for the meter's signature over `Usage`, whose evidence commits to each receipt; with `close` also over `Close`
 * at the same cumulative. `receipts` follow the last attested one without a gap; those attested before may be named
 * again.
 * `allowance` is needed above the terms' `unattended`.
 */
export const AttestRequest = z.strictObject({
  terms: LeaseTerms,
  allowance: SignedAllowance.optional(),
  usage: z.strictObject({ cumulative: Amount, evidence: Bytes32 }),
  receipts: z.array(Receipt).max(MAX_ATTESTED_RECEIPTS),
  close: z.strictObject({ validBefore: Seconds }).optional(),
});
export type AttestRequest = z.output<typeof AttestRequest>;

/**
 * Why the meter does not sign. `request_invalid`: does not fit the schema; `terms_invalid`: terms that the contract
 * never opens; `meter_mismatch`: they name another meter; `above_terms`, `above_allowance`: more than terms
 * and time, or the consumer, let this lease use by now; `usage_decreased`: below what was signed before;
 * `receipts_gap`: the receipts do not follow the last attested one; `receipt_mismatch`: a receipt differs from the
 * one attested before, is of another lease or node, or the prices do not add up to the usage;
 * `evidence_mismatch`: not the root over all receipts; `lease_closed`: a `Close` below it was signed.
 */
export const AttestRefusalCode = z.enum([
  "request_invalid",
  "terms_invalid",
  "meter_mismatch",
  "above_terms",
  "above_allowance",
  "allowance_invalid",
  "usage_decreased",
  "receipts_gap",
  "receipt_mismatch",
  "evidence_mismatch",
  "lease_closed",
]);
export type AttestRefusalCode = z.infer<typeof AttestRefusalCode>;

export interface AttestRefusal {
  readonly ok: false;
  readonly code: AttestRefusalCode;
  readonly detail?: string;
}

export const Attestation = z.strictObject({
  ok: z.literal(true),
  leaseId: Bytes32,
  usageSignature: HexBytes,
  closeSignature: HexBytes.optional(),
});
export type Attestation = z.infer<typeof Attestation>;

/**
 * Asks for the meter's signature over `Allocate`: leases opened or topped up from the credit that their consumer signer
 * (`signature`) and the meter spend together.
 */
export const AllocationRequest = z
  .strictObject({
    terms: z.array(LeaseTerms).min(1).max(MAX_ORDER_LEASES),
    fundedTo: z.array(Amount).min(1).max(MAX_ORDER_LEASES),
    validBefore: Seconds,
    signature: ConsumerSignature,
  })
  .refine((request) => request.terms.length === request.fundedTo.length, "one target for each lease");
export type AllocationRequest = z.output<typeof AllocationRequest>;

/**
 * Why the meter does not co-sign an allocation, by the relayer's words for the same: `intent_invalid` does not fit the
 * schema, a target is zero or a lease stands twice; `terms_refused` are terms of another meter, with a key in two roles,
 * or such as no quote of this market has (SPEC CRD-2); `other_credit`: the leases are not of one payer and consumer;
 * `bad_signature`: not the consumer's, over exactly these targets; `lease_closed`: its final usage is signed.
 */
export const AllocationRefusalCode = z.enum([
  "intent_invalid",
  "terms_refused",
  "other_credit",
  "bad_signature",
  "lease_closed",
]);
export type AllocationRefusalCode = z.infer<typeof AllocationRefusalCode>;

export interface AllocationRefusal {
  readonly ok: false;
  readonly code: AllocationRefusalCode;
  readonly detail: string;
}

export const MeterInfo = z.strictObject({ address: Address, chainId: z.int(), escrow: Address });
export type MeterInfo = z.infer<typeof MeterInfo>;

/** The RPC of `workers/meter`'s entrypoint `Meter`. Every call may be repeated; a repeated request gets the same signatures. */
export interface MeterRpc {
  info(): Promise<MeterInfo>;
  /** Starts the lease's clock. Without it the clock starts at the first attestation. */
  open(request: z.input<typeof OpenRequest>): Promise<{ ok: true; leaseId: Bytes32 } | AttestRefusal>;
  attest(request: z.input<typeof AttestRequest>): Promise<Attestation | AttestRefusal>;
  /** Its half of an allocation. What it has co-signed once it co-signs again; the chain says whether the money is there. */
  allocate(
    request: z.input<typeof AllocationRequest>,
  ): Promise<{ ok: true; signature: HexBytes } | AllocationRefusal>;
}
