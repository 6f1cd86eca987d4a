import { encodeFunctionData } from "viem/utils";
import { leaseEscrowAbi } from "./abi/lease-escrow.ts";
import type { HexBytes } from "./ids.ts";
import type { Intent } from "./intent.ts";
import { toCompact } from "./signature.ts";
import {
  allowanceOf,
  consumerKeyOf,
  NO_SIGNATURE,
  ownersBytes,
  pairOf,
  spendersBytes,
} from "./signature-words.ts";

/** What is sent to the escrow for an intent. `null`: a signature is malformed or not in its canonical (low-s) form. */
export type Calldata = { readonly data: HexBytes; readonly gas: bigint } | null;

/** What one ERC-1271 check may take of a call, by the contract's own bound; USDC asks wallets as well. */
const WALLET_GAS = 300_000n;

/**
 * Static bounds, a third and more above what was measured (contracts/gas.json), checked by a call with that gas before
 * anything is signed: eth_estimateGas answers for the state of now, not of inclusion (research/settlement.md section 4).
 */
const GAS = {
  fund: (leases: number) => 260_000n + WALLET_GAS + 130_000n * BigInt(leases - 1),
  deposit: 170_000n + WALLET_GAS,
  allocate: (leases: number) => 160_000n + 80_000n * BigInt(leases - 1),
  settle: 180_000n,
  close: 220_000n,
  exit: 120_000n + WALLET_GAS,
  reclaim: 120_000n,
  release: 150_000n + WALLET_GAS,
  reclaimCredit: 110_000n,
  revokeMeter: 90_000n,
  withdraw: 110_000n,
};

function authorizationOf(intent: Extract<Intent, { kind: "fund" | "deposit" }>) {
  return {
    from: intent.from,
    salt: intent.salt,
    validAfter: BigInt(intent.validAfter),
    validBefore: BigInt(intent.validBefore),
    signature: intent.signature,
  };
}

/** An absent signature of the meter is zeros; null: there is one, and it is malformed. */
function cosignOf(signature: HexBytes | undefined) {
  return signature === undefined ? NO_SIGNATURE : toCompact(signature);
}

export function calldataOf(intent: Intent): Calldata {
  const abi = leaseEscrowAbi;
  switch (intent.kind) {
    case "fund": {
      const args = [intent.terms, intent.amounts, authorizationOf(intent)] as const;
      const data = encodeFunctionData({ abi, functionName: "fund", args });
      return { data, gas: GAS.fund(intent.terms.length) };
    }
    case "deposit": {
      const args = [intent.spender, intent.meter, intent.amount, authorizationOf(intent)] as const;
      return { data: encodeFunctionData({ abi, functionName: "deposit", args }), gas: GAS.deposit };
    }
    case "allocate": {
      const signature = spendersBytes(intent.signature);
      const meter = toCompact(intent.meterSignature);
      if (signature === null || meter === null) return null;
      const args = [intent.terms, intent.fundedTo, intent.validBefore, signature, meter] as const;
      const data = encodeFunctionData({ abi, functionName: "allocate", args });
      return { data, gas: GAS.allocate(intent.terms.length) };
    }
    case "settle": {
      const pair = pairOf(intent.signatures);
      const allowance = allowanceOf(intent.allowance);
      if (pair === null || allowance === null) return null;
      const key = consumerKeyOf(intent);
      const args = [intent.terms, intent.cumulative, intent.evidence, pair, allowance, key] as const;
      return { data: encodeFunctionData({ abi, functionName: "settle", args }), gas: GAS.settle };
    }
    case "close": {
      const pair = pairOf(intent.signatures);
      const allowance = allowanceOf(intent.allowance);
      if (pair === null || allowance === null) return null;
      const { terms, cumulative, evidence, validBefore } = intent;
      const key = consumerKeyOf(intent);
      const args = [terms, cumulative, evidence, validBefore, pair, allowance, key] as const;
      return { data: encodeFunctionData({ abi, functionName: "close", args }), gas: GAS.close };
    }
    case "exit": {
      const meter = cosignOf(intent.meterSignature);
      if (meter === null) return null;
      const { payer, consumerSigner } = intent.terms;
      const args = [intent.terms, ownersBytes(intent.signature, [payer, consumerSigner]), meter] as const;
      return { data: encodeFunctionData({ abi, functionName: "requestExit", args }), gas: GAS.exit };
    }
    case "reclaim": {
      const data = encodeFunctionData({ abi, functionName: "reclaim", args: [intent.terms] });
      return { data, gas: GAS.reclaim };
    }
    case "release": {
      const cosign = cosignOf(intent.meterSignature);
      if (cosign === null) return null;
      const { payer, spender, meter, validBefore } = intent;
      const signature = ownersBytes(intent.signature, [payer, spender]);
      const args = [payer, spender, meter, validBefore, signature, cosign] as const;
      return { data: encodeFunctionData({ abi, functionName: "release", args }), gas: GAS.release };
    }
    case "reclaim_credit": {
      const args = [intent.payer, intent.spender, intent.meter] as const;
      return {
        data: encodeFunctionData({ abi, functionName: "reclaimCredit", args }),
        gas: GAS.reclaimCredit,
      };
    }
    case "revoke_meter": {
      const signature = toCompact(intent.signature);
      if (signature === null) return null;
      const args = [intent.meter, signature] as const;
      return { data: encodeFunctionData({ abi, functionName: "revokeMeter", args }), gas: GAS.revokeMeter };
    }
    case "withdraw": {
      const data = encodeFunctionData({ abi, functionName: "withdraw", args: [intent.account] });
      return { data, gas: GAS.withdraw };
    }
  }
}

/** Seconds; from then on the contract or the token refuses the intent. Null for those that are never too late. */
export function deadlineOf(intent: Intent): number | null {
  switch (intent.kind) {
    case "fund":
      return Math.min(intent.validBefore, ...intent.terms.map((terms) => terms.expiry));
    case "deposit":
    case "allocate":
    case "close":
    case "release":
      return intent.validBefore;
    case "settle":
    case "exit":
    case "reclaim":
    case "reclaim_credit":
    case "revoke_meter":
    case "withdraw":
      return null;
  }
}
