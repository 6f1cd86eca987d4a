import type { FunctionManifest } from "./manifest-schema.ts";

export { checkManifest, type ManifestRefusal } from "./manifest-check.ts";
export { LIMITS, Limits } from "./manifest-limits.ts";
export { FunctionManifest, FunctionName } from "./manifest-schema.ts";

/** RFC 8785: keys sorted by UTF-16 code units, no white space, numbers as ECMAScript writes them. */
function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (typeof value === "object" && value !== null) {
    const members = Object.entries(value)
      .filter(([, member]) => member !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`);
    return `{${members.join(",")}}`;
  }
  return JSON.stringify(value);
}

/**
 * The function's content address: SHA-256, in lower-case hex, of the manifest's canonical JSON. The same on every
 * platform (WebCrypto), whatever the order of keys in the author's file.
 */
export async function functionAddress(manifest: FunctionManifest): Promise<string> {
  const bytes = new TextEncoder().encode(canonicalJson(manifest));
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
