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

export interface Credits {
  /** Base units of `payer` that `spender` may open leases with; 0 when the chain does not say. Kept for a minute. */
  of(payer: Address, spender: Address): Promise<bigint>;
}

/** Reads the escrow's credit through the edge's own node: asked only by who has used up what is free. */
export function createCredits(place: { rpcUrl: string; escrow: Address; meter: Address }): Credits {
  const known = new Map<string, { amount: bigint; at: number }>();

  async function read(payer: Address, spender: Address): Promise<bigint> {
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
    const answer = Answer.parse(await response.json());
    if (!isHex(answer.result)) return 0n;
    const [amount] = decodeFunctionResult({ ...call, data: answer.result });
    return amount;
  }

  return {
    async of(payer, spender) {
      const key = `${payer}:${spender}`;
      const cached = known.get(key);
      if (cached !== undefined && Date.now() < cached.at + FRESH_MS) return cached.amount;
      try {
        const amount = await read(payer, spender);
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
