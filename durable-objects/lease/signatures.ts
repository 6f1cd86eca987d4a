import type { FromLease } from "@gpux/protocol/frames";
import type { Bytes32, HexBytes } from "@gpux/protocol/ids";
import { evidenceOf, hasherOf } from "./billing.ts";
import type { Job, State } from "./state.ts";

/** A signature that a frame claims to be the provider's, and the digest it must be over. */
export interface Claim {
  readonly digest: Bytes32;
  readonly signature: string;
}

/**
 * What must be checked before a frame may reach the machine. Signatures over receipts or usage that were not asked
 * for (any more) claim nothing: the machine passes over them.
 */
export function claimsOf(state: State, frame: FromLease): Claim[] {
  const { lease } = state;
  const hasher = hasherOf(lease.place);
  if (frame.t === "close_signed") {
    const close = {
      leaseId: lease.hash,
      cumulative: frame.cumulative,
      evidence: evidenceOf(lease),
      validBefore: frame.valid_before,
    };
    return [{ digest: hasher.close(close), signature: frame.signature }];
  }
  if (frame.t !== "signed") return [];
  const newly = newlySigned(state.jobs.values(), frame);
  const claims = newly.map(({ asked, signature }) => ({ digest: hasher.receipt(asked.receipt), signature }));
  const last = newly.at(-1)?.asked;
  if (last === undefined) return claims;
  const usage = { leaseId: lease.hash, cumulative: last.receipt.cumulative, evidence: last.evidence };
  return [...claims, { digest: hasher.usage(usage), signature: frame.usage.signature }];
}

type Asked = NonNullable<Job["receipt"]>;

/**
 * The receipts whose provider signature this frame brings, by sequence. Only in order: a receipt that is signed while
 * one before it is not could never be attested, nor be taken back with it.
 */
export function newlySigned(
  jobs: Iterable<Job>,
  frame: Extract<FromLease, { t: "signed" }>,
): { readonly job: Job; readonly asked: Asked; readonly signature: HexBytes }[] {
  const bySequence = new Map(frame.receipts.map((each) => [each.sequence, each.signature]));
  const signed: { job: Job; asked: Asked; signature: HexBytes }[] = [];
  for (const { job, asked } of unsignedReceipts(jobs)) {
    const signature = bySequence.get(asked.receipt.sequence);
    if (signature === undefined) break;
    signed.push({ job, asked, signature });
  }
  return signed;
}

/** What the provider has yet to sign, in order. */
export function unsignedReceipts(jobs: Iterable<Job>): { readonly job: Job; readonly asked: Asked }[] {
  return [...jobs]
    .flatMap((job) => (job.receipt?.provider === null ? [{ job, asked: job.receipt }] : []))
    .sort((a, b) => a.asked.receipt.sequence - b.asked.receipt.sequence);
}
