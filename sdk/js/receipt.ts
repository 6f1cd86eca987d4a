import { canonicalJson } from "@gpux/protocol/canonical";
import { digest, escrowDomain, type LeaseTerms, leaseIdHash, NO_JOB, Receipt } from "@gpux/protocol/eip712";
import { type Address, type LeaseId, leaseIdOf } from "@gpux/protocol/ids";
import {
  inputHash,
  type JobRequest,
  type JobView,
  type Output,
  type SignedReceipt,
} from "@gpux/protocol/job";
import type { QuoteText, TickView } from "@gpux/protocol/lease";
import { verifyProof } from "@gpux/protocol/merkle";
import { recoverSigner } from "@gpux/protocol/signature";
import { charged, startPriceOf } from "@gpux/protocol/tariff";
import { keccak256, stringToBytes } from "viem/utils";

export interface ReceiptContext {
  readonly chainId: number;
  readonly escrow: Address;
  /** Of the lease the job ran on, from a quote or lease whose hash was checked. */
  readonly terms: LeaseTerms;
  /** What the terms' `quote` commits to; without it a lease counts as one whose start cost nothing. */
  readonly text?: QuoteText;
  /** What was sent; with it the receipt's inputHash is checked too. */
  readonly request?: Pick<JobRequest, "function" | "inputs">;
}

export type ReceiptRefusal =
  | "receipt_missing"
  | "receipt_invalid"
  | "lease_mismatch"
  | "job_mismatch"
  | "input_mismatch"
  | "output_mismatch"
  | "price_mismatch"
  | "not_settled"
  | "proof_invalid"
  | "provider_signature_invalid"
  | "edge_signature_invalid";

export type ReceiptCheck =
  | { readonly ok: true; readonly receipt: Receipt }
  | { readonly ok: false; readonly code: ReceiptRefusal; readonly detail: string };

const fail = (code: ReceiptRefusal, detail: string): ReceiptCheck => ({ ok: false, code, detail });

/**
 * Whether the job's receipt says what the job's view says, and both the node (`terms.providerSigner`) and the edge
 * (`terms.meter`) signed a usage of the lease that covers it. `not_settled` right after the end only means: ask again.
 * What attempts before the last one cost (SPEC CKP-2) has receipts of its own: {@link verifyKept}.
 */
export async function verifyReceipt(job: JobView, context: ReceiptContext): Promise<ReceiptCheck> {
  if (job.receipt === undefined) return fail("receipt_missing", "the job has none (yet)");
  const kept = job.attempts.filter(({ receipt }) => receipt !== undefined);
  return checkOfJob(job, job.receipt, context, {
    lease: job.lease_id,
    outputs: job.outputs,
    price: kept.reduce((left, { paid = 0n }) => left - paid, job.price),
    billedMs: kept.reduce((left, { billed_ms = 0 }) => left - billed_ms, job.billed_ms),
  });
}

/**
 * As {@link verifyReceipt}, of each attempt on the lease of `terms` that gave way and kept what it had done, in order. A job
 * that has moved (SPEC JOB-11) has such attempts on other leases as well: `attempts[].lease_id` names them.
 */
export async function verifyKept(job: JobView, context: ReceiptContext): Promise<ReceiptCheck[]> {
  const checks: ReceiptCheck[] = [];
  const here = leaseIdOf(leaseIdHash(escrowDomain(context), context.terms));
  for (const {
    n,
    receipt,
    paid = 0n,
    billed_ms: billedMs = 0,
    lease_id: lease = job.lease_id,
  } of job.attempts) {
    if (receipt === undefined || lease !== here) continue;
    const check = await checkOfJob(job, receipt, context, { lease, outputs: [], price: paid, billedMs });
    const isOther = check.ok && check.receipt.attempt !== n;
    checks.push(isOther ? fail("job_mismatch", "of another attempt") : check);
  }
  return checks;
}

async function checkOfJob(
  job: JobView,
  signed: SignedReceipt,
  context: ReceiptContext,
  expected: {
    readonly lease: LeaseId;
    readonly outputs: readonly Output[];
    readonly price: bigint;
    readonly billedMs: number;
  },
): Promise<ReceiptCheck> {
  const parsed = Receipt.safeParse(signed.receipt);
  if (!parsed.success) return fail("receipt_invalid", parsed.error.issues[0]?.message ?? "not a receipt");
  const receipt = parsed.data;
  const domain = escrowDomain(context);
  if (receipt.leaseId !== leaseIdHash(domain, context.terms))
    return fail("lease_mismatch", "of another lease");
  if (expected.lease !== leaseIdOf(receipt.leaseId)) return fail("lease_mismatch", "of another lease");
  if (receipt.node !== context.terms.providerSigner) return fail("lease_mismatch", "of another node");
  if (receipt.job !== keccak256(stringToBytes(job.id))) return fail("job_mismatch", "of another job");
  if (context.request !== undefined && receipt.inputHash !== `0x${await inputHash(context.request)}`) {
    return fail("input_mismatch", "for another function or other inputs");
  }
  const outputs = expected.outputs.map((output) => `0x${output.sha256}`);
  if (receipt.outputHashes.join() !== outputs.join()) return fail("output_mismatch", "for other outputs");
  if (receipt.price !== expected.price || receipt.billedMs !== BigInt(expected.billedMs)) {
    return fail("price_mismatch", `it says ${receipt.price}, the job ${expected.price}`);
  }
  return checkSigned(receipt, signed, context);
}

/**
 * Whether a tick of a dedicated lease says what its receipt says, and both have signed for it, as {@link verifyReceipt}.
 * Its price follows from the time that is billed before it, so check all of a lease's ticks in their order; `before` are
 * the milliseconds of those before this one.
 */
export async function verifyTick(
  tick: TickView,
  before: bigint,
  context: Omit<ReceiptContext, "request">,
): Promise<ReceiptCheck> {
  const parsed = Receipt.safeParse(tick.receipt.receipt);
  if (!parsed.success) return fail("receipt_invalid", parsed.error.issues[0]?.message ?? "not a receipt");
  const receipt = parsed.data;
  const { terms, text } = context;
  if (receipt.leaseId !== leaseIdHash(escrowDomain(context), terms))
    return fail("lease_mismatch", "of another lease");
  if (receipt.node !== terms.providerSigner) return fail("lease_mismatch", "of another node");
  if (receipt.job !== NO_JOB) return fail("job_mismatch", "of a job");
  if (receipt.inputHash !== terms.quote) return fail("input_mismatch", "for what was not reserved");
  const total = Number(before + receipt.billedMs);
  if (text !== undefined && terms.quote !== keccak256(stringToBytes(canonicalJson(text))))
    return fail("lease_mismatch", "the text is another lease's");
  const tariff = { ratePerHour: terms.ratePerHour, gpus: 1, start: startPriceOf(text) };
  const price = charged(tariff, total) - charged(tariff, Number(before));
  if (receipt.price !== price || tick.price !== price || receipt.billedMs !== BigInt(tick.served_ms))
    return fail("price_mismatch", `it says ${receipt.price}, ${receipt.billedMs} ms cost ${price}`);
  return checkSigned(receipt, tick.receipt, context);
}

async function checkSigned(
  receipt: Receipt,
  { usage, proof, provider_signature, edge_signature }: SignedReceipt,
  context: Pick<ReceiptContext, "chainId" | "escrow" | "terms">,
): Promise<ReceiptCheck> {
  const domain = escrowDomain(context);
  if (usage === null || proof === null || provider_signature === null || edge_signature === null)
    return fail("not_settled", "the node and the edge have not signed for it yet");
  const { sequence, cumulative } = receipt;
  const leaf = digest(domain, "Receipt", receipt);
  const isIncluded =
    cumulative <= usage.cumulative && verifyProof(usage.evidence, leaf, sequence - 1, usage.size, proof);
  if (!isIncluded) return fail("proof_invalid", "the usage that was signed does not cover it");
  const { leaseId } = receipt;
  const hash = digest(domain, "Usage", { leaseId, cumulative: usage.cumulative, evidence: usage.evidence });
  if ((await recoverSigner(hash, provider_signature)) !== context.terms.providerSigner)
    return fail("provider_signature_invalid", "it is not the node's");
  if ((await recoverSigner(hash, edge_signature)) !== context.terms.meter)
    return fail("edge_signature_invalid", "it is not the meter's");
  return { ok: true, receipt };
}
