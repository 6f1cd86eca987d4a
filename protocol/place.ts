import { z } from "zod";
import { Address } from "./ids.ts";

/**
 * Where the money is: the chain and the escrow that every signature of ours names. Parsed once from a Worker's
 * variables `CHAIN_ID` and `ESCROW`. @throws ZodError on a deployment whose variables make no sense.
 */
export interface Place {
  readonly chainId: number;
  readonly escrow: Address;
}

const Variables = z.object({
  CHAIN_ID: z
    .string()
    .regex(/^[1-9][0-9]{0,14}$/)
    .transform(Number),
  ESCROW: Address,
});

export function placeOf(variables: { readonly CHAIN_ID: string; readonly ESCROW: string }): Place {
  const { CHAIN_ID, ESCROW } = Variables.parse(variables);
  return { chainId: CHAIN_ID, escrow: ESCROW };
}
