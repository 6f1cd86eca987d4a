import { BLOCKS_AT_ONCE, INPUT_AT, LANES, RATE_BYTES } from "./layout.ts";

/** Of any bytes, 32. */
export type Keccak256 = (message: Uint8Array) => Uint8Array;

const CHUNK = BLOCKS_AT_ONCE * RATE_BYTES;
const DIGEST_BYTES = 32;

/**
 * Keccak-256 as Ethereum has it, with the padding of before FIPS 202, by the permutation in keccak.wasm (ADR 17). Hashing
 * is synchronous, so all calls of an isolate share the one memory.
 */
export function keccakOf(module: WebAssembly.Module): Keccak256 {
  const { memory, absorb } = new WebAssembly.Instance(module, {}).exports;
  if (!(memory instanceof WebAssembly.Memory) || typeof absorb !== "function")
    throw new Error("keccak.wasm is not the binary that this was written for");
  const bytes = new Uint8Array(memory.buffer);

  return (message) => {
    bytes.fill(0, 0, 8 * LANES);
    let from = 0;
    for (; message.length - from >= CHUNK; from += CHUNK) {
      bytes.set(message.subarray(from, from + CHUNK), INPUT_AT);
      absorb(BLOCKS_AT_ONCE);
    }
    const rest = message.length - from;
    const blocks = Math.floor(rest / RATE_BYTES) + 1;
    const end = INPUT_AT + blocks * RATE_BYTES;
    bytes.set(from === 0 ? message : message.subarray(from), INPUT_AT);
    bytes.fill(0, INPUT_AT + rest, end);
    // The first and the last bit of the padding; they may be in one byte.
    bytes[INPUT_AT + rest] = 0x01;
    bytes[end - 1] = (bytes[end - 1] ?? 0) | 0x80;
    absorb(blocks);
    return bytes.slice(0, DIGEST_BYTES);
  };
}
