import { authorizationDigest, type LeaseTerms } from "@gpux/protocol/eip712";
import { Bytes32, type HexBytes } from "@gpux/protocol/ids";
import {
  AllocateIntent,
  DepositIntent,
  ReclaimCreditIntent,
  ReleaseIntent,
  RevokeMeterIntent,
} from "@gpux/protocol/intent";
import { generatePrivateKey } from "viem/accounts";
import { z } from "zod";
import { type DevnetLease, escrow, hasher, tokenDomain } from "./devnet-lease.ts";

/** For tests on the devnet: a lease's credit is its payer's, for its consumer and meter. */

const creditOf = ({ payer, consumerSigner: spender, meter }: LeaseTerms) => ({ payer, spender, meter });

export async function depositOf({ terms, payer }: DevnetLease, amount: bigint) {
  const salt = Bytes32.parse(generatePrivateKey());
  const { spender, meter } = creditOf(terms);
  const validBefore = terms.expiry;
  const hash = authorizationDigest(tokenDomain, {
    from: terms.payer,
    to: escrow,
    value: amount,
    validAfter: 0n,
    validBefore: BigInt(validBefore),
    nonce: hasher.depositNonce({ payer: terms.payer, spender, meter, amount, salt }),
  });
  const from = terms.payer;
  const signature = await payer.sign({ hash });
  const intent = { from, spender, meter, amount, salt, validAfter: 0, validBefore, signature };
  return z.encode(DepositIntent, { kind: "deposit", ...intent });
}

/** `sign`: the spender's word, where it is not the first lease's consumer. */
export async function allocateOf(
  leases: readonly DevnetLease[],
  fundedTo: readonly bigint[],
  {
    // By the lease's own clock: other tests move the chain's ahead of ours by hours.
    validBefore = leases[0]?.terms.expiry ?? 0,
    sign,
  }: { validBefore?: number; sign?: (digest: Bytes32) => Promise<HexBytes> } = {},
) {
  const [first] = leases;
  if (first === undefined) throw new Error("no lease");
  const hash = hasher.allocate({
    leaseIds: leases.map(({ id }) => id),
    fundedTo: [...fundedTo],
    validBefore,
  });
  return z.encode(AllocateIntent, {
    kind: "allocate",
    terms: leases.map(({ terms }) => terms),
    fundedTo: [...fundedTo],
    validBefore,
    signature: await (sign === undefined ? first.consumer.sign({ hash }) : sign(hash)),
    meterSignature: await first.meter.sign({ hash }),
  });
}

/** By the payer; `cosigned` by the meter too. */
export async function releaseOf(
  { terms, payer, meter }: DevnetLease,
  { cosigned = false, validBefore = terms.expiry }: { cosigned?: boolean; validBefore?: number } = {},
) {
  const hash = hasher.release({ ...creditOf(terms), validBefore });
  return z.encode(ReleaseIntent, {
    kind: "release",
    ...creditOf(terms),
    validBefore,
    signature: await payer.sign({ hash }),
    ...(cosigned ? { meterSignature: await meter.sign({ hash }) } : {}),
  });
}

export function reclaimCreditOf({ terms }: DevnetLease, releaseAt: number) {
  return z.encode(ReclaimCreditIntent, { kind: "reclaim_credit", ...creditOf(terms), releaseAt });
}

export async function revokeOf({ terms, meter }: DevnetLease) {
  const signature = await meter.sign({ hash: hasher.revokeMeter({ meter: terms.meter }) });
  return z.encode(RevokeMeterIntent, { kind: "revoke_meter", meter: terms.meter, signature });
}
