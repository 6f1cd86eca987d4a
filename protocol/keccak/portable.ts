import { keccak256 } from "viem/utils";
import type { Keccak256 } from "./sponge.ts";

/** Everywhere else, browsers above all, as with the curve (secp256k1/portable.ts): viem's, in JavaScript. */
export const keccak: Keccak256 = (message) => keccak256(message, "bytes");
