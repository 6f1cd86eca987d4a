function nibble(code: number): number {
  if (code >= 48 && code <= 57) return code - 48;
  if (code >= 97 && code <= 102) return code - 87;
  if (code >= 65 && code <= 70) return code - 55;
  throw new TypeError("not a hex digit");
}

/** Writes `size` bytes from `at` on, as the hex text with its `0x` says them. Throws a TypeError on anything else. */
export function putHex(bytes: Uint8Array, at: number, hex: string, size: number): void {
  if (hex.length !== 2 + 2 * size || !hex.startsWith("0x"))
    throw new TypeError(`expected ${size} bytes in hex`);
  for (let i = 0; i < size; i += 1)
    bytes[at + i] = (nibble(hex.charCodeAt(2 + 2 * i)) << 4) | nibble(hex.charCodeAt(3 + 2 * i));
}
