import { Address } from "@gpux/protocol/ids";
import { SessionId } from "@gpux/protocol/session";
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

/** As {@link Upgrade}, of a client that dials its lease: under which session, if any, and the edge's name for the request. */
const ClientUpgrade = Upgrade.extend({
  "x-gpux-session": SessionId.nullable().default(null),
  "x-gpux-bearer": z.enum(["yes", "no"]),
  "x-gpux-request": z.string().min(1).max(64),
});

/** As {@link upgradeOf}, of a client. */
export function clientUpgradeOf(request: Request) {
  const headers = ClientUpgrade.safeParse(Object.fromEntries(request.headers));
  if (!headers.success) return null;
  const { data } = headers;
  return {
    signer: data["x-gpux-principal"],
    nonce: data["x-gpux-nonce"],
    expires: data["x-gpux-expires"],
    session: data["x-gpux-session"],
    bearer: data["x-gpux-bearer"] === "yes",
    request: data["x-gpux-request"],
  };
}
