import type { FromLease } from "@gpux/protocol/frames";
import type { Bytes32 } from "@gpux/protocol/ids";
import { evidenceOf, hasherOf } from "./billing.ts";
import type { Lease, State } from "./state.ts";

/** A signature that a frame claims to be the provider's, and the digest it must be over. */
export interface Claim {
  readonly digest: Bytes32;
  readonly signature: string;
}

/**
 * What must be checked before a frame may reach the machine. A signature over a usage that was not asked for (any
 * more) claims nothing: the machine passes over them.
 */
export function claimsOf(state: State, frame: FromLease): Claim[] {
  const { lease } = state;
  const hasher = hasherOf(lease.place);
  if (frame.t === "close_signed") {
    if (!isCloseAnswer(lease, frame)) return [];
    const close = {
      leaseId: lease.hash,
      cumulative: frame.cumulative,
      evidence: evidenceOf(lease),
      validBefore: frame.valid_before,
    };
    return [{ digest: hasher.close(close), signature: frame.signature }];
  }
  if (frame.t !== "signed" || !isAnswer(lease, frame)) return [];
  const { cumulative, signature } = frame.usage;
  const evidence = lease.block?.evidence ?? evidenceOf(lease);
  return [{ digest: hasher.usage({ leaseId: lease.hash, cumulative, evidence }), signature }];
}

/** Whether it answers the question that is open, and not one that was answered or taken back. */
export function isAnswer({ block }: Lease, { usage }: Extract<FromLease, { t: "signed" }>): boolean {
  if (block === null || block.provider !== null) return false;
  return block.evidence === usage.evidence && block.cumulative === usage.cumulative;
}

/** As {@link isAnswer}, of the final usage: it is asked for anew when it has changed or its time was over. */
export function isCloseAnswer(
  { closing, spent }: Lease,
  said: Extract<FromLease, { t: "close_signed" }>,
): boolean {
  if (closing === null || closing.provider !== null) return false;
  return closing.validBefore === said.valid_before && spent === said.cumulative;
}
