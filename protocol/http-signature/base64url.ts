import { decodeBase64, encodeBase64 } from "./structured-fields.ts";

/** RFC 4648 section 5 without padding, as JSON Web Keys and tokens write bytes. */
export function encodeBase64Url(bytes: Uint8Array): string {
  return encodeBase64(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** Null for what is not in that alphabet or has another spelling (padding bits that are set). */
export function decodeBase64Url(text: string): Uint8Array<ArrayBuffer> | null {
  if (!/^[A-Za-z0-9_-]*$/.test(text) || text.length % 4 === 1) return null;
  const standard = text.replaceAll("-", "+").replaceAll("_", "/");
  const bytes = decodeBase64(standard.padEnd(Math.ceil(text.length / 4) * 4, "="));
  return bytes === null ? null : new Uint8Array(bytes);
}
