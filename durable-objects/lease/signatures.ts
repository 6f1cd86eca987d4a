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

/** The receipts that lack the provider's signature and get it by this frame, in order: its usage is as of the last. */
export function newlySigned(
  jobs: Iterable<Job>,
  frame: Extract<FromLease, { t: "signed" }>,
): { readonly job: Job; readonly asked: Asked; readonly signature: HexBytes }[] {
  const bySequence = new Map(frame.receipts.map((each) => [each.sequence, each.signature]));
  return [...jobs]
    .flatMap((job) => {
      const asked = job.receipt;
      const signature = asked === null ? undefined : bySequence.get(asked.receipt.sequence);
      return asked === null || asked.provider !== null || signature === undefined
        ? []
        : [{ job, asked, signature }];
    })
    .sort((a, b) => a.asked.receipt.sequence - b.asked.receipt.sequence);
}
