import { z } from "zod";
import { Address } from "./ids.ts";
import { Intent } from "./intent.ts";

/**
 * What a party keeps of the signatures it holds, so that it gets its money without us: an intent and the place that it
 * is signed for. Consumers keep their fundings (with the terms), agents their vouchers; `gpux rescue` lands them.
 */
export const KeptIntent = z.strictObject({
  chain_id: z.int().min(1),
  escrow: Address,
  intent: Intent,
});
export type KeptIntent = z.output<typeof KeptIntent>;
/** As JSON. */
export type KeptIntentWire = z.input<typeof KeptIntent>;
