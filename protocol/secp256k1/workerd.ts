// workerd compiles no bytes at run time: the binary is a module of the Worker.
import binary from "@bitauth/libauth/build/lib/bin/secp256k1/secp256k1.wasm";
import { curveOf } from "./library.ts";

/** workerd (edge, relayer, meter). */
export const curve = curveOf(binary);
