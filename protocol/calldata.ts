import { encodeFunctionData } from "viem/utils";
import { leaseEscrowAbi } from "./abi/lease-escrow.ts";
import type { HexBytes } from "./ids.ts";
import type { Intent, VoucherSignatures } from "./intent.ts";
import { type CompactSignature, toCompact } from "./signature.ts";

/** What is sent to the escrow for an intent. `null`: a signature is malformed or not in its canonical (low-s) form. */
export type Calldata = { readonly data: HexBytes; readonly gas: bigint } | null;

const ROLES = { consumer: 1, provider: 2, meter: 4 } as const;
const NO_SIGNATURE: CompactSignature = { r: `0x${"00".repeat(32)}`, vs: `0x${"00".repeat(32)}` };

/** The consumer's P-256 key where its signer is one; every key that signs intents so far is secp256k1. */
const NO_KEY = { x: `0x${"00".repeat(32)}`, y: `0x${"00".repeat(32)}` } as const;

/**
 * Static bounds, a third and more above what was measured, checked by a call with that gas before anything is signed:
 * eth_estimateGas answers for the state of now, not of inclusion (research/settlement.md section 4). A smart wallet's
 * signature check may take 300,000 of an exit (the contract's own bound), and as much inside the token.
 */
const GAS = {
  fund: (leases: number) => 560_000n + 130_000n * BigInt(leases - 1),
  settle: 180_000n,
  close: 220_000n,
  exit: 420_000n,
  reclaim: 120_000n,
  withdraw: 110_000n,
};

/** The contract takes the signature of the lower role bit first. */
function pairOf(by: VoucherSignatures) {
  const signed = (["consumer", "provider", "meter"] as const).flatMap((role) => {
    const signature = by[role];
    return signature === undefined ? [] : [{ bit: ROLES[role], compact: toCompact(signature) }];
  });
  const [a, b] = signed;
  if (!a?.compact || !b?.compact) return null;
  return { roles: a.bit | b.bit, a: a.compact, b: b.compact };
}

/** Without one, the contract takes a zero ceiling and does not look at the signature. */
function allowanceOf(allowance: Extract<Intent, { kind: "settle" }>["allowance"]) {
  if (allowance === undefined) return { cumulative: 0n, sig: NO_SIGNATURE };
  const sig = toCompact(allowance.signature);
  return sig === null ? null : { cumulative: allowance.cumulative, sig };
}

export function calldataOf(intent: Intent): Calldata {
  switch (intent.kind) {
    case "fund": {
      const authorization = {
        from: intent.from,
        salt: intent.salt,
        validAfter: BigInt(intent.validAfter),
        validBefore: BigInt(intent.validBefore),
        signature: intent.signature,
      };
      const data = encodeFunctionData({
        abi: leaseEscrowAbi,
        functionName: "fund",
        args: [intent.terms, intent.amounts, authorization],
      });
      return { data, gas: GAS.fund(intent.terms.length) };
    }
    case "settle": {
      const pair = pairOf(intent.signatures);
      const allowance = allowanceOf(intent.allowance);
      if (pair === null || allowance === null) return null;
      const data = encodeFunctionData({
        abi: leaseEscrowAbi,
        functionName: "settle",
        args: [intent.terms, intent.cumulative, intent.evidence, pair, allowance, NO_KEY],
      });
      return { data, gas: GAS.settle };
    }
    case "close": {
      const pair = pairOf(intent.signatures);
      const allowance = allowanceOf(intent.allowance);
      if (pair === null || allowance === null) return null;
      const { terms, cumulative, evidence, validBefore } = intent;
      const data = encodeFunctionData({
        abi: leaseEscrowAbi,
        functionName: "close",
        args: [terms, cumulative, evidence, validBefore, pair, allowance, NO_KEY],
      });
      return { data, gas: GAS.close };
    }
    case "exit": {
      const meter = intent.meterSignature === undefined ? NO_SIGNATURE : toCompact(intent.meterSignature);
      if (meter === null) return null;
      const data = encodeFunctionData({
        abi: leaseEscrowAbi,
        functionName: "requestExit",
        args: [intent.terms, intent.signature, meter],
      });
      return { data, gas: GAS.exit };
    }
    case "reclaim":
      return {
        data: encodeFunctionData({ abi: leaseEscrowAbi, functionName: "reclaim", args: [intent.terms] }),
        gas: GAS.reclaim,
      };
    case "withdraw":
      return {
        data: encodeFunctionData({ abi: leaseEscrowAbi, functionName: "withdraw", args: [intent.account] }),
        gas: GAS.withdraw,
      };
  }
}

/** Seconds; from then on the contract or the token refuses the intent. Null for those that are never too late. */
export function deadlineOf(intent: Intent): number | null {
  switch (intent.kind) {
    case "fund":
      return Math.min(intent.validBefore, ...intent.terms.map((terms) => terms.expiry));
    case "close":
      return intent.validBefore;
    case "settle":
    case "exit":
    case "reclaim":
    case "withdraw":
      return null;
  }
}
