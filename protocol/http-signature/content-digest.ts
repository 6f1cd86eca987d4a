import { parseByteSequences, serializeBytes } from "./structured-fields.ts";

/** RFC 9530. Always over the raw bytes as received, before any parser has seen them. */

const ALGORITHMS = new Map([
  ["sha-256", "SHA-256"],
  ["sha-512", "SHA-512"],
]);
/** Both digests with room for one that we do not know. */
const MAX_LENGTH = 512;

async function digestOf(algorithm: string, body: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest(algorithm, body));
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

export function sha256Of(body: Uint8Array): Promise<Uint8Array> {
  return digestOf("SHA-256", body);
}

/** The field's value for a body of this SHA-256: `sha-256=:...:`. */
export function digestField(sha256: Uint8Array): string {
  return `sha-256=${serializeBytes(sha256)}`;
}

/** The field's value for a body. */
export async function contentDigest(body: Uint8Array): Promise<string> {
  return digestField(await sha256Of(body));
}

/**
 * Whether `field` names at least one digest that we know (sha-256, sha-512) and every such digest is the body's.
 * Unknown algorithms are passed over, as RFC 9530 section 2 asks; malformed fields are false.
 */
export async function matchesContentDigest(field: string, body: Uint8Array): Promise<boolean> {
  const claimed = field.length > MAX_LENGTH ? null : parseByteSequences(field);
  if (claimed === null) return false;
  let known = 0;
  for (const [name, digest] of claimed) {
    const algorithm = ALGORITHMS.get(name);
    if (algorithm === undefined) continue;
    if (!equal(digest, await digestOf(algorithm, body))) return false;
    known += 1;
  }
  return known > 0;
}

/** Whether `field` is this SHA-256 and claims nothing that only the bytes themselves could prove. */
export function namesSha256(field: string, sha256: Uint8Array): boolean {
  const claimed = field.length > MAX_LENGTH ? null : parseByteSequences(field);
  const digest = claimed?.get("sha-256");
  return digest !== undefined && !claimed?.has("sha-512") && equal(digest, sha256);
}
