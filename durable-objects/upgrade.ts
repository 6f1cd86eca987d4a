import { Address } from "@gpux/protocol/ids";
import { z } from "zod";

/**
 * What the edge found in an agent's signed upgrade request, as the headers it hands on to the object; nothing of the
 * client's own is among them. The object refuses a nonce that it has seen.
 */
const Upgrade = z.object({
  upgrade: z.literal("websocket"),
  "x-gpux-principal": Address,
  "x-gpux-nonce": z.string().min(1).max(256),
  "x-gpux-expires": z.coerce.number().int(),
});

/** Who dials, in the terms of takeNonce; `null` when this is no upgrade that the edge verified. */
export function upgradeOf(request: Request): { signer: Address; nonce: string; expires: number } | null {
  const headers = Upgrade.safeParse(Object.fromEntries(request.headers));
  if (!headers.success) return null;
  const { "x-gpux-principal": signer, "x-gpux-nonce": nonce, "x-gpux-expires": expires } = headers.data;
  return { signer, nonce, expires };
}
