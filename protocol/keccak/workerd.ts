// workerd compiles no bytes at run time: the binary is a module of the Worker.
import binary from "./keccak.wasm";
import { keccakOf } from "./sponge.ts";

/** workerd (edge, relayer, meter). */
export const keccak = keccakOf(binary);
