import { canonicalJson, sha256Hex } from "@gpux/protocol/canonical";
import { LeaseId } from "@gpux/protocol/ids";
import { type Account, call } from "./client.ts";

/** Stores an object as any principal may; its hash. */
export async function store(account: Account, content: unknown): Promise<string> {
  const body = new Uint8Array(new TextEncoder().encode(canonicalJson(content)));
  const sha256 = await sha256Hex(body);
  const stored = await call(account, `/v1/objects/${sha256}`, {
    method: "PUT",
    body,
    headers: { "content-length": String(body.length) },
  });
  if (!stored.ok) throw new Error(`${stored.status} ${await stored.text()}`);
  return sha256;
}

/** A lease id that no test has. */
export function unknownLease(): LeaseId {
  const letters = Array.from(
    crypto.getRandomValues(new Uint8Array(32)),
    (byte) => "abcdefghijklmnopqrstuvwxyz234567"[byte & 31],
  );
  return LeaseId.parse(`lse_${letters.join("")}`);
}
