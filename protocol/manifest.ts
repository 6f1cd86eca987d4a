import { canonicalJson, sha256Hex } from "./canonical.ts";
import type { FunctionManifest } from "./manifest-schema.ts";

export { checkManifest, type ManifestRefusal } from "./manifest-check.ts";
export { LIMITS, Limits } from "./manifest-limits.ts";
export { FunctionManifest, FunctionName } from "./manifest-schema.ts";

/** The bytes of the object that holds a function: its canonical JSON, so that the object's hash is its address. */
export function packManifest(manifest: FunctionManifest): Uint8Array {
  return new TextEncoder().encode(canonicalJson(manifest));
}

/**
 * The function's content address: SHA-256, in lower-case hex, of the packed manifest. The same on every platform
 * (WebCrypto), whatever the order of keys in the author's file.
 */
export function functionAddress(manifest: FunctionManifest): Promise<string> {
  return sha256Hex(packManifest(manifest));
}
