import type { FromLease } from "@gpux/protocol/frames";
import type { Bytes32 } from "@gpux/protocol/ids";
import { evidenceOf, hasherOf } from "./billing.ts";
import type { State } from "./state.ts";

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
  const asked = new Map(
    [...state.jobs.values()].flatMap((job) =>
      job.receipt?.provider === null ? [[job.receipt.receipt.sequence, job.receipt] as const] : [],
    ),
  );
  const claims = frame.receipts.flatMap(({ sequence, signature }) => {
    const receipt = asked.get(sequence)?.receipt;
    return receipt === undefined ? [] : [{ digest: hasher.receipt(receipt), signature }];
  });
  const last = asked.get(Math.max(0, ...frame.receipts.map((each) => each.sequence)));
  if (last === undefined) return claims;
  const usage = { leaseId: lease.hash, cumulative: last.receipt.cumulative, evidence: last.evidence };
  return [...claims, { digest: hasher.usage(usage), signature: frame.usage.signature }];
}
