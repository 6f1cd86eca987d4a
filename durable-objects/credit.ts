import { leaseEscrowAbi } from "@gpux/protocol/abi/lease-escrow";
import type { Address } from "@gpux/protocol/ids";
import { decodeFunctionResult, encodeFunctionData, isHex } from "viem/utils";
import { z } from "zod";

const TIMEOUT_MS = 3_000;
const FRESH_MS = 60_000;

const Answer = z.object({
  result: z
    .string()
    .max(4_096)
    .refine((text) => isHex(text)),
});

interface Place {
  readonly rpcUrl: string;
  readonly escrow: Address;
  readonly meter: Address;
}

/** A credit as the latest block has it. `releaseAt` in seconds; 0: no release is under way. Throws without the chain. */
export async function readCredit(
  place: Place,
  payer: Address,
  spender: Address,
): Promise<{ amount: bigint; releaseAt: number }> {
  const call = { abi: leaseEscrowAbi, functionName: "credits" } as const;
  const data = encodeFunctionData({ ...call, args: [payer, spender, place.meter] });
  const response = await fetch(place.rpcUrl, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      jsonrpc: "2.0",
      id: 1,
      method: "eth_call",
      params: [{ to: place.escrow, data }, "latest"],
    }),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const { result } = Answer.parse(await response.json());
  if (!isHex(result)) throw new Error("the node answers no hex");
  const [amount, releaseAt] = decodeFunctionResult({ ...call, data: result });
  return { amount, releaseAt };
}

export interface Credits {
  /**
   * Base units of `payer` that `spender` may open leases with; 0 when the chain does not say, or a release is pending. Kept for a minute, in which
   * one that is below `needed` is looked up again: it may have been deposited for what is asked now.
   */
  of(payer: Address, spender: Address, needed?: bigint): Promise<bigint>;
}

/** Reads the escrow's credit through the edge's own node. */
export function createCredits(place: Place): Credits {
  const known = new Map<string, { amount: bigint; at: number }>();

  return {
    async of(payer, spender, needed = 0n) {
      const key = `${payer}:${spender}`;
      const cached = known.get(key);
      const isFresh = cached !== undefined && Date.now() < cached.at + FRESH_MS;
      if (isFresh && cached.amount >= needed) return cached.amount;
      try {
        const credit = await readCredit(place, payer, spender);
        // On its way back it may be gone before anything lands.
        const amount = credit.releaseAt === 0 ? credit.amount : 0n;
        known.set(key, { amount, at: Date.now() });
        return amount;
      } catch (error) {
        // No chain, a reverted call, an answer of another form: who cannot be vouched for gets what everybody gets.
        console.error(JSON.stringify({ event: "credit_unknown", payer, error: String(error) }));
        return 0n;
      }
    },
  };
}
